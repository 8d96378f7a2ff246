"""What is fuzzed: real files of every kind, and what takes them in."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Pillow
from PIL import ImageCms, ImageFilter
from safetensors.numpy import save_file

from annotation.dataset_files import read_card
from annotation.errors import DatasetError
from generation import images, policies, readers
from generation.areas import Area
from generation.decoding import plain
from generation.images import ImageError
from generation.policies import COMPONENTS, WITH_WEIGHTS, PolicyError
from generation.readers import ReadError, Refusal, Row
from tests.fuzz.mutation import mutate

Case = Callable[[], Any]


@dataclass
class Kind:
    """Cases from a random generator. `raises` is what may come of one; `told` finds in what comes
    back further refusals, which must be sentences, too."""

    cases: Callable[[random.Random, Path], Case]
    raises: type[Exception]
    share: float
    told: Callable[[Any], list[str]] = field(default=lambda found: [])


# Pictures ---------------------------------------------------------------------------------------


def picture(seed: int = 1, size: tuple[int, int] = (48, 40)) -> Pillow.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Pillow.fromarray(noise).filter(ImageFilter.GaussianBlur(3))


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    rgb = picture()
    alpha = rgb.copy()
    alpha.putalpha(Pillow.linear_gradient("L").resize(rgb.size))
    deep = Pillow.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 15.0)})
    frames = [picture(seed) for seed in range(3)]
    return {
        "png": saved(rgb, "PNG"),
        "png_alpha": saved(alpha, "PNG", exif=exif, icc_profile=profile),
        "png_palette": saved(rgb.convert("P"), "PNG", transparency=3),
        "png_grey_alpha": saved(alpha.convert("LA"), "PNG"),
        "png_16": saved(deep, "PNG"),
        "png_1": saved(rgb.convert("1"), "PNG"),
        "jpeg": saved(rgb, "JPEG", exif=exif, icc_profile=profile),
        "jpeg_progressive": saved(rgb, "JPEG", progressive=True, quality=60, restart_marker_rows=1),
        "jpeg_cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "jpeg_grey": saved(rgb.convert("L"), "JPEG", comment=b"a note"),
        "mpo": saved(frames[0], "MPO", save_all=True, append_images=frames[1:]),
        "webp": saved(rgb, "WEBP", exif=exif, icc_profile=profile),
        "webp_lossless": saved(alpha, "WEBP", lossless=True),
        "webp_moving": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "tiff": saved(rgb, "TIFF", exif=exif),
        "tiff_lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff_deflate": saved(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff_jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff_fax": saved(rgb.convert("1"), "TIFF", compression="group4"),
        "bmp": saved(rgb, "BMP"),
        "bmp_palette": saved(rgb.convert("P"), "BMP"),
        "gif": saved(rgb, "GIF"),
        "gif_moving": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "avif": saved(rgb, "AVIF", exif=exif, icc_profile=profile),
        "avif_alpha": saved(alpha, "AVIF"),
        "ico": saved(rgb, "ICO"),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    }


def masks() -> dict[str, bytes]:
    disc = Pillow.radial_gradient("L").resize((48, 40)).point([255 * (n < 99) for n in range(256)])
    flat = disc.convert("RGBA")
    flat.putalpha(disc)
    deep = Pillow.fromarray(np.asarray(disc).astype(np.uint16) * 257)
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
    found = {kind.lower(): saved(disc, kind) for kind in kinds}
    found |= {"png_alpha": saved(flat, "PNG"), "png_1": saved(disc.convert("1"), "PNG")}
    return found | {"png_16": saved(deep, "PNG"), "webp_alpha": saved(flat, "WEBP", lossless=True)}


def of_files(
    files: dict[str, bytes], take: Callable[[bytes, str], Any]
) -> Callable[[random.Random, Path], Case]:
    """A mutation of one of the files."""
    names, contents = list(files), list(files.values())

    def case(rng: random.Random, _place: Path) -> Case:
        name = rng.choice(names)
        data = mutate(files[name], rng, contents)
        return lambda: take(data, f"spoilt.{name}")

    return case


def take_mask(data: bytes, name: str) -> Pillow.Image:
    decode = images.decode_alpha if len(data) % 3 == 0 else images.decode_mask
    mask = decode(data, name=name)
    assert mask.mode == "L"
    assert set(np.unique(np.asarray(mask))) <= {0, 255}
    return mask


def take_picture(data: bytes, name: str) -> Pillow.Image:
    found = images.decode(data, name=name)
    assert found.mode == "RGB"
    assert found.info == {}
    assert plain.check(images.encode(found)) == ("RGB", found.size)
    return found


def take_plain(data: bytes, name: str) -> None:
    """What passes as our own is read by others as the same picture."""
    mode, size = plain.check(data)
    with Pillow.open(io.BytesIO(data), formats=["PNG"]) as found:
        found.load()
        assert (found.mode, found.size, found.info) == (mode, size, {})


# Masks in numbers -------------------------------------------------------------------------------


def numbers(rng: random.Random, _place: Path) -> Case:
    value: Any = rng.choice(
        [
            {"size": [40, 48], "counts": [100, 20, 1800]},
            {"size": [40, 48], "counts": "PVT1d0b1O1N2O"},
            {"runs": [5, 10, 40, 3], "size": [40, 48]},
            [[1, 1, 30, 2, 20, 30], [3, 3, 9, 9, 3, 9]],
            [[1, 1], [1, 30], [30, 30]],
            [4, 4, 20, 10],
            {"mask": [[1, 9]], "label": ["cat"]},
        ]
    )
    value = spoil(value, rng)
    size = rng.choice([(48, 40), (1, 1), (3000, 8)])
    return lambda: Area(value).draw(size, name="the mask")


def spoil(value: Any, rng: random.Random) -> Any:
    """Somewhere in a structure, something else."""
    odd: list[Any] = [
        None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x", "\0", [], {},
        [[]], [[[1]]], 2**31, -(2**63), "9" * 5000, b"\xff", [1] * 9999, [[1, 2]] * 3000, 0.5,
    ]  # fmt: skip
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = {**value, key: spoil(value[key], rng)}
        if rng.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], spoil(value[at], rng), *value[at + rng.randrange(2) :]]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return value * rng.choice((-1, 10, 1000, 1e6)) + rng.choice((0, 1, 0.5))
    if isinstance(value, str) and value and rng.random() < 0.7:
        return mutate(value.encode(), rng, [b"PVT1d0b1"]).decode("latin-1")
    return rng.choice(odd)


# Archives and tables ----------------------------------------------------------------------------


def tars() -> dict[str, bytes]:
    mask = saved(picture(2).convert("L").point(lambda one: 255 * (one > 128)), "PNG")
    members = {
        "cat.jpg": saved(picture(), "JPEG"),
        "cat.mask.png": mask,
        "cat.txt": b"a hat",
        "cat.json": json.dumps({"tags": {"a": 1}, "mask": [1, 1, 9, 9]}).encode(),
        f"{'deep/' * 40}dog.png": saved(picture(3), "PNG"),
        "ü.segmentation": b'{"mask": [[1, 5, 9, 2]], "label": ["hat"]}',
    }
    found = {}
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name[-90:] if form == tarfile.USTAR_FORMAT else name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        found[f"{form}.tar"] = file.getvalue()
        found[f"{form}.tar.gz"] = gzip.compress(file.getvalue(), 1, mtime=0)
    return found


def tables() -> dict[str, bytes]:
    rows = [{"image": "cat.png", "prompt": f"a hat {n}", "tags": {"a": n}} for n in range(9)]
    return {
        "rows.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        "rows.csv": b"image,mask,prompt\n" + b'cat.png,"[1, 2, 3, 4]",a hat\n' * 9,
        "prompts.txt": "a hat\nеще\n".encode() * 9,
    }


def parquets() -> dict[str, bytes]:
    rows = [{"image": {"bytes": bytes(99), "path": "a.png"}, "prompt": "hat"} for _ in range(99)]
    found = {}
    for compression in ("none", "snappy", "zstd"):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), file, compression=compression)
        found[f"{compression}.parquet"] = file.getvalue()
    return found


def of_table(files: dict[str, bytes]) -> Callable[[random.Random, Path], Case]:
    def case(rng: random.Random, place: Path) -> Case:
        name = rng.choice(list(files))
        path = place / name
        path.write_bytes(mutate(files[name], rng, list(files.values())))
        return lambda: [picture_in(row) for row in readers.read_rows(path)]

    return case


def picture_in(row: Row | Refusal) -> Row | Refusal:
    """As an import goes on from a row."""
    try:
        if isinstance(row, Row) and isinstance(row.image, bytes):
            images.decode(row.image, name=row.image_name)
        if isinstance(row, Row) and isinstance(row.mask, bytes):
            images.decode_mask(row.mask, name=row.mask_name)
        if isinstance(row, Row) and isinstance(row.mask, Area):
            row.mask.draw((48, 40), name=row.mask_name)
    except ImageError as error:
        return Refusal(row.name, str(error))
    return row


def refusals(found: list[Any]) -> list[str]:
    return [one.reason for one in found if isinstance(one, Refusal)]


# Checkpoints ------------------------------------------------------------------------------------


def make_checkpoint(place: Path) -> Path:
    """A pipeline's folder with all that is looked at, small."""
    folder = place / "checkpoint"
    if folder.exists():
        return folder
    for part in COMPONENTS:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text('{"in_channels": 8, "out_channels": 4}')
        if part in WITH_WEIGHTS:
            weights: dict[str, Any] = {
                "a.weight": np.ones((2, 3), np.float32),
                "b": np.ones(4, np.float16),
            }
            save_file(weights, folder / part / "model.safetensors", {"format": "pt"})
    (folder / "vae/config.json").write_text('{"block_out_channels": [8, 16, 32, 64]}')
    index = {"metadata": {"total_size": 32}, "weight_map": {"a.weight": "model.safetensors"}}
    (folder / "transformer/model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model_index.json").write_text('{"_class_name": "FluxFillPipeline"}')
    card = {"name": "a", "figures": {"a": [1.5]}, "metrics": {}, "parent": None, "config": {}}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


