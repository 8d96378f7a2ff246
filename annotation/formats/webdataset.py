"""WebDataset: tar files of preference triplets, a sample per person and pair.

    <key>.chosen.png  <key>.rejected.png  <key>.source.png  <key>.mask.png  <key>.json

The JSON holds the prompt, the dimension, who said so when, and which models made the pictures. A
pair in which no difference was found is no triplet.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from annotation.formats import files
from annotation.formats.rows import (
    Comparison,
    Outgoing,
    Picture,
    RowError,
    Vote,
    answer_of,
    decided,
)
from generation.images import MAX_BYTES
from generation.readers import ReadError, Refusal, archives

HOLDS = frozenset(
    {"source", "mask", "task", "sets", "models", "seeds", "annotators", "votes", "split"}
    | {"time", "seconds", "tags", "licence"}
)
SHARD = 1000  # samples of a tar file


class _Shards:
    """The tar files of one part."""

    def __init__(self, out: Path, part: str) -> None:
        self._out, self._part, self._count = out, part, 0
        self._tar: tarfile.TarFile | None = None

    def add(self, sample: dict[str, Any]) -> None:
        if self._count % SHARD == 0:
            self.close()
            name = f"{self._part}-{self._count // SHARD:06d}.tar"
            self._tar = tarfile.TarFile(self._out / name, "w")
        for ending, data in sample.items():
            member = tarfile.TarInfo(f"{self._part}-{self._count:09d}.{ending}")
            member.size = len(data)
            assert self._tar is not None
            self._tar.addfile(member, io.BytesIO(data))
        self._count += 1

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


def write(data: Outgoing, out: Path) -> None:
    shards = {part: _Shards(out, part) for part in files.PART.values()}
    try:
        for row in data:
            for dimension in row.dimensions():
                for chosen, rejected, vote in decided(row, dimension):
                    sample = _sample(row, dimension, chosen, rejected, vote)
                    shards[files.PART[row.split]].add(sample)
    finally:
        for one in shards.values():
            one.close()


def _sample(
    row: Comparison, dimension: str, chosen: Picture, rejected: Picture, vote: Vote
) -> dict[str, bytes]:
    answer = vote.answer
    about = {
        "prompt": row.prompt,
        "task": row.task,
        "dimension": dimension,
        "set": row.key,
        "relation": "direct" if vote.direct else "implied",
        "annotator": answer.annotator,
        "judged_at": answer.at.isoformat() if answer.at else None,
        "seconds_spent": answer.seconds,
        "chosen_model": chosen.model,
        "rejected_model": rejected.model,
        "chosen_seed": chosen.seed,
        "rejected_seed": rejected.seed,
        **row.said,
    }
    pictures = {"chosen": chosen, "rejected": rejected, "source": row.source, "mask": row.mask}
    shown = {f"{name}.png": one.bytes() for name, one in pictures.items() if one is not None}
    return shown | {"json": json.dumps(about, ensure_ascii=False).encode()}


def read(path: Path) -> Iterator[Comparison | Refusal]:
    if not path.exists():
        raise ReadError(f"{path} does not exist. Check the path.")
    shards = sorted(path.rglob("*.tar")) if path.is_dir() else [path]
    seen = False
    for shard in shards:
        for key, members in groupby(_members(shard), key=lambda member: member[0]):
            seen = True
            name = f"{shard.name} {key}"
            try:
                sample: dict[str, bytes | None] = {}
                for _key, ending, data in members:
                    if ending in sample:
                        raise RowError(f"It has two files .{ending}. Pack each once.")
                    sample[ending] = data
                yield _comparison(name, sample)
            except RowError as error:
                yield Refusal(name, str(error))
    if not seen:
        raise ReadError(f"There are no samples in {path}.")


def _members(shard: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """(key, ending, data) of every file; None for the data of one that is too large."""
    try:
        with archives.opened(shard) as archive:
            for member in archive:
                if not member.isreg():
                    continue
                folder, _slash, base = member.name.rpartition("/")
                key, _dot, ending = base.partition(".")
                data = archive.read(member) if member.size <= MAX_BYTES else None
                yield f"{folder}/{key}" if folder else key, ending.lower(), data
    except archives.ArchiveError as error:
        raise ReadError(f"{shard.name} is no tar file that can be read: {error}") from None


def _comparison(name: str, sample: dict[str, bytes | None]) -> Comparison:
    try:
        about = json.loads(sample.get("json") or b"")
    except (ValueError, RecursionError):
        raise RowError("It has no .json that can be read.") from None
    if not isinstance(about, dict):
        raise RowError("Its .json is not an object.")
    pictures = {
        kind: data
        for ending, data in sample.items()
        if (kind := ending.partition(".")[0]) in ("chosen", "rejected", "source", "mask")
    }

    def picture(kind: str, model: str = "") -> Picture:
        return files.picture(pictures.get(kind), f".{kind}", Path(), model=model)

    return Comparison(
        prompt=files.words(about, "prompt"),
        pictures=tuple(
            picture(kind, files.words(about, f"{kind}_model", optional=True))
            for kind in ("chosen", "rejected")
        ),
        answers=(
            answer_of(
                "first",
                dimension=files.words(about, "dimension", optional=True),
                annotator=files.words(about, "annotator", optional=True),
                at=files.moment(about.get("judged_at")),
                seconds=files.number(about, "seconds_spent"),
            ),
        ),
        name=name,
        said={
            name: files.words(about, name, optional=True)
            for name in ("tags", "licence", "attribution")
        },
        source=picture("source") if "source" in pictures else None,
        mask=picture("mask") if "mask" in pictures else None,
    )
