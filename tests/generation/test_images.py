import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.storage import default_storage
from PIL import Image as Pillow
from PIL import ImageCms, ImageDraw

from generation import images
from generation.images import ImageError, check_mask, decode, decode_mask, fit, working_size
from generation.models import Image
from tests.factories import make_image, make_mask_picture, make_picture


def saved(picture: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def grey(values: Any) -> Pillow.Image:
    return Pillow.fromarray(np.asarray(values))


# Pictures


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_it_reads_the_pixels_of_lossless_formats(kind: str) -> None:
    picture = make_picture(1)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert decode(saved(picture, kind, **options)).tobytes() == picture.tobytes()


def test_it_reads_a_still_gif_and_a_jpeg() -> None:
    picture = Pillow.new("RGB", (40, 20), (200, 30, 30))
    for kind in ("GIF", "JPEG"):
        assert decode(saved(picture, kind)).getpixel((5, 5)) == pytest.approx((200, 30, 30), abs=4)


def test_it_turns_a_photograph_upright_by_its_exif() -> None:
    picture = Pillow.new("RGB", (40, 20), "white")
    picture.paste("black", (0, 0, 10, 20))  # dark on the left
    exif = Pillow.Exif()
    exif[0x0112] = 6  # taken with the camera turned: rotate by 90° to the right
    upright = decode(saved(picture, "JPEG", exif=exif, quality=95))
    assert upright.size == (20, 40)
    assert np.asarray(upright)[:8].mean() < 20
    assert np.asarray(upright)[12:].mean() > 235


def test_it_scales_sixteen_bits_instead_of_clipping_them() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = np.asarray(decode(saved(grey(values))))
    assert decoded[0, 0, 0] == 0
    assert decoded[-1, -1, 0] == 255
    assert np.abs(decoded[..., 0].astype(float) - values / 257).max() <= 0.51


def test_it_converts_cmyk() -> None:
    decoded = decode(saved(Pillow.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = decoded.getpixel((8, 8))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 70


def test_it_reads_colours_through_a_profile_and_without_a_broken_one() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode(saved(Pillow.new("RGB", (16, 16), (180, 60, 20)), icc_profile=profile))
    assert same.getpixel((3, 3)) == pytest.approx((180, 60, 20), abs=2)
    broken = decode(saved(Pillow.new("RGB", (16, 16), (180, 60, 20)), icc_profile=b"no profile"))
    assert broken.getpixel((3, 3)) == (180, 60, 20)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_it_lays_transparency_over_white(mode: str) -> None:
    picture = Pillow.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 8, 16))
    decoded = decode(saved(picture.convert(mode)))
    assert decoded.getpixel((2, 8)) == (0, 0, 0)
    assert decoded.getpixel((12, 8)) == (255, 255, 255)


def test_it_drops_metadata(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x010F] = "Camera of somebody"
    data = saved(make_picture(2), "JPEG", exif=exif, comment=b"at home")
    kept = images.encode(decode(data))
    chunks, at = [], 8
    while at < len(kept):
        (length,) = struct.unpack(">I", kept[at : at + 4])
        chunks.append(kept[at + 4 : at + 8])
        at += length + 12
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}


# Refusals


