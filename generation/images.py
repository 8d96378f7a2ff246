"""Pictures from anywhere, made safe and alike: 8-bit sRGB PNG without metadata, named by hash.

What comes in is judged by its content, never by its name, and decoded in a process that may die
(`decoding/`, which has the rules). Whatever cannot be read faithfully is refused with a sentence
that names the file and the remedy; nothing is stored then.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.utils.translation import gettext as _
from PIL import Image as Pillow

from generation.decoding import pool
from generation.decoding.pixels import Refused
from generation.models import Image

logger = logging.getLogger(__name__)

MAX_BYTES = 100 * 2**20
# The longest side of the reduced copies: for lists, and for judging before zooming in.
SIDES = {"thumb": 256, "screen": 512}

Readable = bytes | str | Path | IO[bytes]


class ImageError(ValueError):
    """A picture or mask that cannot be used; the message names it and says what to do."""


# Reading ----------------------------------------------------------------------------------------


def decode(file: Readable, *, name: str = "") -> Pillow.Image:
    """The picture as 8-bit RGB, upright. Raises ImageError."""
    return _decoded(file, name, "picture")


def decode_mask(file: Readable, *, name: str = "") -> Pillow.Image:
    """The mask as "L" with 0 and 255 only, upright. Raises ImageError.

    An alpha channel that varies is the mask (opaque is edited); otherwise the brightest channel is.
    Two values, such as 0 and 1, are black and white. A few grey pixels are taken for an antialiased
    edge and cut at the middle; more are refused.
    """
    return _decoded(file, name, "mask")


def decode_alpha(file: Readable, *, name: str = "") -> Pillow.Image:
    """The mask in a picture's alpha channel: what is transparent is edited. Raises ImageError."""
    return _decoded(file, name, "alpha")


def _decoded(file: Readable, name: str, kind: str) -> Pillow.Image:
    name = name or _name_of(file)
    data = _bytes_of(file, name)
    try:
        return pool.decode(data, kind)
    except Refused as refused:
        raise ImageError(pool.sentence(refused, name)) from None


def _name_of(file: Readable) -> str:
    if isinstance(file, str | Path):
        return Path(file).name
    return str(getattr(file, "name", "") or _("The picture"))


def _bytes_of(file: Readable, name: str) -> bytes:
    if isinstance(file, bytes):
        data = file
    elif isinstance(file, str | Path):
        try:
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise ImageError(
                _("%(name)s cannot be read: %(strerror)s.")
                % {"name": name, "strerror": error.strerror}
            ) from None
    else:
        data = file.read(MAX_BYTES + 1)
    if not data:
        raise ImageError(_("%(name)s is empty. Save or upload it again.") % {"name": name})
    if len(data) > MAX_BYTES:
        raise ImageError(
            _("%(name)s is larger than %(most)s MB. Save it smaller, for example as JPEG.")
            % {"name": name, "most": MAX_BYTES // 2**20}
        )
    return data


def check_mask(
    mask: Pillow.Image,
    size: tuple[int, int],
    *,
    mask_name: str = "",
    image_name: str = "",
) -> None:
    """Refuse a mask that does not fit its picture or marks nothing. Raises ImageError."""
    mask_name = mask_name or _("The mask")
    if mask.size != size:
        if mask.size == size[::-1]:
            said = _(
                "%(mask_name)s has %(mask)s pixels and %(image_name)s %(image)s. Save the mask in "
                "the picture's size, upright as the picture is shown."
            )
        else:
            said = _(
                "%(mask_name)s has %(mask)s pixels and %(image_name)s %(image)s. Save the mask in "
                "the picture's size."
            )
        raise ImageError(
            said
            % {
                "mask_name": mask_name,
                "mask": f"{mask.width} × {mask.height}",
                "image_name": image_name or _("the picture"),
                "image": f"{size[0]} × {size[1]}",
            }
        )
    if mask.getextrema() == (0, 0):
        raise ImageError(
            _("%(mask_name)s is empty: nothing in it is white. Paint the area to edit white.")
            % {"mask_name": mask_name}
        )


# Keeping ----------------------------------------------------------------------------------------


def encode(picture: Pillow.Image) -> bytes:
    """PNG without metadata; the same pixels give the same bytes."""
    bare = Pillow.frombytes(picture.mode, picture.size, picture.tobytes())
    file = io.BytesIO()
    bare.save(file, "PNG", compress_level=6)
    return file.getvalue()


def sha256_of(picture: Pillow.Image) -> str:
    """The hash that `store` gives a picture."""
    return hashlib.sha256(encode(picture)).hexdigest()


def store(picture: Pillow.Image) -> Image:
    """The row of a picture ("RGB" or "L"); one that is known already is found, not stored again."""
    data = encode(picture)
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{sha256[:2]}/{sha256}.png"
    # The file comes first: a row always has its picture. A file without a row harms nobody.
    if not default_storage.exists(f"images/{key}"):
        _write(f"images/{key}", data)
    image, _ = Image.objects.get_or_create(
        sha256=sha256,
        defaults={
            "width": picture.width,
            "height": picture.height,
            "format": "png",
            "byte_size": len(data),
            "storage_key": key,
        },
    )
    return image


def store_all(pictures: Sequence[Pillow.Image]) -> list[Image]:
    """`store` for many pictures at once: a handful of queries, whatever their number."""
    encoded = [encode(picture) for picture in pictures]
    hashes = [hashlib.sha256(data).hexdigest() for data in encoded]
    known = Image.objects.in_bulk(hashes, field_name="sha256")
    new: dict[str, Image] = {}
    for sha256, data, picture in zip(hashes, encoded, pictures, strict=True):
        if sha256 not in known and sha256 not in new:
            new[sha256] = keep(data, picture.size)
    Image.objects.bulk_create(new.values(), ignore_conflicts=True)
    rows = Image.objects.in_bulk(hashes, field_name="sha256")
    return [rows[sha256] for sha256 in hashes]


def keep(data: bytes, size: tuple[int, int]) -> Image:
    """Put an encoded picture into the store; its row is returned, and not saved yet."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{sha256[:2]}/{sha256}.png"
    if not default_storage.exists(f"images/{key}"):
        _write(f"images/{key}", data)
    return Image(
        sha256=sha256,
        width=size[0],
        height=size[1],
        format="png",
        byte_size=len(data),
        storage_key=key,
    )


def read_bytes(image: Image) -> bytes:
    """What was stored, byte for byte; ImageError where it is gone or is something else now."""
    try:
        with default_storage.open(f"images/{image.storage_key}") as file:
            data = bytes(file.read())
    except FileNotFoundError:
        raise ImageError(
            _(
                "The file images/%(storage_key)s of a picture is gone from the store. "
                "Restore it from a backup or import the picture again."
            )
            % {"storage_key": image.storage_key}
        ) from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        logger.error("images/%s is damaged: its bytes are not its hash's", image.storage_key)
        raise ImageError(
            _(
                "The file images/%(storage_key)s of a picture is damaged: it is not what was "
                "stored. Restore it from a backup."
            )
            % {"storage_key": image.storage_key}
        )
    return data


def open_image(image: Image) -> Pillow.Image:
    with Pillow.open(io.BytesIO(read_bytes(image)), formats=["PNG"]) as picture:
        return picture.copy()


def local_path(image: Image) -> Path:
    """Where the file lies, for programs that read files. Only for a store on this disk."""
    return Path(default_storage.path(f"images/{image.storage_key}"))


def reduced(image: Image, size: str) -> bytes:
    """The picture as PNG of at most SIDES[size] pixels a side; made once."""
    side = SIDES[size]
    if max(image.width, image.height) <= side:
        return read_bytes(image)
    name = f"{size}s/{image.storage_key}"
    if default_storage.exists(name):
        with default_storage.open(name) as file:
            data = bytes(file.read())
        if _is_whole(data):
            return data
        logger.warning("%s is damaged and made again", name)
        default_storage.delete(name)
    picture = open_image(image)
    picture.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    data = encode(picture)
    _write(name, data)
    return data


def _is_whole(png: bytes) -> bool:
    """Whether each chunk's checksum is right, up to the last one."""
    at, kind = 8, b""
    while at + 12 <= len(png) and kind != b"IEND":
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        (said,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length].ljust(4, b"?"))
        if zlib.crc32(png[at + 4 : at + 8 + length]) != said:
            return False
        at += length + 12
    return kind == b"IEND" and at == len(png)


