"""What a file's bytes are as a picture or a mask, by fixed rules. Free of Django and of the store.

Choices: transparency is laid over white; 16-bit grey is scaled to 8 bits; an embedded colour
profile and EXIF rotation are applied; several frames are refused, since an edit has one picture and
the first frame is an arbitrary one. A mask is white where the picture is to be edited. A file that
is a picture and something else that programs open or run is refused.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageChops, ImageCms, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
MIN_SIDE = 8
FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"]
DEEP_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I"}
# A mask's pixels this near to black or white are black or white; JPEG's ringing stays inside.
NEAR = 16
# An antialiased edge greys a few per cent of a picture; a soft or painted mask far more.
MAX_GREY_SHARE = 0.05
BAND = 256  # rows worked on together, where that saves copies of the whole picture
# ZIP's end of its directory lies in the last so many bytes; JAR and DOCX are ZIP, too.
ZIP_END = 22 + 65535
PAGES = (b"<script", b"<?php", b"<html", b"<!doctype html", b"<svg")
ARCHIVES = (b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")


def _(text: str) -> str:
    """Marks a sentence for translation, which happens where the reader's language is known."""
    return text


# What may be said of a file. A process that decodes names one of them, never a text of its own.
SENTENCES = {
    "damaged_head": _("%(name)s is damaged (%(error)s). Export it again."),
    "damaged": _("%(name)s is damaged or cut off (%(error)s). Copy or export it again."),
    "too_large": _("%(name)s has %(size)s, more than %(most)s million. Scale it down."),
    "too_many": _("too many pixels"),
    "pixels": _("%(width)s × %(height)s pixels"),
    "too_small": _(
        "%(name)s has only %(width)s × %(height)s pixels. Each side needs at least %(min_side)s."
    ),
    "animated": _(
        "%(name)s is animated or has several pages (%(frames)s). Save the one wanted "
        "as PNG or JPEG."
    ),
    "foreign": _("%(name)s is %(kind)s, which is not read here. Save it as PNG or JPEG."),
    "heic": _("a HEIC photograph"),
    "svg": _("an SVG drawing"),
    "pdf": _("a PDF document"),
    "psd": _("a Photoshop file"),
    "unknown": _(
        "%(name)s is not a picture, or damaged at its start. PNG, JPEG, WebP, TIFF, BMP, GIF and "
        "AVIF are read here."
    ),
    "two_in_one": _(
        "%(name)s is a picture and %(kind)s in one file. Open it in an image program and save it "
        "anew as PNG or JPEG."
    ),
    "archive": _("an archive"),
    "page": _("a web page or script"),
    "float": _(
        "%(name)s holds floating-point values whose white is unknown. Save it with 8 or 16 bits."
    ),
    "float_mask": _("%(name)s holds floating-point values. Save the mask as 8-bit PNG."),
    "deep": _("%(name)s holds more than 16 bits a channel. Save it with 8 or 16."),
    "grey": _(
        "%(name)s is not black and white: %(share)s of its pixels are grey. Save the "
        "mask with white where the picture is to be edited and black elsewhere."
    ),
    "no_alpha": _(
        "%(name)s has no alpha channel. Save it as PNG with the area to edit transparent."
    ),
    "opaque": _("Nothing in %(name)s is transparent. Erase the area to edit."),
    "its_alpha": _("The alpha channel of %(name)s"),
    "memory": _("%(name)s takes too much memory to read. Scale it down, or save it as plain PNG."),
    "time": _("%(name)s takes too long to read. Scale it down, or save it as plain PNG."),
    "killed": _(
        "%(name)s could not be read: the program that reads pictures was stopped by it. Open it in "
        "an image program and save it anew as PNG or JPEG."
    ),
    "busy": _("%(name)s was not read: too many pictures are being read. Try again in a minute."),
}


class Refused(Exception):
    """Which sentence, and its values: texts, numbers, or further sentences."""

    def __init__(self, code: str, **values: str | int | Refused) -> None:
        super().__init__(code)
        self.code, self.values = code, values

    def as_json(self) -> list[Any]:
        values = {
            name: value.as_json() if isinstance(value, Refused) else value
            for name, value in self.values.items()
        }
        return [self.code, values]


def read(data: bytes, kind: str) -> Pillow.Image:
    """The first frame, upright: as "RGB", or a "mask" (of the picture's "alpha") as "L" of 0 and
    255. Raises Refused, or MemoryError."""
    picture = _opened(data)
    with picture:
        _check_header(picture)
        try:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
        except Pillow.DecompressionBombError:
            raise _too_large(Refused("too_many")) from None
        except MemoryError:
            raise
        except Exception as error:  # decoders know many, and none may pass
            raise Refused("damaged", error=_said(error)) from None
        if (other := _hidden(data)) is not None:
            raise Refused("two_in_one", kind=other)
    try:
        return {"picture": to_rgb, "mask": binary_mask, "alpha": _alpha_mask}[kind](upright)
    except (Refused, MemoryError):
        raise
    except Exception as error:
        raise Refused("damaged", error=_said(error)) from None


def _opened(data: bytes) -> Pillow.Image:
    try:
        return Pillow.open(io.BytesIO(data), formats=FORMATS)
    except Pillow.DecompressionBombError:
        raise _too_large(Refused("too_many")) from None
    except UnidentifiedImageError:
        raise _unknown(data) from None
    except MemoryError:
        raise
    except Exception as error:
        raise Refused("damaged_head", error=_said(error)) from None


