"""Sources from a folder, a JSONL file or any iterable, as the API takes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import OneLoopError

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
MASKS = ("_mask", "-mask", ".mask")
MOST, MOST_BYTES = 100, 40 * 2**20  # a call; base64 makes a third more of it

Picture = str | Path | bytes


@dataclass(frozen=True, kw_only=True)
class NewSource:
    """Pictures are given as paths or as the bytes of a file."""

    image: Picture | None = None
    mask: Picture | None = None
    prompt: str = ""
    task: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    external_id: str = ""
    licence: str = ""
    attribution: str = ""
    width: int | None = None
    height: int | None = None


What = str | Path | Iterable[NewSource | Mapping[str, Any]]


def sources(what: What) -> Iterator[NewSource]:
    if not isinstance(what, str | Path):
        for one in what:
            yield one if isinstance(one, NewSource) else NewSource(**one)
    elif (path := Path(what).expanduser()).is_dir():
        yield from _folder(path)
    elif path.suffix == ".jsonl":
        yield from _lines(path)
    else:
        raise OneLoopError(f"{path} is neither a folder of pictures nor a .jsonl file.")


def _folder(path: Path) -> Iterator[NewSource]:
    """`cat.jpg` with `cat_mask.png` and, where it is there, `cat.txt` for the prompt."""
    found = [
        file
        for file in sorted(path.iterdir())
        if file.suffix.lower() in PICTURES and not file.stem.lower().endswith(MASKS)
    ]
    if not found:
        raise OneLoopError(f"There are no pictures in {path}.")
    for file in found:
        words = file.with_suffix(".txt")
        yield NewSource(
            image=file,
            mask=_mask_of(file),
            prompt=words.read_text(encoding="utf-8").strip() if words.is_file() else "",
            external_id=file.name,
        )


def _mask_of(file: Path) -> Path | None:
    names = {file.stem + ending for ending in MASKS}
    beside = [one for one in file.parent.iterdir() if one.stem in names]
    beside += [one for one in file.parent.glob("masks/*") if one.stem in {file.stem, *names}]
    return next((one for one in sorted(beside) if one.suffix.lower() in PICTURES), None)


def _lines(path: Path) -> Iterator[NewSource]:
    """One object a line, with paths relative to the file."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                said = json.loads(line)
                pictures = {
                    name: path.parent / said[name] for name in ("image", "mask") if name in said
                }
                yield NewSource(**said | pictures)
            except (ValueError, TypeError) as error:
                raise OneLoopError(f"Line {number} of {path} is no source: {error}") from None


def batches(found: Iterable[NewSource], at_once: int) -> Iterator[list[dict[str, Any]]]:
    """Bodies of at most so many rows and about so many bytes."""
    rows: list[dict[str, Any]] = []
    size = 0
    for row, weight in map(_encoded, found):
        if rows and (len(rows) == min(at_once, MOST) or size + weight > MOST_BYTES):
            yield rows
            rows, size = [], 0
        rows.append(row)
        size += weight
    if rows:
        yield rows


def _encoded(one: NewSource) -> tuple[dict[str, Any], int]:
    row: dict[str, Any] = {
        name: value
        for name in ("prompt", "task", "external_id", "licence", "attribution", "width", "height")
        if (value := getattr(one, name)) not in (None, "")
    }
    if one.tags:
        row["tags"] = dict(one.tags)
    weight = 0
    for name in ("image", "mask"):
        picture = getattr(one, name)
        if picture is not None:
            data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
            row[name] = base64.b64encode(data).decode()
            weight += len(row[name])
    return row, weight