CHECKED = (
    "card.json",
    "model_index.json",
    "vae/config.json",
    "transformer/config.json",
    "transformer/model.safetensors.index.json",
    "transformer/model.safetensors",
    "vae/model.safetensors",
)


def checkpoints(rng: random.Random, place: Path) -> Case:
    folder = make_checkpoint(place)
    name = rng.choice(CHECKED)
    path = folder / name
    good = path.read_bytes()
    odd = rng.random()
    if name.endswith(".json") and odd < 0.4:
        text = json.dumps(spoil(json.loads(good), rng), default=repr)
        bad: bytes | None = text.encode("utf-8", "surrogatepass")
    elif odd < 0.5:
        bad = None
    else:
        bad = mutate(good, rng, [good])

    def case() -> Any:
        path.unlink()
        if bad is None and odd < 0.43:
            path.symlink_to(path)  # a link that leads to itself
        elif bad is None and odd < 0.46:
            path.mkdir()
        elif bad is not None:
            path.write_bytes(bad)
        try:
            card = policies.inspect(str(folder))
            json.dumps(card, allow_nan=False).encode()
            assert 1 <= card["size_multiple"] <= 256
            return card
        finally:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(True)
            path.write_bytes(good)

    return case


# Datasets ---------------------------------------------------------------------------------------

