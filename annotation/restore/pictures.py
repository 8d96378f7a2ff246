"""The pictures of a dataset directory, one by one by their sha256, however they lie in it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from annotation.dataset_files import picture_name
from annotation.errors import DatasetError
from generation import images
from generation.decoding import plain
from generation.models import Image
from generation.readers import archives

GONE = "The picture {} is missing. Copy the dataset again, with all its images."
FOREIGN = (
    "The picture {} is not one that was exported from here: an 8-bit PNG without anything else "
    "in it ({})."
)


class Pictures:
    """`form` is the card's: files, parquet, webdataset, or none where only rows were exported."""

    def __init__(self, directory: Path, form: str) -> None:
        self._images = directory / "images"
        self._places: dict[str, tuple[Path, int, int]] = {}
        if form == "parquet":
            self._index_parquet(sorted(directory.glob("images-*.parquet")))
        elif form == "webdataset":
            self._index_tars(sorted(directory.glob("images-*.tar")))

    def read(self, sha256: str) -> bytes:
        """Raises DatasetError where there is none, or another."""
        if (place := self._places.get(sha256)) is not None:
            if place[0].suffix == ".tar" and place[2] > images.MAX_BYTES:
                raise DatasetError(f"The picture {sha256} is larger than pictures are here.")
            data = self._read_place(*place)
        else:
            try:
                data = (self._images / picture_name(sha256)).read_bytes()
            except OSError:
                raise DatasetError(GONE.format(sha256)) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DatasetError(f"The picture {sha256} is not the one its name says.")
        return data

    def _read_place(self, path: Path, first: int, second: int) -> bytes:
        if path.suffix == ".parquet":
            return _group(path, first)[second]
        with path.open("rb") as file:
            file.seek(first)
            return file.read(second)

    def _index_parquet(self, paths: list[Path]) -> None:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    names = file.read_row_group(group, ["sha256"]).column("sha256").to_pylist()
                    for row, sha256 in enumerate(names):
                        self._places[sha256] = (path, group, row)

    def _index_tars(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                with archives.opened(path) as archive:
                    for member in archive:
                        if member.isreg() and member.name.endswith(".png"):
                            sha256 = Path(member.name).stem
                            self._places[sha256] = (path, member.offset_data, member.size)
            except archives.ArchiveError as error:
                raise DatasetError(f"Of the archive {path.name}, {error}") from None


@lru_cache(maxsize=2)
def _group(path: Path, number: int) -> list[bytes]:
    """Sets and pictures come in the same order, so the last groups are asked for again."""
    with pq.ParquetFile(path) as file:
        cells: list[dict[str, Any]] = file.read_row_group(number, ["image"])["image"].to_pylist()
    return [cell["bytes"] for cell in cells]


def check(data: bytes, sha256: str, mode: str) -> tuple[int, int]:
    """The size of a picture, which must be as `generation.images` stores it: it is kept as it is.
    Raises DatasetError."""
    try:
        found, size = plain.check(data)
    except plain.NotPlain as error:
        raise DatasetError(FOREIGN.format(sha256, error)) from None
    if found != mode:
        raise DatasetError(FOREIGN.format(sha256, "a mask is grey, and a picture has colours"))
    return size


class Shelf:
    """What of a chunk's pictures is in the store already, and what is to be put there."""

    def __init__(self, pictures: Pictures, wanted: set[str]) -> None:
        self._pictures = pictures
        self.rows: dict[str, Image] = Image.objects.in_bulk(list(wanted), field_name="sha256")

    def take(self, wanted: dict[str, str], *, keep: bool) -> dict[str, Image]:
        """The rows of these pictures, {sha256: mode}; all of them or, by DatasetError, none."""
        read = {sha256: self._pictures.read(sha256) for sha256 in wanted if sha256 not in self.rows}
        sizes = {sha256: check(data, sha256, wanted[sha256]) for sha256, data in read.items()}
        for sha256, data in read.items():
            size = sizes[sha256]
            if keep:
                self.rows[sha256] = images.keep(data, size)
            else:
                self.rows[sha256] = Image(
                    sha256=sha256, width=size[0], height=size[1], byte_size=len(read[sha256])
                )
        return {sha256: self.rows[sha256] for sha256 in wanted}

    def save(self) -> None:
        """Store the rows of what was taken since."""
        new = [row for row in self.rows.values() if row.pk is None]
        Image.objects.bulk_create(new, ignore_conflicts=True)
        saved = Image.objects.in_bulk([row.sha256 for row in new], field_name="sha256")
        for row in new:
            row.pk = saved[row.sha256].pk
