"""Pictures from anywhere, made safe and alike: 8-bit sRGB PNG without metadata, named by hash.

What comes in is judged by its content, never by its name. Whatever cannot be read faithfully is
refused with a sentence that names the file and the remedy; nothing is stored then.

Choices: transparency is laid over white; 16-bit grey is scaled to 8 bits; an embedded colour
profile and EXIF rotation are applied; several frames are refused, since an edit has one picture and
the first frame is an arbitrary one. A mask is white where the picture is to be edited.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.utils.translation import gettext as _
from PIL import Image as Pillow
from PIL import ImageChops, ImageCms, ImageOps, UnidentifiedImageError

from generation.models import Image

MAX_PIXELS = 64_000_000
MAX_BYTES = 100 * 2**20
MIN_SIDE = 8
FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"]
# A mask's pixels this near to black or white are black or white; JPEG's ringing stays inside.
NEAR = 16
# An antialiased edge greys a few per cent of a picture; a soft or painted mask far more.
MAX_GREY_SHARE = 0.05
# The longest side of the reduced copies: for lists, and for judging before zooming in.
SIDES = {"thumb": 256, "screen": 512}

Readable = bytes | str | Path | IO[bytes]


class ImageError(ValueError):
    """A picture or mask that cannot be used; the message names it and says what to do."""


# Reading ----------------------------------------------------------------------------------------


def decode(file: Readable, *, name: str = "") -> Pillow.Image:
    """The picture as 8-bit RGB, upright. Raises ImageError."""
    with opened(file, name) as (picture, name):
        return _to_rgb(picture, name)


def decode_mask(file: Readable, *, name: str = "") -> Pillow.Image:
    """The mask as "L" with 0 and 255 only, upright. Raises ImageError.

    An alpha channel that varies is the mask (opaque is edited); otherwise the brightest channel is.
    Two values, such as 0 and 1, are black and white. A few grey pixels are taken for an antialiased
    edge and cut at the middle; more are refused.
    """
    with opened(file, name) as (picture, name):
        return binary_mask(picture, name=name)


@contextmanager
def opened(file: Readable, name: str) -> Iterator[tuple[Pillow.Image, str]]:
    """The first frame, fully read and turned upright; any decoder's error becomes an ImageError."""
    name = name or _name_of(file)
    data = _bytes_of(file, name)
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
    except Pillow.DecompressionBombError:
        raise ImageError(_too_large(name, _("too many pixels"))) from None
    except UnidentifiedImageError:
        raise ImageError(_unknown(name, data)) from None
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise ImageError(
            _("%(name)s is damaged (%(error)s). Export it again.") % {"name": name, "error": error}
        ) from None
    with picture:
        _check_header(picture, name)
        try:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
        except Pillow.DecompressionBombError:
            raise ImageError(_too_large(name, _("too many pixels"))) from None
        except (OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError) as error:
            raise ImageError(
                _("%(name)s is damaged or cut off (%(error)s). Copy or export it again.")
                % {"name": name, "error": error}
            ) from None
        yield upright, name


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


def _too_large(name: str, size: str) -> str:
    return _("%(name)s has %(size)s, more than %(most)s million. Scale it down.") % {
        "name": name,
        "size": size,
        "most": MAX_PIXELS // 10**6,
    }


def _check_header(picture: Pillow.Image, name: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            _too_large(
                name, _("%(width)s × %(height)s pixels") % {"width": width, "height": height}
            )
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            _(
                "%(name)s has only %(width)s × %(height)s pixels. Each side needs at least "
                "%(min_side)s."
            )
            % {"name": name, "width": width, "height": height, "min_side": MIN_SIDE}
        )
    # MPO is a photograph with previews or a gain map behind it: its first picture is what counts.
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise ImageError(
            _(
                "%(name)s is animated or has several pages (%(frames)s). Save the one wanted "
                "as PNG or JPEG."
            )
            % {"name": name, "frames": frames}
        )


