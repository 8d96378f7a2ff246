"""Backups: taken while the site works, and the oldest forgotten."""

from __future__ import annotations

import fcntl
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.migrations.recorder import MigrationRecorder

from annotation.datasets import one_moment
from config.backup import contents, database
from config.backup.contents import Entry
from config.backup.errors import BackupError
from config.backup.objects import Objects, hash_of
from config.version import release

FORMAT = 1
DUMP, FILES, MANIFEST = "database.dump", "files.jsonl.gz", "manifest.json"
Line = dict[str, Any]


@dataclass
class Taken:
    directory: Path
    files: int = 0
    new_files: int = 0
    byte_size: int = 0
    new_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    forgotten: int = 0


def take(
    folder: Path, *, keep: int | None = None, progress: Callable[[int], None] = lambda _n: None
) -> Taken:
    """Add a backup to the folder; what earlier ones hold already is not copied again."""
    (folder / "backups").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it holds everything, the site's key included
    with alone(folder):
        now = datetime.now(UTC)
        taken = Taken(folder / "backups" / f"{now:%Y-%m-%dT%H-%M-%S-%f}")
        draft = taken.directory.with_name(f".draft-{taken.directory.name}")
        for left in (folder / "backups").glob(".draft-*"):  # of one that broke off
            shutil.rmtree(left)
        draft.mkdir()
        with one_moment():
            said = {
                "format": FORMAT,
                "made_at": now.isoformat(timespec="seconds"),
                "version": release(),
                "postgresql": database.server_version(),
                "migrations": sorted(migrations()),
                "data_dir": str(settings.DATA_DIR),
                "base_dir": str(settings.BASE_DIR),
                "counts": contents.counts(),
            }
            taken.outside = contents.outside()
            database.dump(draft / DUMP)
            _copy(Objects(folder), draft / FILES, _known(folder), taken, progress)
        said |= {
            "files": taken.files,
            "bytes": taken.byte_size,
            "missing": taken.missing,
            "outside": taken.outside,
            "sha256": {name: hash_of(draft / name) for name in (DUMP, FILES)},
        }
        (draft / MANIFEST).write_text(json.dumps(said, indent=1))
        draft.rename(taken.directory)
        if keep is not None:
            taken.forgotten = forget(folder, keep)
    return taken


def _copy(
    objects: Objects,
    into: Path,
    known: dict[tuple[str, str], Line],
    taken: Taken,
    progress: Callable[[int], None],
) -> None:
    with gzip.open(into, "wt") as out:
        for entry in contents.entries():
            try:
                line = _line(objects, entry, known.get((entry.root, entry.path)), taken)
            except FileNotFoundError:
                if entry.required:
                    taken.missing.append(f"{entry.root}/{entry.path}")
                continue
            out.write(json.dumps(line) + "\n")
            taken.files += 1
            taken.byte_size += line["size"]
            progress(taken.files)


def _line(objects: Objects, entry: Entry, before: Line | None, taken: Taken) -> Line:
    sha256, size = entry.sha256, entry.size
    if not sha256 and before and (before["size"], before["changed"]) == (size, entry.changed):
        sha256 = before["sha256"]
    if not sha256 or not objects.has(sha256, size):
        with entry.open() as file:
            sha256, size, new = objects.keep(file)
        if entry.sha256 and sha256 != entry.sha256:
            raise FileNotFoundError(f"{entry.path} is damaged")
        taken.new_files += new
        taken.new_bytes += new * size
    return {
        "root": entry.root,
        "path": entry.path,
        "size": size,
        "sha256": sha256,
        "changed": entry.changed,
    }


def _known(folder: Path) -> dict[tuple[str, str], Line]:
    """What the newest backup says of the files whose names do not tell their content."""
    if not (before := all_in(folder)):
        return {}
    lines = read_lines(before[-1])
    return {(one["root"], one["path"]): one for one in lines if one["changed"]}


# What there is ------------------------------------------------------------------------------------


def all_in(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(path.parent for path in (folder / "backups").glob(f"[0-9]*/{MANIFEST}"))


def read_lines(backup: Path) -> Iterator[Line]:
    with gzip.open(backup / FILES, "rt") as file:
        for line in file:
            yield json.loads(line)


def forget(folder: Path, keep: int) -> int:
    """Delete all but the newest so many, and what only they held."""
    if keep < 1:
        raise BackupError("--keep: at least 1, the backup that is being made.")
    found = all_in(folder)
    gone = found[:-keep]
    if not gone:
        return 0
    for backup in gone:
        shutil.rmtree(backup)
    needed = {line["sha256"] for backup in found[-keep:] for line in read_lines(backup)}
    Objects(folder).forget_all_but(needed)
    return len(gone)


def migrations() -> list[list[str]]:
    from django.db import connection

    return [list(key) for key in MigrationRecorder(connection).applied_migrations()]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(
                f"Another command works in {folder}. Wait until it is done."
            ) from None
        yield