def _write(name: str, data: bytes) -> None:
    """Whole or not at all: object stores put so by themselves, on a disk a rename does."""
    if not isinstance(default_storage, FileSystemStorage):
        default_storage.save(name, ContentFile(data))
        return
    path = Path(default_storage.path(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync(path.parent)  # the name, too, is there before a row speaks of it
    finally:
        draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Working size -----------------------------------------------------------------------------------


def working_size(width: int, height: int, max_pixels: int, multiple: int) -> tuple[int, int]:
    """The size a picture is worked on: at most max_pixels, sides multiples of `multiple`.

    Pictures are only scaled down. Among the sizes that fit, the one nearest to the picture's shape
    is taken, so that nothing has to be cut off; at 512 pixels the shape changes by 2 % at most.
    """
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))

    def sides(side: int) -> set[int]:
        lower = max(multiple, int(side * scale) // multiple * multiple)
        upper = max(multiple, math.ceil(side * scale / multiple) * multiple)
        return {lower, upper if upper <= side else lower}

    sizes = [(w, h) for w in sides(width) for h in sides(height)]
    fitting = [size for size in sizes if size[0] * size[1] <= max_pixels] or [min(sizes)]
    return min(fitting, key=lambda size: (_distortion(size, width / height), -size[0] * size[1]))


def _distortion(size: tuple[int, int], ratio: float) -> float:
    return round(abs(math.log(size[0] / size[1] / ratio)), 6)


def fit(
    picture: Pillow.Image, mask: Pillow.Image, max_pixels: int, multiple: int
) -> tuple[Pillow.Image, Pillow.Image]:
    """Picture and mask at their working size."""
    size = working_size(picture.width, picture.height, max_pixels, multiple)
    return at_size(picture, mask, size)


def at_size(
    picture: Pillow.Image, mask: Pillow.Image, size: tuple[int, int]
) -> tuple[Pillow.Image, Pillow.Image]:
    """Picture and mask scaled. A mask that is scaled down keeps its thinnest parts: a pixel is
    edited when any of the pixels behind it was."""
    if size == picture.size:
        return picture, mask
    # In floating point, where a single pixel among thousands is not rounded away.
    covered = np.asarray(mask.convert("F").resize(size, Pillow.Resampling.BOX)) > 0.001
    small = Pillow.fromarray(np.where(covered, 255, 0).astype(np.uint8))
    return picture.resize(size, Pillow.Resampling.LANCZOS), small
