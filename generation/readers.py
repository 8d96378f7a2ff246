"""Rows of sources from what people have: folder, JSON lines, CSV, Parquet, Hugging Face dataset.

A reader yields one row per source, in the file's order, or a refusal naming the row. Pictures stay
undecoded: whoever takes the rows judges their content.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generation.images import Readable

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
# Named like pictures but not readable: listed, so that the report says why they did not land.
OTHER_PICTURES = {".heic", ".heif", ".svg"}
MASK_ENDINGS = ("_mask", "-mask", ".mask")
IMAGE_COLUMNS = ("image", "file_name", "source")
PROMPT_COLUMNS = ("prompt", "text", "caption")


class ReadError(ValueError):
    """The whole path cannot be read; the message says what was expected there."""


@dataclass(frozen=True)
class Row:
    name: str  # "line 3", "cat.jpg"
    image: Readable | None
    image_name: str
    mask: Readable | None
    mask_name: str
    prompt: str = ""
    tags: dict[str, Any] = field(default_factory=dict)
    external_id: str = ""
    licence: str = ""
    attribution: str = ""
    size: tuple[int, int] | None = None  # wished width and height, where there is no picture


@dataclass(frozen=True)
class Refusal:
    name: str
    reason: str


def read_rows(path: Path) -> Iterator[Row | Refusal]:
    """Rows of whatever lies at `path`. Raises ReadError where nothing there is understood."""
    if path.is_dir():
        return _read_directory(path)
    if path.suffix.lower() == ".txt" and path.exists():
        return _table(_prompts(path), path.parent)
    return _table(read_records(path), path.parent)


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a table as they are. Raises ReadError where it is none that is read here."""
    if not path.exists():
        raise ReadError(f"{path} does not exist. Check the path.")
    reader = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None:
        raise ReadError(
            f"{path.name} is not read here. Give a folder of pictures, a .jsonl, .csv or .parquet "
            "file, a .txt file of prompts, or the directory of a saved dataset."
        )
    return reader(path)


def picture_of(record: dict[str, Any], base: Path) -> tuple[Readable | None, str]:
    """The picture a row names and its file's name. Raises ReadError where it is not there."""
    value = _first(record, IMAGE_COLUMNS[:2])
    return _picture(value, base), _picture_name(value, "")


def _read_directory(path: Path) -> Iterator[Row | Refusal]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _table(_saved_dataset(path), path)
    for name, reader in (("metadata.jsonl", _json_lines), ("metadata.csv", _csv)):
        if (path / name).exists():
            return _table(reader(path / name), path)
    parquet = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if parquet:
        return _table((item for file in parquet for item in _parquet(file)), path)
    return _folder(path)


# Folders ----------------------------------------------------------------------------------------


def _folder(path: Path) -> Iterator[Row | Refusal]:
    home = path / "images" if (path / "images").is_dir() else path
    files = [
        file
        for file in sorted(home.iterdir())
        if file.suffix.lower() in PICTURES | OTHER_PICTURES
        and not file.stem.lower().endswith(MASK_ENDINGS)
    ]
    if not files:
        raise ReadError(
            f"There are no pictures in {home}. Put pictures there, each with its mask as "
            "<name>_mask.png or masks/<name>.png."
        )
    for file in files:
        mask = _mask_beside(path, home, file.stem)
        prompt = _prompt_beside(path, home, file.stem)
        yield Row(
            name=file.name,
            image=file,
            image_name=file.name,
            mask=mask,
            mask_name=mask.name if mask else f"{file.stem}_mask.png",
            prompt=prompt,
            external_id=file.name,
        )


def _mask_beside(path: Path, home: Path, stem: str) -> Path | None:
    places = [home / f"{stem}{ending}" for ending in MASK_ENDINGS]
    for folder in (path / "masks", path / "mask", home / "masks"):
        places += [folder / stem, *(folder / f"{stem}{ending}" for ending in MASK_ENDINGS)]
    for place in places:
        # Written out: with_suffix would take the ".v2" of a name for its suffix.
        for suffix in sorted(PICTURES):
            for name in (f"{place.name}{suffix}", f"{place.name}{suffix.upper()}"):
                if (place.parent / name).is_file():
                    return place.parent / name
    return None


