"""Tables: JSON lines, CSV, Parquet, a saved Hugging Face dataset, a list of prompts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from generation.readers.rows import ReadError, Record


def json_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", f"is not JSON ({error})"
                continue
            good = isinstance(record, dict)
            yield f"line {number}", record if good else "is not a JSON object"


def prompts(path: Path) -> Iterator[Record]:
    """One prompt a line, for tasks that start from the prompt alone."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", {"prompt": line}


def csv_rows(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            yield f"line {reader.line_num}", record


def parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", record
    except pyarrow.ArrowInvalid as error:
        raise ReadError(f"{path.name} is not a readable Parquet file: {error}") from None


def saved_dataset(path: Path) -> Iterator[Record]:
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


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet,
}
