"""Files that formats are made of: written row by row as rows come, and read the same way."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from annotation.formats.rows import Comparison, Picture, RowError
from generation.images import Readable
from generation.quoting import one_line
from generation.readers import ReadError, Refusal, read_records
from generation.readers.tables import LONGEST_LINE

if TYPE_CHECKING:
    import datasets

PART = {"train": "train", "holdout": "test"}  # our split: the file's name
SPLIT = {part: split for split, part in PART.items()}
# A group of Parquet's rows: pictures are inside, and a reader holds a group in memory.
GROUP, GROUP_BYTES = 100, 32 * 2**20
READ_CHARACTERS = 1 << 16
NOT_ROWS = {"losses.json", "card.json", "dataset_infos.json"}


# Writing ----------------------------------------------------------------------------------------


class Writer(Protocol):
    def add(self, row: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class JsonArray:
    """A JSON list, one row a line; `key` puts it into an object under that name."""

    def __init__(self, path: Path, key: str = "") -> None:
        self._file = path.open("w", encoding="utf-8")
        self._end = "\n]}\n" if key else "\n]\n"
        self._file.write(f"{{{json.dumps(key)}: [\n" if key else "[\n")
        self._first = True

    def add(self, row: dict[str, Any]) -> None:
        self._file.write("" if self._first else ",\n")
        self._file.write(json.dumps(row, ensure_ascii=False, default=_plain))
        self._first = False

    def close(self) -> None:
        self._file.write(self._end)
        self._file.close()


class JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")

    def close(self) -> None:
        self._file.close()


class Csv:
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


class Parquet:
    """Rows with pictures inside, with what `datasets` needs to know of their types."""

    def __init__(self, path: Path, features: datasets.Features) -> None:
        from pyarrow import parquet

        self._schema = features.arrow_schema
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        self._bytes += _bytes_in(row)
        if len(self._waiting) == GROUP or self._bytes > GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        table = pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
        self._writer.write_table(table, row_group_size=GROUP)
        self._waiting.clear()
        self._bytes = 0

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()


def _bytes_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_bytes_in, value.values()))
    if isinstance(value, list):
        return sum(map(_bytes_in, value))
    return len(value) if isinstance(value, bytes) else 0


class Shelf:
    """The files below a folder, each opened when its first row comes."""

    def __init__(self, folder: Path, opener: Callable[[Path], Writer]) -> None:
        self.folder, self._opener = folder, opener
        self._open: dict[str, Writer] = {}
        self.rows: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for writer in self._open.values():
            writer.close()

    def add(self, name: str, row: dict[str, Any]) -> None:
        if name not in self._open:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[name] = self._opener(path)
            self.rows[name] = 0
        self._open[name].add(row)
        self.rows[name] += 1


def keep(picture: Picture, folder: Path, below: str = "images") -> str:
    """The picture beside the rows, as a hard link where it can be; its path from `folder`."""
    name = str(PurePosixPath(below) / picture.sha256[:2] / f"{picture.sha256}.png")
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(str(picture.data), path)
        except (OSError, ValueError):
            if isinstance(picture.data, bytes):
                path.write_bytes(picture.data)
            else:
                shutil.copyfile(str(picture.data), path)
    return name


def inside(picture: Picture) -> dict[str, Any]:
    """The picture as a cell of the `datasets` library."""
    return {"bytes": picture.bytes(), "path": picture.name}


def number_of(text: str) -> int:
    """The same 63-bit number for the same text, where a format numbers what we name."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# Reading ----------------------------------------------------------------------------------------

Row = dict[str, Any]
Parse = Callable[[Row, Path], Comparison | Sequence[Comparison]]


def read(
    path: Path, endings: Sequence[str], parse: Parse, *, key: str = ""
) -> Iterator[Comparison | Refusal]:
    """What `parse` makes of every row of the file, or of the folder's files, that `path` names.

    `parse` is given the row and the folder that its paths start from; `key` is the name under which
    an object holds its rows. Raises ReadError where nothing there is understood.
    """
    for name, row, file in records(path, endings, key=key):
        if isinstance(row, str):
            yield Refusal(name, f"This {row}.")
            continue
        try:
            found = parse(row, file.parent)
        except RowError as error:
            yield Refusal(name, str(error))
            continue
        for one in [found] if isinstance(found, Comparison) else found:
            yield replace(one, name=name, folder=folder_of(file, path))


def folder_of(file: Path, path: Path) -> str:
    """The first folder on the way from `path` to the file, where there is one."""
    return file.relative_to(path).parts[0] if path.is_dir() and file.parent != path else ""


def records(
    path: Path, endings: Sequence[str], *, key: str = ""
) -> Iterator[tuple[str, Row | str, Path]]:
    """A row's name, the row or what is wrong with it, and its file."""
    if not path.exists():
        raise ReadError(f"{path} does not exist. Check the path.")
    files = [path]
    if path.is_dir():
        found = {file for ending in endings for file in path.rglob(f"*{ending}")}
        files = sorted(file for file in found if file.name not in NOT_ROWS)
    elif path.suffix not in endings:
        raise ReadError(f"{path.name} is no {' or '.join(endings)} file, which this format is.")
    seen = False
    for file in files:
        try:
            for name, row in _rows_of(file, key):
                seen = True
                yield name if file == path else f"{file.relative_to(path)} {name}", row, file
        except (UnicodeDecodeError, RecursionError, csv.Error, OSError) as error:
            raise ReadError(f"{file.name} cannot be read ({error}). Write it again.") from None
    if not seen:
        raise ReadError(f"There are no rows in {path}.")