def animated() -> bytes:
    frames = [Pillow.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def bomb() -> bytes:
    """A PNG of a few bytes that claims 30,000 × 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + crc
    return data


CORRUPT = saved(make_picture(3))
REFUSED = {
    "empty": (b"", "is empty"),
    "cut.png": (CORRUPT[: len(CORRUPT) // 2], "cut off"),
    "cut.jpg": (saved(make_picture(3), "JPEG")[:700], "cut off"),
    "flipped.png": (CORRUPT[:60] + bytes(40) + CORRUPT[100:], "damaged"),
    "words.png": (b"These are words, not pixels.", "is not a picture"),
    "huge.png": (bomb(), "too many pixels, more than 64 million"),
    "moving.gif": (animated(), r"animated or has several pages \(2\)"),
    "phone.jpg": (b"\x00\x00\x00\x18ftypheic" + bytes(40), "HEIC photograph"),
    "logo.png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
    "paper.jpg": (b"%PDF-1.7 ...", "PDF document"),
    "tiny.png": (saved(Pillow.new("RGB", (4, 40))), "only 4 × 40 pixels"),
    "float.tif": (saved(Pillow.new("F", (16, 16), 0.5), "TIFF"), "floating-point"),
    "deep.tif": (saved(Pillow.new("I", (16, 16), 70_000), "TIFF"), "more than 16 bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_what_it_cannot_read_and_names_it(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, name=name)
    assert str(caught.value).startswith(name)


def test_it_names_the_size_of_a_picture_that_is_a_little_too_large() -> None:
    with pytest.raises(ImageError, match="wide.png has 9000 × 8000 pixels, more than 64 million"):
        decode(saved(Pillow.new("1", (9000, 8000))), name="wide.png")


def test_it_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="gone.png cannot be read: No such file"):
        decode(tmp_path / "gone.png")


# Masks


def blob(*, smooth: float = 0) -> Pillow.Image:
    """A disc; drawn large and scaled down its edge is antialiased."""
    large = Pillow.new("L", (512, 512), 0)
    ImageDraw.Draw(large).ellipse((128, 128, 384, 384), fill=255)
    return large.resize(
        (64, 64), Pillow.Resampling.BOX if not smooth else Pillow.Resampling.NEAREST
    )


def test_it_cuts_an_antialiased_edge_at_the_middle() -> None:
    mask = blob()
    assert len(np.unique(np.asarray(mask))) > 2
    decoded = np.asarray(decode_mask(saved(mask)))
    assert set(np.unique(decoded)) == {0, 255}
    assert np.array_equal(decoded == 255, np.asarray(mask) >= 128)


def test_it_reads_a_mask_saved_as_jpeg() -> None:
    decoded = decode_mask(saved(make_mask_picture(), "JPEG", quality=80))
    assert np.asarray(decoded == make_mask_picture()).all()


def test_it_refuses_a_mask_of_greys() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    with pytest.raises(ImageError, match=r"soft.png is not black and white: 8\d% of its pixels"):
        decode_mask(saved(grey(ramp)), name="soft.png")


@pytest.mark.parametrize("value", [1, 76, 255])
def test_it_takes_two_values_for_black_and_white(value: int) -> None:
    values = (np.asarray(make_mask_picture()) > 0) * np.uint8(value)
    assert decode_mask(saved(grey(values.astype(np.uint8)))) == make_mask_picture()


def test_it_reads_a_sixteen_bit_mask() -> None:
    values = (np.asarray(make_mask_picture()) > 0).astype(np.uint16) * 65535
    assert decode_mask(saved(grey(values))) == make_mask_picture()


def test_it_takes_a_varying_alpha_channel_for_the_mask() -> None:
    mask = make_mask_picture()
    strokes = Pillow.new("RGBA", mask.size, (200, 0, 0, 0))
    strokes.putalpha(mask)
    assert decode_mask(saved(strokes)) == mask
    opaque = mask.convert("RGBA")
    assert decode_mask(saved(opaque)) == mask


def test_it_reads_coloured_strokes_on_black() -> None:
    painted = Pillow.new("RGB", (64, 64))
    painted.paste((0, 0, 250), (16, 16, 48, 48))
    assert decode_mask(saved(painted)) == make_mask_picture()
    assert decode_mask(saved(make_mask_picture().convert("1"))) == make_mask_picture()
    assert decode_mask(saved(make_mask_picture().convert("P"))) == make_mask_picture()


def test_it_names_both_sizes_of_a_mask_that_does_not_fit() -> None:
    with pytest.raises(ImageError, match=r"m\.png has 32 × 64 pixels and a\.png 64 × 32.*upright"):
        check_mask(make_mask_picture((32, 64)), (64, 32), mask_name="m.png", image_name="a.png")


def test_it_refuses_a_mask_that_marks_nothing() -> None:
    with pytest.raises(ImageError, match="m.png is empty"):
        check_mask(Pillow.new("L", (64, 64), 0), (64, 64), mask_name="m.png")


# Keeping


@pytest.mark.django_db
def test_it_stores_the_same_picture_once() -> None:
    first = images.store(make_picture(7))
    assert images.store(make_picture(7)) == first
    assert Image.objects.count() == 1
    assert images.open_image(first).tobytes() == make_picture(7).tobytes()
    assert first.storage_key == f"{first.sha256[:2]}/{first.sha256}.png"
    _folders, files = default_storage.listdir(f"images/{first.sha256[:2]}")
    assert files == [f"{first.sha256}.png"]


@pytest.mark.django_db
def test_it_puts_a_lost_file_back_when_the_picture_comes_again() -> None:
    image = make_image(8)
    default_storage.delete(f"images/{image.storage_key}")
    with pytest.raises(ImageError, match="is gone from the store"):
        images.open_image(image)
    make_image(8)
    assert images.open_image(image).size == (64, 64)


@pytest.mark.django_db
def test_it_makes_a_thumbnail_once() -> None:
    image = make_image(9, size=(800, 400))
    small = images.reduced(image, "thumb")
    assert decode(small).size == (256, 128)
    assert images.reduced(image, "thumb") == small
    assert images.reduced(make_image(10), "thumb") == images.read_bytes(make_image(10))


# Working size


@pytest.mark.parametrize(
    ("size", "limit", "multiple", "expected"),
    [
        ((64, 64), 64 * 64, 8, (64, 64)),
        ((1024, 1024), 64 * 64, 8, (64, 64)),
        ((4000, 3000), 1024 * 1024, 16, (1168, 880)),
        ((100, 50), 10**6, 8, (96, 48)),
        ((10, 300), 10**6, 8, (8, 296)),
        ((5, 5), 10**6, 8, (8, 8)),
    ],
)
def test_it_finds_the_size_to_work_on(
    size: tuple[int, int], limit: int, multiple: int, expected: tuple[int, int]
) -> None:
    assert working_size(*size, limit, multiple) == expected


def test_it_never_exceeds_the_area_and_hardly_changes_the_shape() -> None:
    rng = np.random.default_rng(0)
    for width, height in rng.integers(600, 6000, (300, 2)):
        made = working_size(int(width), int(height), 512 * 512, 16)
        assert made[0] * made[1] <= 512 * 512
        assert made[0] % 16 == 0
        assert made[1] % 16 == 0
        assert made[0] / made[1] == pytest.approx(width / height, rel=0.06)


def test_it_keeps_a_thin_mask_when_scaling_down() -> None:
    mask = Pillow.new("L", (640, 640), 0)
    mask.paste(255, (320, 0, 321, 640))
    picture, small = fit(make_picture(1, (640, 640)), mask, 64 * 64, 8)
    assert picture.size == small.size == (64, 64)
    assert np.asarray(small)[:, 32].min() == 255
    assert (np.asarray(small) > 0).sum() == 64
