"""Tables: JSON lines, CSV, Parquet, a saved Hugging Face dataset, a list of prompts."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from generation.decoding import pool
from generation.readers.rows import ReadError, Record

# A line with the pictures of a row in base64; a cell of CSV.
LONGEST_LINE, LONGEST_CELL = 256 * 2**20, 16 * 2**20
# A group of rows with pictures is in memory together; one batch of them comes within a minute.
PARQUET_MEMORY_MB, PATIENCE_SECONDS = 4096, 60.0


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered from 1. Raises ReadError for what is not text."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ReadError(f"Line {number} of {path.name} is too long for a row.")
                yield number, line
    except UnicodeDecodeError as error:
        raise ReadError(f"{path.name} is not UTF-8 after line {number} ({error.reason}).") from None


def json_lines(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
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
    for number, line in _lines(path):
        if line.strip():
            yield f"line {number}", {"prompt": line}


def csv_rows(path: Path) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for record in reader:
                yield f"line {reader.line_num}", record
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReadError(f"{path.name} is not CSV in UTF-8 ({error}). Save it so.") from None


def parquet(path: Path) -> Iterator[Record]:
    """Read by a process that may die: what a file unpacks to is known when it has been unpacked."""
    import pyarrow

    command = [sys.executable, "-m", "generation.decoding.parquet", str(path.resolve())]
    with subprocess.Popen(
        [*command, str(PARQUET_MEMORY_MB)],
        cwd=pool.HOME,
        env=pool.ENVIRONMENT | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        number = 0
        try:
            with pyarrow.ipc.open_stream(io.BufferedReader(_Patient(process.stdout))) as stream:
                for batch in stream:
                    for record in batch.to_pylist():
                        number += 1
                        yield f"{path.name} row {number}", record
            broken = process.wait() != 0
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError):
            broken = True
        finally:
            process.kill()
        if broken:
            words = process.stderr.read(1000).decode(errors="replace") or "it breaks its reader"
            raise ReadError(f"{path.name} is not a readable Parquet file: {words}")


class _Patient(io.RawIOBase):
    """A pipe that ends in an error when nothing comes for a while."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not select.select([self._pipe], [], [], PATIENCE_SECONDS)[0]:
            raise OSError("nothing came for too long")
        data = os.read(self._pipe, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def saved_dataset(path: Path) -> Iterator[Record]:
    import datasets

    try:
        _check_files(path)
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ReadError(f"{path} is not a readable saved dataset: {error}") from None
    parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]
    for split, part in parts:
        for name, feature in part.features.items():
            if isinstance(feature, datasets.Image):
                # Undecoded: the pictures are judged here, by the same rules as all others.
                part = part.cast_column(name, datasets.Image(decode=False))
        for number, record in enumerate(part, 1):
            yield f"{split} row {number}".strip(), record


def _check_files(path: Path) -> None:
    """A saved dataset's state names files beside it, and nothing elsewhere."""
    for state in [path / "state.json", *path.glob("*/state.json")]:
        if state.is_file():
            for file in json.loads(state.read_text())["_data_files"]:
                name = file["filename"]
                if Path(name).name != name or (state.parent / name).is_symlink():
                    raise ValueError(f"{state} names {name}, which lies elsewhere")


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": json_lines,
    ".csv": csv_rows,
    ".parquet": parquet,
}
