"""Which files belong to the rows that a transaction sees."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.files.storage import default_storage

from annotation.export_keys import name_of as keys_of
from annotation.models import Export, Judgment
from generation import shared
from generation.models import Candidate, Image, Policy, Source
from modeling import runs, snapshots
from modeling.models import RewardModel, Snapshot, TrainingRun

MEDIA, DATA = "media", "data"
# What is made again when it is asked for.
CACHES = {runs.CONDITIONS}
COUNTED = [Image, Source, Candidate, Judgment, Export, Policy, RewardModel, Snapshot, TrainingRun]


@dataclass(frozen=True)
class Entry:
    """A file by its name in the media store, or below the data directory."""

    root: str
    path: str
    size: int
    changed: int  # nanoseconds; 0 where nobody knows
    sha256: str = ""  # where a row knows it
    required: bool = True  # whether a row names it

    def open(self) -> IO[bytes]:
        """Raises FileNotFoundError, whatever the store."""
        if self.root == DATA:
            return (Path(settings.DATA_DIR) / self.path).open("rb")
        if not default_storage.exists(self.path):
            raise FileNotFoundError(self.path)
        return default_storage.open(self.path)


def entries() -> Iterator[Entry]:
    for image in Image.objects.order_by("pk").iterator(chunk_size=5000):
        path = f"images/{image.storage_key}"
        yield Entry(MEDIA, path, image.byte_size, 0, image.sha256)
    for pk, archive in Export.objects.exclude(archive="").values_list("pk", "archive"):
        yield _in_store(archive)
        yield _in_store(keys_of(pk), required=False)
    home = Path(settings.DATA_DIR)
    if shared.in_object_store():
        # What machines share lies there; what this one has of it was fetched.
        yield from _below_in_store(shared.PREFIX)
    else:
        for top in _directories(home):
            yield from _below(home, top)
    if (home / "secret_key").exists():  # pseudonyms are made with it
        yield _entry(home, home / "secret_key")


def _in_store(path: str, *, required: bool = True) -> Entry:
    if not default_storage.exists(path):
        return Entry(MEDIA, path, 0, 0, "", required)
    changed = int(default_storage.get_modified_time(path).timestamp() * 1e9)
    return Entry(MEDIA, path, default_storage.size(path), changed, "", required)


def _below_in_store(folder: str) -> Iterator[Entry]:
    try:
        folders, names = default_storage.listdir(folder)
    except FileNotFoundError:  # an object store has no folders, and says so or gives nothing
        return
    for name in sorted(names):
        yield _in_store(f"{folder}/{name}", required=False)
    for name in sorted(folders):
        yield from _below_in_store(f"{folder}/{name}")


def _directories(home: Path) -> list[Path]:
    """Snapshots, runs, and whatever weights rows name below the data directory."""
    found = {runs.root(), snapshots.root()}
    for location in locations():
        path = Path(location)
        if path.is_absolute() and path.is_relative_to(home):
            found.add(path)
    return sorted(one for one in found if not any(above in found for above in one.parents))


def locations() -> Iterator[str]:
    for row in Policy.objects.values_list("location", "transformer", "adapter"):
        yield from filter(None, row)
    for pair in RewardModel.objects.values_list("location", "adapter"):
        yield from filter(None, pair)


def outside() -> list[str]:
    """Directories with weights that lie elsewhere on this machine, and are not in the backup."""
    homes = (Path(settings.DATA_DIR), settings.BASE_DIR)
    found = {Path(location) for location in locations() if location.startswith("/")}
    return sorted(str(one) for one in found if not any(map(one.is_relative_to, homes)))


def _below(home: Path, top: Path) -> Iterator[Entry]:
    for folder, names, files in os.walk(top):
        # What begins with a dot is being written, and gets its name when it is whole.
        names[:] = sorted(name for name in names if name not in CACHES and name[0] != ".")
        for name in sorted(files):
            path = Path(folder) / name
            if name[0] != "." and path.is_file() and not path.is_symlink():
                yield _entry(home, path)


def _entry(home: Path, path: Path) -> Entry:
    said = path.stat()
    name = path.relative_to(home).as_posix()
    return Entry(DATA, name, said.st_size, said.st_mtime_ns, required=False)


def counts() -> dict[str, int]:
    models: Iterable[type] = COUNTED
    return {model._meta.label: model.objects.count() for model in models}  # type: ignore[attr-defined]
