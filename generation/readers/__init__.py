"""Rows of sources from what people have: folders, tables, saved datasets, tars.

A reader yields one row per source, in the file's order, or a refusal naming the row. Pictures stay
undecoded: whoever takes the rows judges their content.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generation.readers import folders, tables, tars
from generation.readers.rows import (
    OTHER_PICTURES,
    PICTURES,
    ReadError,
    Record,
    Refusal,
    Row,
    picture_of,
    rows_of,
)

__all__ = [
    "OTHER_PICTURES",
    "PICTURES",
    "ReadError",
    "Record",
    "Refusal",
    "Row",
    "picture_of",
    "read_records",
    "read_rows",
]

# One table of a folder: ours, Hugging Face's, Flow-Factory's, Edit-R1's.
TABLES = ("metadata.jsonl", "metadata.csv", "train.jsonl", "train_metadata.jsonl")


def read_rows(path: Path) -> Iterator[Row | Refusal]:
    """Rows of whatever lies at `path`. Raises ReadError where nothing there is understood."""
    if path.is_dir():
        return _read_directory(path)
    if path.name.lower().endswith(tars.ENDINGS):
        return tars.read(tars.expand(path))
    if path.suffix.lower() == ".txt" and path.exists():
        return _table(tables.prompts(path), path.parent)
    return _table(read_records(path), path.parent)


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a table as they are. Raises ReadError where it is none that is read here."""
    if not path.exists():
        raise ReadError(f"{path} does not exist. Check the path.")
    reader = tables.READERS.get(path.suffix.lower())
    if reader is None:
        raise ReadError(
            f"{path.name} is not read here. Give a folder of pictures, a .jsonl, .csv or .parquet "
            "file, a .txt file of prompts, a .tar of samples, or the directory of a saved dataset."
        )
    return reader(path)


def _read_directory(path: Path) -> Iterator[Row | Refusal]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _table(tables.saved_dataset(path), path)
    for name in TABLES:
        if (path / name).exists():
            return _table(read_records(path / name), path)
    parquet = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if parquet:
        return _table((item for file in parquet for item in tables.parquet(file)), path)
    if shards := tars.shards_in(path):
        return tars.read(shards)
    return folders.read(path)


def _table(records: Iterator[Record], base: Path) -> Iterator[Row | Refusal]:
    seen = False
    for name, record in records:
        seen = True
        if isinstance(record, str):
            yield Refusal(name, f"This {record}.")
            continue
        try:
            yield from rows_of(name, record, base)
        except ReadError as error:
            yield Refusal(name, str(error))
    if not seen:
        raise ReadError(f"There are no rows in {base}.")
