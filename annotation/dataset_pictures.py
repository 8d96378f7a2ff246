"""The pictures of a dataset, as files, in Parquet or in WebDataset's tars, smaller where asked.

Which pictures there are is gathered while the rows are written, as one byte for every number an
image may have: memory hardly grows with them.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Pillow

from annotation.dataset_files import (
    FILES,
    NO_PICTURES,
    PARQUET,
    PICTURE_CELL,
    PICTURE_ROW,
    picture_name,
)
from annotation.errors import DatasetError
from generation import images
from generation.models import Image

SHARD = 5_000  # pictures in one file
GROUP = 100  # pictures in a row group
READ = 1_000
# By which `datasets` knows that the cells are pictures.
FEATURES = {"info": {"features": {
    "sha256": {"dtype": "string", "_type": "Value"},
    "width": {"dtype": "int64", "_type": "Value"},
    "height": {"dtype": "int64", "_type": "Value"},
    "image": {"_type": "Image"},
}}}  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """How they are to be written."""

    form: str = FILES
    max_side: int | None = None  # pixels; larger pictures are made smaller


class Shown:
    """The numbers of the images that rows refer to."""

    def __init__(self, path: Path | None = None) -> None:
        self._seen: NDArray[np.bool_] = (
            np.zeros(2**16, bool) if path is None else np.load(path, allow_pickle=False)
        )

    def add(self, pks: NDArray[np.int64]) -> None:
        most = int(pks.max(initial=0))
        if most >= len(self._seen):
            more = np.zeros(max(2 * len(self._seen), most + 1), bool)
            more[: len(self._seen)] = self._seen
            self._seen = more
        self._seen[pks] = True

    def save(self, path: Path) -> None:
        draft = path.with_suffix(".draft.npy")
        np.save(draft, self._seen, allow_pickle=False)
        draft.replace(path)

    def __len__(self) -> int:
        return int(self._seen.sum())

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Image]:
        pks = np.flatnonzero(self._seen)[start:stop]
        for at in range(0, len(pks), READ):
            yield from Image.objects.filter(pk__in=pks[at : at + READ].tolist()).order_by("pk")


def write(directory: Path, shown: Shown, pictures: Pictures) -> None:
    """Put them into the directory. What an earlier attempt finished is left as it is."""
    if pictures.form == NO_PICTURES:
        return
    if pictures.form == FILES:
        for image in shown.rows():
            _file(image, directory / "images" / picture_name(image.sha256), pictures.max_side)
        return
    fill, ending = (_parquet, "parquet") if pictures.form == PARQUET else (_tar, "tar")
    for number, start in enumerate(range(0, len(shown), SHARD)):
        path = directory / f"images-{number:05d}.{ending}"
        if not path.exists():
            draft = path.with_suffix(".draft")
            fill(draft, shown.rows(start, start + SHARD), pictures.max_side)
            draft.replace(path)


def _file(image: Image, path: Path, max_side: int | None) -> None:
    """A hard link where the store is on the same disk, a copy elsewhere."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _too_large(image, max_side):
        try:
            os.link(images.local_path(image), path)
            return
        except (OSError, NotImplementedError):
            pass
    draft = path.with_suffix(".draft")
    draft.write_bytes(_bytes(image, max_side))
    draft.replace(path)


def _parquet(path: Path, rows: Iterator[Image], max_side: int | None) -> None:
    schema = pa.schema(
        [*PICTURE_ROW, ("image", PICTURE_CELL)], {"huggingface": json.dumps(FEATURES)}
    )
    waiting: list[dict[str, Any]] = []
    # PNG does not get smaller by compressing it once more.
    with pq.ParquetWriter(path, schema, compression="none") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        for image in rows:
            cell = {"bytes": _bytes(image, max_side), "path": f"{image.sha256}.png"}
            waiting.append(_described(image) | {"image": cell})
            if len(waiting) == GROUP:
                flush()
        if waiting:
            flush()


def _tar(path: Path, rows: Iterator[Image], max_side: int | None) -> None:
    """A sample is <sha256>.png with <sha256>.json, which says what it was."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for image in rows:
            described = json.dumps(_described(image)).encode()
            for ending, data in (("png", _bytes(image, max_side)), ("json", described)):
                member = tarfile.TarInfo(f"{image.sha256}.{ending}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))


def _described(image: Image) -> dict[str, Any]:
    return {"sha256": image.sha256, "width": image.width, "height": image.height}


def _bytes(image: Image, max_side: int | None) -> bytes:
    try:
        if not _too_large(image, max_side):
            return images.read_bytes(image)
        assert max_side is not None
        return images.encode(_smaller(images.open_image(image), max_side))
    except images.ImageError as error:
        raise DatasetError(str(error)) from error


def _too_large(image: Image, max_side: int | None) -> bool:
    return max_side is not None and max(image.width, image.height) > max_side


def _smaller(picture: Pillow.Image, max_side: int) -> Pillow.Image:
    scale = max_side / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if picture.mode == "L":  # a mask; every edited pixel stays edited
        return images.at_size(picture, picture, (width, height))[1]
    return picture.resize((width, height), Pillow.Resampling.LANCZOS)