CARD = {
    "schema": "oneloop-dataset",
    "schema_version": 3,
    "content_hash": "ab" * 32,
    "counts": {"sets": 1, "judgments": 2},
    "taxonomy": {"tasks": {}, "dimensions": {}},
    "images": {"form": "files", "max_side": None},
}


def dataset_cards(rng: random.Random, place: Path) -> Case:
    text = json.dumps(spoil(CARD, rng) if rng.random() < 0.7 else CARD, default=repr)
    data = text.encode("utf-8", "surrogatepass")
    (place / "card.json").write_bytes(mutate(data, rng, [data]) if rng.random() < 0.4 else data)
    return lambda: read_card(place)


def kinds() -> Iterator[tuple[str, Kind]]:
    shown = pictures()
    yield "pictures", Kind(of_files(shown, take_picture), ImageError, 0.33)
    yield "masks as pictures", Kind(of_files(masks(), take_mask), ImageError, 0.14)
    own = {"own": images.encode(picture()), "mask": images.encode(picture().convert("L"))}
    yield "pictures of datasets", Kind(of_files(own, take_plain), plain.NotPlain, 0.08)
    yield "masks in numbers", Kind(numbers, ImageError, 0.14)
    yield "tars", Kind(of_table(tars()), ReadError, 0.12, refusals)
    yield "tables", Kind(of_table(tables()), ReadError, 0.04, refusals)
    yield "Parquet", Kind(of_table(parquets()), ReadError, 0.02, refusals)
    yield "cards of datasets", Kind(dataset_cards, DatasetError, 0.03)
    yield "checkpoints", Kind(checkpoints, PolicyError, 0.1)
