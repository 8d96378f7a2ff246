"""The draft of a dataset: parts that are finished stay, whatever happens to the process.

    .NAME-unfinished/     beside the directory NAME that is being written
        state.json          what was asked, and of each finished part what it holds
        shown-00001.npy     which images its rows refer to
        parts/00000/        its tables
        dataset/            what becomes NAME when it is whole

A part is some batches. What the database said about them is digested; before another process goes
on, it asks again, and where the answer differs all parts are thrown away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.dataset_files import TABLES, TEXT
from annotation.dataset_pictures import Shown
from annotation.dataset_rows import written
from annotation.errors import DatasetError

STATE, LOCK = "state.json", "lock"


class Draft:
    def __init__(self, folder: Path, *, compression: str) -> None:
        self.folder = folder
        self.dataset = folder / "dataset"
        self.compression = compression
        self.state: dict[str, Any] = {}
        if (folder / STATE).is_file():
            self.state = json.loads((folder / STATE).read_text())

    @property
    def parts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.state.setdefault("parts", [])
        return found

    def clear(self) -> None:
        """Keep what was asked, and nothing that was written."""
        self.state["parts"] = []
        self.save()
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        shutil.rmtree(self.dataset, ignore_errors=True)

    def save(self) -> None:
        path = self.folder / STATE
        draft = path.with_suffix(".draft")
        with open(draft, "w", opener=_private) as file:  # it may hold the salt
            json.dump(self.state, file)
        draft.replace(path)

    @contextmanager
    def new_part(self) -> Iterator[Tables]:
        """The tables of the next part; it counts once `finish` was called."""
        for path in self.dataset.glob("*.parquet"):
            path.unlink()
        folder = self._part(len(self.parts))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with Tables(folder, self.compression) as tables:
            yield tables

    def finish(self, said: Mapping[str, Any], shown: Shown) -> None:
        before = self.shown
        self.parts.append(dict(said))
        shown.save(self.shown)
        self.save()
        before.unlink(missing_ok=True)

    @property
    def shown(self) -> Path:
        """Which images the rows of the finished parts refer to."""
        return self.folder / f"shown-{len(self.parts):05d}.npy"

    def write(self, table: str, rows: pa.RecordBatch) -> None:
        """A whole table at once; after the parts."""
        self.dataset.mkdir(exist_ok=True)
        with _writer(self.dataset / f"{table}.parquet", rows.schema, self.compression) as writer:
            writer.write_batch(rows)

    def join(self) -> None:
        """Make one file of each table, where there is none."""
        self.dataset.mkdir(exist_ok=True)
        folders = [self._part(number) for number in range(len(self.parts))]
        for table in TABLES:
            path = self.dataset / f"{table}.parquet"
            if path.exists():
                continue
            pieces = [folder / path.name for folder in folders]
            pieces = [piece for piece in pieces if piece.exists()]
            if len(pieces) == 1:
                os.link(pieces[0], path)
            else:
                self._copy(table, pieces, path)

    def _copy(self, table: str, pieces: list[Path], path: Path) -> None:
        texts = [field.name for field in TABLES[table] if field.type == TEXT]
        draft = path.with_suffix(".draft")
        with _writer(draft, written(table), self.compression) as writer:
            for piece in pieces:
                # Texts stay coded, so that they are not told apart once more.
                with pq.ParquetFile(piece, read_dictionary=texts) as file:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group).cast(written(table)))
        draft.replace(path)

    def _part(self, number: int) -> Path:
        return self.folder / "parts" / f"{number:05d}"


class Tables:
    """A part's files while they are written; a row group of a batch is on the disk at once."""

    def __init__(self, folder: Path, compression: str) -> None:
        self._folder = folder
        self._compression = compression
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, table: str, rows: pa.RecordBatch) -> None:
        if not len(rows):
            return
        if table not in self._writers:
            path = self._folder / f"{table}.parquet"
            self._writers[table] = _writer(path, rows.schema, self._compression)
        self._writers[table].write_batch(rows)


def _writer(path: Path, schema: pa.Schema, compression: str) -> pq.ParquetWriter:
    # Without Arrow's own schema in it: texts that are coded here are plain texts to who reads it.
    return pq.ParquetWriter(path, schema, compression=compression, store_schema=False)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def opened(target: Path, *, resumable: bool, compression: str) -> Iterator[Draft]:
    """The draft of a new directory. One that can be resumed is kept until it is whole."""
    if target.is_dir() and any(target.iterdir()):
        raise DatasetError(f"'{target}' already holds files. Choose a new or empty directory.")
    if target.exists() and not target.is_dir():
        raise DatasetError(f"'{target}' is a file. Choose a new or empty directory.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if resumable:
        folder = target.parent / f".{target.name}-unfinished"
        folder.mkdir(mode=0o700, exist_ok=True)
        with _locked(folder, target):
            yield Draft(folder, compression=compression)
        return
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield Draft(folder, compression=compression)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"'{target}' is being written by another process. Wait until it is done."
            ) from None
        yield
