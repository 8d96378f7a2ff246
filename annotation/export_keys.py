"""Which judgments a dataset held, 16 bytes each: enough to say what a later one has more or less.

Kept when the archive is deleted. A judgment's first key is its turn and dimension, the second one
counts its revision too. Keys are digests, so they tell nothing about pictures or people.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from numpy.typing import NDArray

from annotation.models import Judgment
from annotation.portable import turn_uid
from generation.models import Project

Keys = NDArray[np.uint64]  # (judgments, 2), sorted by the first column
BATCH = 50_000


def of_dataset(directory: Path) -> Keys:
    found = []
    columns = ["assignment", "dimension", "revision"]
    with pq.ParquetFile(directory / "judgments.parquet") as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            found.append(_keys(zip(*(column.to_pylist() for column in batch), strict=True)))
    keys = np.concatenate(found) if found else np.empty((0, 2), np.uint64)
    return keys[np.argsort(keys[:, 0], kind="stable")]


def of_withdrawn(project: Project) -> Keys:
    """Of the project's judgments that count nowhere, as their source or person is withdrawn."""
    rows = (
        Judgment.objects.withdrawn()
        .filter(set__source__project=project)
        .values_list("assignment_id", "assignment__uid", "dimension__slug", "revision")
    )
    said = ((turn_uid(pk, uid), slug, revision) for pk, uid, slug, revision in rows.iterator())
    return _keys(said)


def _keys(rows: Iterable[tuple[str, str, int]]) -> Keys:
    pairs = [
        (_digest(f"{turn}/{dimension}"), _digest(f"{turn}/{dimension}/{revision}"))
        for turn, dimension, revision in rows
    ]
    return np.array(pairs, np.uint64).reshape(-1, 2)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def difference(old: Keys, new: Keys, withdrawn: Keys) -> dict[str, int]:
    """How many judgments came, were corrected, were withdrawn, or are left out for other reasons.

    >>> a, b, c = ([1, 10], [2, 20], [3, 30])
    >>> difference(np.array([a, b, c]), np.array([a, [2, 21], [4, 40]]), np.array([c]))
    {'added': 1, 'corrected': 1, 'withdrawn': 1, 'left_out': 0}
    """
    gone = np.setdiff1d(old[:, 0], new[:, 0])
    withdrawn_of_them = np.isin(gone, withdrawn[:, 0]).sum()
    both = np.isin(new[:, 0], old[:, 0])
    return {
        "added": int((~both).sum()),
        "corrected": int((~np.isin(new[both, 1], old[:, 1])).sum()),
        "withdrawn": int(withdrawn_of_them),
        "left_out": int(len(gone) - withdrawn_of_them),
    }


def keep(pk: int, keys: Keys) -> None:
    file = io.BytesIO()
    np.save(file, keys, allow_pickle=False)
    default_storage.delete(name_of(pk))  # of an attempt that broke off
    default_storage.save(name_of(pk), ContentFile(file.getvalue()))


def kept(pk: int) -> Keys | None:
    if not default_storage.exists(name_of(pk)):
        return None
    with default_storage.open(name_of(pk)) as file:
        found: Keys = np.load(io.BytesIO(file.read()), allow_pickle=False)
    return found


def name_of(pk: int) -> str:
    return f"exports/{pk}.keys.npy"
