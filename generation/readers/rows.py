"""One row of sources, and how it is made of a record: of a table's line, of a tar's sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generation.areas import Area
from generation.images import Readable
from generation.quoting import one_line

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
# Named like pictures but not readable: listed, so that the report says why they did not land.
OTHER_PICTURES = {".heic", ".heif", ".svg"}
IMAGE_COLUMNS = ("image", "file_name", "source", "images")
PROMPT_COLUMNS = ("prompt", "text", "caption")
# What other collections say of a row beside picture, mask and prompt: kept among its tags.
TAG_COLUMNS = ("negative_prompt", "requirement", "label", "aesthetic_score", "url")


class ReadError(ValueError):
    """The whole path cannot be read; the message says what was expected there."""


@dataclass(frozen=True)
class Row:
    name: str  # "line 3", "cat.jpg"
    image: Readable | None
    image_name: str
    mask: Readable | Area | None
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


# The name of a row and its columns, or what is wrong with it.
Record = tuple[str, dict[str, Any] | str]


def rows_of(name: str, record: dict[str, Any], base: Path | None) -> Iterator[Row]:
    """The rows of a record: one, or as many as its segmentation has masks. Raises ReadError.

    Paths are relative to `base`; without one only bytes are taken.
    """
    segments = _segments(record)
    if segments is None:
        yield _row(name, record, base)
        return
    several, ours = len(segments) > 1, _external_id(record)
    rest = {key: value for key, value in record.items() if key != "segmentation"}
    for number, segment in enumerate(segments, 1):
        end = f" mask {number}" if several else ""
        yield _row(f"{name}{end}", rest | segment | {"external_id": ours and ours + end}, base)


def _row(name: str, record: dict[str, Any], base: Path | None) -> Row:
    image_value = _first(record, IMAGE_COLUMNS)
    if isinstance(image_value, list):
        if len(image_value) != 1:
            raise ReadError(f"It names {len(image_value)} pictures; a source has one.")
        image_value = image_value[0]
    mask_value = _first(record, ("mask", "segmentation", "bbox"))
    area = _area(mask_value)
    return Row(
        name=name,
        image=_picture(image_value, base),
        image_name=_picture_name(image_value, f"the image of {name}"),
        mask=area or _picture(mask_value, base),
        mask_name=_picture_name(None if area else mask_value, f"the mask of {name}"),
        prompt=_text(record, PROMPT_COLUMNS).strip(),
        tags=_all_tags(record),
        external_id=_external_id(record),
        licence=_text(record, ("licence", "license")),
        attribution=_text(record, ("attribution",)),
        size=_size(record),
    )


def _external_id(record: dict[str, Any]) -> str:
    return _text(record, ("external_id", "id"))


def picture_of(record: dict[str, Any], base: Path) -> tuple[Readable | None, str]:
    """The picture a row names and its file's name. Raises ReadError where it is not there."""
    value = _first(record, IMAGE_COLUMNS[:2])
    return _picture(value, base), _picture_name(value, "")


# Masks ------------------------------------------------------------------------------------------


def _segments(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """BrushData's segmentation: one mask of runs, and maybe a label, for each object in it."""
    value = _parsed(record.get("segmentation"))
    if not isinstance(value, dict) or not isinstance(value.get("mask"), list):
        return None
    size = _size(record)
    labels = value.get("label")
    if not isinstance(labels, list) or len(labels) != len(value["mask"]):
        labels = [None] * len(value["mask"])
    return [
        {"mask": {"runs": runs, "size": size and [size[1], size[0]]}, "label": label}
        for runs, label in zip(value["mask"], labels, strict=True)
    ] or [{"mask": None}]


def _area(value: Any) -> Area | None:
    """A mask that is given in numbers: run lengths, polygons or boxes."""
    value = _parsed(value)
    numbers = isinstance(value, list) or (
        isinstance(value, dict) and ("counts" in value or "runs" in value)
    )
    return Area(value) if numbers else None


def _parsed(value: Any) -> Any:
    """What a CSV's cell or a tar's member says in JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


# Values -----------------------------------------------------------------------------------------


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
    except (TypeError, ValueError):
        raise ReadError("Its size is not two whole numbers. Write 1024x768.") from None
    return width, height


def _first(record: dict[str, Any], columns: tuple[str, ...]) -> Any:
    for column in columns:
        if record.get(column) not in (None, "", []):
            return record[column]
    return None


def _text(record: dict[str, Any], columns: tuple[str, ...]) -> str:
    text = str(_first(record, columns) or "")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ReadError(f"Its {columns[0]} holds half a character. Write it as UTF-8.") from None
    if "\0" in text:
        raise ReadError(f"Its {columns[0]} holds a null character. Remove it.")
    return text


def _picture(value: Any, base: Path | None) -> Readable | None:
    if value in (None, "", b""):
        return None
    if isinstance(value, dict):  # how Hugging Face stores pictures
        return _picture(value.get("bytes") or value.get("path"), base)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ReadError(f"The picture is given as {type(value).__name__}. Give a path or bytes.")
    if "://" in value:
        raise ReadError(f"{one_line(value)} is an address. Download the picture and give its path.")
    if base is None:
        raise ReadError(f"It names the file {one_line(value)}. Put the picture itself beside it.")
    # Flow-Factory's and Edit-R1's paths begin inside the folder of pictures.
    for path in (base / value, base / "images" / value):
        try:
            if path.is_file():
                return path
        except OSError:  # a name that is too long
            break
    raise ReadError(f"{one_line(value)} is not there. Paths are relative to {base}.")


def _picture_name(value: Any, otherwise: str) -> str:
    if isinstance(value, dict):
        value = value.get("path")
    return one_line(Path(value).name) if isinstance(value, str) and value else otherwise


def _all_tags(record: dict[str, Any]) -> dict[str, Any]:
    tags = _tags(record.get("tags"))
    tags |= {name: record[name] for name in TAG_COLUMNS if record.get(name) not in (None, "")}
    try:
        text = json.dumps(tags, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        raise ReadError("Its tags hold what JSON has not, such as NaN or bytes.") from None
    if "\\u0000" in text:
        raise ReadError("Its tags hold a null character. Remove it.")
    return tags


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