def _rows_of(file: Path, key: str) -> Iterator[tuple[str, Row | str]]:
    if file.suffix == ".json":
        for number, row in enumerate(_array(file, key), 1):
            yield f"row {number}", row if isinstance(row, dict) else "is not a JSON object"
        return
    for name, row in read_records(file):
        if file.suffix == ".csv" and isinstance(row, dict) and None in (*row, *row.values()):
            row = "has more or fewer cells than the head"
        yield name, row


def _array(file: Path, key: str) -> Iterator[Any]:
    """The elements of a JSON list, one at a time: such files are larger than the memory."""
    decoder = json.JSONDecoder()
    with file.open(encoding="utf-8-sig") as opened:
        text = opened.read(READ_CHARACTERS)
        if not text.strip():
            return
        while key and f'"{key}"' not in text:
            more = opened.read(READ_CHARACTERS)
            if not more or len(text) > LONGEST_LINE:
                raise ReadError(f"{file.name} has no “{key}”, under which its rows should stand.")
            text += more
        at = text.find("[", text.index(f'"{key}"') if key else 0)
        if at < 0 or (not key and text[:at].strip()):
            raise ReadError(f"{file.name} is not a JSON list of rows.")
        at += 1
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                row, end = decoder.raw_decode(text, at)
                # A number at the end may go on in what was not read yet.
                whole = end < len(text)
            except ValueError as error:
                whole, problem = False, error
            else:
                problem = ValueError("it ends too early")
            if whole:
                yield row
                text, at = text[end:], 0
                continue
            if len(text) - at > LONGEST_LINE:
                raise ReadError(f"A row of {file.name} is too long to be one.")
            more = opened.read(max(READ_CHARACTERS, len(text)))
            if not more:
                raise ReadError(f"{file.name} is not whole JSON: {problem}.")
            text, at = text[at:] + more, 0


# Cells ------------------------------------------------------------------------------------------


def words(row: Mapping[str, Any], name: str, *, optional: bool = False) -> str:
    """A text cell; RowError where it is missing or something else."""
    value = row.get(name)
    if value is None and optional:
        return ""
    if value is None:
        raise RowError(f"It has no “{name}”.")
    if not isinstance(value, str):
        raise RowError(f"Its “{name}” is {type(value).__name__}, not text.")
    return _sound(value, name)


def _sound(value: str, name: str) -> str:
    """JSON can hold half a character, which no file name and no database takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"Its “{name}” holds half a character. Write it again.") from None
    if "\0" in value:
        raise RowError(f"Its “{name}” holds a null character. Remove it.")
    return value


def number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RowError(f"Its “{name}” is {type(value).__name__}, not a number.")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise RowError(f"Its “{name}” is “{str(value)[:40]}”, not a number.") from None
    if not math.isfinite(found):
        raise RowError(f"Its “{name}” is “{value}”, not a number.")
    return found


def moment(value: Any) -> datetime | None:
    """A time, where the cell holds one; an odd one is no reason to refuse what was said."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def several(row: Mapping[str, Any], name: str, *of: type) -> list[Any]:
    """A list cell whose members are all of these types."""
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise RowError(f"Its “{name}” is not a list.")
    odd = [one for one in value if isinstance(one, bool) or not isinstance(one, of)]
    if odd:
        raise RowError(f"Its “{name}” holds {str(odd[0])[:40]!r}.")
    return value


def picture(value: Any, name: str, base: Path, *, model: str = "", below: str = "") -> Picture:
    """A picture as foreign rows give it: bytes, a cell of `datasets`, or a path from `base`."""
    if isinstance(value, dict):
        if isinstance(data := value.get("bytes"), bytes) and data:
            path = value.get("path")
            return Picture(data, one_line(Path(path).name) if path else f"its {name}", model=model)
        return picture(value.get("path"), name, base, model=model, below=below)
    if value in (None, "", b""):
        raise RowError(f"Its “{name}” is empty.")
    if isinstance(value, bytes):
        return Picture(value, f"its {name}", model=model)
    if not isinstance(value, str):
        raise RowError(f"Its “{name}” is {type(value).__name__}: give a path or the picture.")
    if "://" in _sound(value, name):
        raise RowError(f"{one_line(value)} is an address. Download the picture and give its path.")
    return Picture(_file(value, base, below), one_line(Path(value).name), model=model)


def two_pictures(
    row: Row, names: tuple[str, str], models: tuple[str, str], base: Path
) -> tuple[Picture, Picture]:
    """The pictures of two columns, made by the models that two others name, where they do."""
    one, other = (
        picture(row.get(name), name, base, model=words(row, model, optional=True))
        for name, model in zip(names, models, strict=True)
    )
    return one, other


def _file(value: str, base: Path, below: str) -> Readable:
    inside = os.path.normpath(base.parent)
    for folder in (base / below, base, base / "images", base.parent):
        path = Path(os.path.normpath(folder / value))
        # Nothing outside of the dataset is read because a row says so.
        try:
            if path.is_relative_to(inside) and path.is_file():
                return path
        except OSError:  # a name that is too long
            break
    raise RowError(f"{one_line(value)} is not there. Paths are relative to {base}.")