def _said(error: Exception) -> str:
    """The decoder's words in one printable line."""
    words = "".join(one if one.isprintable() else " " for one in str(error))
    return " ".join(words.split())[:200] or type(error).__name__


def _check_header(picture: Pillow.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_large(Refused("pixels", width=width, height=height))
    if min(width, height) < MIN_SIDE:
        raise Refused("too_small", width=width, height=height, min_side=MIN_SIDE)
    try:
        frames = int(getattr(picture, "n_frames", 1))
    except MemoryError:
        raise
    except Exception as error:
        raise Refused("damaged", error=_said(error)) from None
    # MPO is a photograph with previews or a gain map behind it: its first picture is what counts.
    if frames > 1 and picture.format != "MPO":
        raise Refused("animated", frames=frames)


def _too_large(size: Refused) -> Refused:
    return Refused("too_large", size=size, most=MAX_PIXELS // 10**6)


def _unknown(data: bytes) -> Refused:
    head = data[:512].lstrip().lower()
    if data[4:8] == b"ftyp" and data[8:12] in {b"heic", b"heix", b"hevc", b"mif1", b"msf1"}:
        return Refused("foreign", kind=Refused("heic"))
    if b"<svg" in head:
        return Refused("foreign", kind=Refused("svg"))
    if head.startswith(b"%pdf"):
        return Refused("foreign", kind=Refused("pdf"))
    if head.startswith(b"8bps"):
        return Refused("foreign", kind=Refused("psd"))
    return Refused("unknown")


# Two kinds of file in one -----------------------------------------------------------------------


def _hidden(data: bytes) -> Refused | None:
    """What else these bytes are. Only pixels are ever kept; whoever sends such a file means harm,
    or has a broken one."""
    if b"%PDF-" in data[:1024]:
        return Refused("pdf")
    if any(mark in data for mark in ARCHIVES) or _ends_as_zip(data):
        return Refused("archive")
    lower = data.lower()
    return Refused("page") if any(mark in lower for mark in PAGES) else None


def _ends_as_zip(data: bytes) -> bool:
    tail = data[-ZIP_END:]
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if len(tail) - at >= 22:
            (size,) = struct.unpack_from("<I", tail, at + 12)
            directory = len(data) - len(tail) + at - size
            long = tail[max(0, at - 20) : at].startswith(b"PK\x06\x07")
            if long or (directory >= 0 and data[directory : directory + 4] == b"PK\x01\x02"):
                return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


# Colours ----------------------------------------------------------------------------------------


def to_rgb(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode in DEEP_MODES:
        return _eight_bits(picture).convert("RGB")
    if picture.mode == "F":
        raise Refused("float")
    if has_alpha(picture):
        return _on_white(_in_srgb(picture.convert("RGBA"), picture.info.get("icc_profile")))
    if picture.mode in {"RGB", "CMYK", "L"}:
        return _in_srgb(picture, picture.info.get("icc_profile")).convert("RGB")
    return picture.convert("RGB")


def _on_white(layer: Pillow.Image) -> Pillow.Image:
    flat = Pillow.new("RGB", layer.size)
    for top in range(0, layer.height, BAND):
        part = layer.crop((0, top, layer.width, min(top + BAND, layer.height)))
        white = Pillow.new("RGBA", part.size, "white")
        flat.paste(Pillow.alpha_composite(white, part).convert("RGB"), (0, top))
    return flat


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise Refused("deep")
    scaled = values.astype(np.uint32)
    scaled += 128
    scaled //= 257
    return Pillow.fromarray(scaled.astype(np.uint8))


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


# Masks ------------------------------------------------------------------------------------------


def binary_mask(picture: Pillow.Image, name: Refused | None = None) -> Pillow.Image:
    """An alpha channel that varies is the mask (opaque is edited); otherwise the brightest channel
    is. Two values, such as 0 and 1, are black and white. A few grey pixels are taken for an
    antialiased edge and cut at the middle; more are refused."""
    values = np.asarray(_mask_channel(picture))
    present = np.unique(values)
    if len(present) == 2 and present[0] == 0:
        return _black_and_white(values > 0)
    share = float(np.mean((values > NEAR) & (values < 255 - NEAR)))
    if share > MAX_GREY_SHARE:
        named = {} if name is None else {"name": name}
        raise Refused("grey", share=f"{share:.0%}", **named)
    return _black_and_white(values >= 128)


def _black_and_white(flags: Any) -> Pillow.Image:
    return Pillow.fromarray(np.where(flags, np.uint8(255), np.uint8(0)))


def _mask_channel(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode in DEEP_MODES:
        # Written as 16 bits, masks hold 0 and 1, 255 or 65535.
        values = np.asarray(picture)
        if values.min() == 0 and len(np.unique(values)) == 2:
            return _black_and_white(values > 0)
        return _eight_bits(picture)
    if picture.mode == "F":
        raise Refused("float_mask")
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


def _alpha_mask(picture: Pillow.Image) -> Pillow.Image:
    """The mask that a picture carries in its alpha channel: what is transparent is edited."""
    if not has_alpha(picture):
        raise Refused("no_alpha")
    alpha = picture.convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] == 255:
        raise Refused("opaque")
    return binary_mask(ImageChops.invert(alpha), Refused("its_alpha"))