def _unknown(name: str, data: bytes) -> str:
    head = data[:512].lstrip().lower()
    kind = ""
    if data[4:8] == b"ftyp" and data[8:12] in {b"heic", b"heix", b"hevc", b"mif1", b"msf1"}:
        kind = _("a HEIC photograph")
    elif b"<svg" in head:
        kind = _("an SVG drawing")
    elif head.startswith(b"%pdf"):
        kind = _("a PDF document")
    elif head.startswith(b"8bps"):
        kind = _("a Photoshop file")
    if kind:
        return _("%(name)s is %(kind)s, which is not read here. Save it as PNG or JPEG.") % {
            "name": name,
            "kind": kind,
        }
    return _(
        "%(name)s is not a picture, or damaged at its start. PNG, JPEG, WebP, TIFF, BMP, GIF and "
        "AVIF are read here."
    ) % {"name": name}


def _to_rgb(picture: Pillow.Image, name: str) -> Pillow.Image:
    if picture.mode in {"I;16", "I;16B", "I;16L", "I;16N", "I"}:
        return _eight_bits(picture, name).convert("RGB")
    if picture.mode == "F":
        raise ImageError(
            _(
                "%(name)s holds floating-point values whose white is unknown. Save it with 8 "
                "or 16 bits."
            )
            % {"name": name}
        )
    if has_alpha(picture):
        layer = _in_srgb(picture.convert("RGBA"), picture.info.get("icc_profile"))
        white = Pillow.new("RGBA", layer.size, "white")
        return Pillow.alpha_composite(white, layer).convert("RGB")
    if picture.mode in {"RGB", "CMYK", "L"}:
        return _in_srgb(picture, picture.info.get("icc_profile")).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Pillow.Image, name: str) -> Pillow.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            _("%(name)s holds more than 16 bits a channel. Save it with 8 or 16.") % {"name": name}
        )
    return Pillow.fromarray(((values + 128) // 257).astype(np.uint8))


def has_alpha(picture: Pillow.Image) -> bool:
    return picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info


def _in_srgb(picture: Pillow.Image, profile: bytes | None) -> Pillow.Image:
    """Colours as the profile means them; a profile that is broken or foreign is ignored."""
    if not profile:
        return picture
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        converted = ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode=mode,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    return converted or picture


def binary_mask(picture: Pillow.Image, *, name: str) -> Pillow.Image:
    """Any picture of a mask as "L" with 0 and 255 only; the rules are those of `decode_mask`."""
    grey = _mask_channel(picture, name)
    values = np.asarray(grey)
    present = np.unique(values)
    if len(present) == 2 and present[0] == 0:
        return Pillow.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))
    share = float(np.mean((values > NEAR) & (values < 255 - NEAR)))
    if share > MAX_GREY_SHARE:
        raise ImageError(
            _(
                "%(name)s is not black and white: %(share)s of its pixels are grey. Save the "
                "mask with white where the picture is to be edited and black elsewhere."
            )
            % {"name": name, "share": f"{share:.0%}"}
        )
    return Pillow.fromarray(np.where(values >= 128, 255, 0).astype(np.uint8))


def _mask_channel(picture: Pillow.Image, name: str) -> Pillow.Image:
    if picture.mode in {"I;16", "I;16B", "I;16L", "I;16N", "I"}:
        # Written as 16 bits, masks hold 0 and 1, 255 or 65535.
        values = np.asarray(picture).astype(np.int64)
        if values.min() == 0 and len(np.unique(values)) == 2:
            return Pillow.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))
        return _eight_bits(picture, name)
    if picture.mode == "F":
        raise ImageError(
            _("%(name)s holds floating-point values. Save the mask as 8-bit PNG.") % {"name": name}
        )
    if picture.mode == "1":
        return picture.convert("L")
    if has_alpha(picture):
        alpha = picture.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] != alpha.getextrema()[1]:
            return alpha
    if picture.mode in {"L", "LA", "La"}:
        return picture.convert("LA").getchannel("L")
    red, green, blue = picture.convert("RGB").split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


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
    try:
        with default_storage.open(f"images/{image.storage_key}") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise ImageError(
            _(
                "The file images/%(storage_key)s of a picture is gone from the store. "
                "Restore it from a backup or import the picture again."
            )
            % {"storage_key": image.storage_key}
        ) from None


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
            return bytes(file.read())
    picture = open_image(image)
    picture.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    data = encode(picture)
    _write(name, data)
    return data


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
    finally:
        draft.unlink(missing_ok=True)


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