def _prompt_beside(path: Path, home: Path, stem: str) -> str:
    for folder in (home, path / "prompts"):
        file = folder / f"{stem}.txt"
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").strip()
    return ""


# Tables -----------------------------------------------------------------------------------------

# The name of a row and its columns, or what is wrong with it.
Record = tuple[str, dict[str, Any] | str]


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                yield f"line {number}", f"is not JSON ({error})"
                continue
            good = isinstance(record, dict)
            yield f"line {number}", record if good else "is not a JSON object"


def _prompts(path: Path) -> Iterator[Record]:
    """One prompt a line, for tasks that start from the prompt alone."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", {"prompt": line}


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            yield f"line {reader.line_num}", record


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", record
    except pyarrow.ArrowInvalid as error:
        raise ReadError(f"{path.name} is not a readable Parquet file: {error}") from None


def _saved_dataset(path: Path) -> Iterator[Record]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReadError(f"{path} is not a readable saved dataset: {error}") from None
    parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]
    for split, part in parts:
        for name, feature in part.features.items():
            if isinstance(feature, datasets.Image):
                # Undecoded: the pictures are judged here, by the same rules as all others.
                part = part.cast_column(name, datasets.Image(decode=False))
        for number, record in enumerate(part, 1):
            yield f"{split} row {number}".strip(), record


def _table(records: Iterator[Record], base: Path) -> Iterator[Row | Refusal]:
    seen = False
    for name, record in records:
        seen = True
        if isinstance(record, str):
            yield Refusal(name, f"This {record}.")
            continue
        try:
            yield _row(name, record, base)
        except ReadError as error:
            yield Refusal(name, str(error))
    if not seen:
        raise ReadError(f"There are no rows in {base}.")


def _row(name: str, record: dict[str, Any], base: Path) -> Row:
    image_value = _first(record, IMAGE_COLUMNS)
    return Row(
        name=name,
        image=_picture(image_value, base),
        image_name=_picture_name(image_value, f"the image of {name}"),
        mask=_picture(record.get("mask"), base),
        mask_name=_picture_name(record.get("mask"), f"the mask of {name}"),
        prompt=str(_first(record, PROMPT_COLUMNS) or "").strip(),
        tags=_tags(record.get("tags")),
        external_id=str(_first(record, ("external_id", "id")) or ""),
        licence=str(_first(record, ("licence", "license")) or ""),
        attribution=str(record.get("attribution") or ""),
        size=_size(record),
    )


def _size(record: dict[str, Any]) -> tuple[int, int] | None:
    """From the columns width and height, or from size: "1024x768" or one side of a square."""
    sides = [record.get("width"), record.get("height")]
    if sides == [None, None] or sides == ["", ""]:
        size = record.get("size")
        if size in (None, ""):
            return None
        sides = re.split(r"\s*[x×]\s*", str(size).strip())
        sides = sides * 2 if len(sides) == 1 else sides
    try:
        width, height = (int(side) for side in sides if side is not None)
    except ValueError:
        raise ReadError("Its size is not two whole numbers. Write 1024x768.") from None
    return width, height


def _first(record: dict[str, Any], columns: tuple[str, ...]) -> Any:
    for column in columns:
        if record.get(column) not in (None, ""):
            return record[column]
    return None


def _picture(value: Any, base: Path) -> Readable | None:
    if value in (None, "", b""):
        return None
    if isinstance(value, dict):  # how Hugging Face stores pictures
        return _picture(value.get("bytes") or value.get("path"), base)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ReadError(f"The picture is given as {type(value).__name__}. Give a path or bytes.")
    if "://" in value:
        raise ReadError(f"{value} is an address. Download the picture and give its path.")
    path = base / value
    if not path.is_file():
        raise ReadError(f"{value} is not there. Paths are relative to {base}.")
    return path


def _picture_name(value: Any, otherwise: str) -> str:
    if isinstance(value, dict):
        value = value.get("path")
    return Path(value).name if isinstance(value, str) and value else otherwise


def _tags(value: Any) -> dict[str, Any]:
    """An object as it is, a JSON string of one, or words, which become {word: true}."""
    if value in (None, ""):
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [word.strip() for word in value.split(",")]
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return {str(word): True for word in value if word}
    raise ReadError("Its tags are neither an object nor words. Write {} or a comma-separated list.")
