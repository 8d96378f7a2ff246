"""A backup back into an empty place: everything is checked before anything is touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from config.backup import contents, database
from config.backup.errors import BackupError
from config.backup.objects import Objects, copy, hash_of
from config.backup.taking import DUMP, FILES, FORMAT, MANIFEST, Line, all_in, read_lines

# Where rows name directories by their whole path.
PATHS = {
    "generation_policy": ("location", "transformer", "adapter"),
    "modeling_rewardmodel": ("location", "adapter"),
    "modeling_snapshot": ("directory",),
    "modeling_trainingrun": ("directory",),
}
GOING_SECONDS = 3.0  # for connections that are just being closed
DOCUMENTS = {"modeling_trainingrun": ("config",)}


@dataclass
class Restored:
    backup: Path
    files: int = 0
    byte_size: int = 0
    migrated: int = 0


def restore(
    folder: Path,
    *,
    name: str = "",
    replace: bool = False,
    progress: Callable[[int], None] = lambda _n: None,
) -> Restored:
    """Bring back the newest backup in the folder, or the one of that name.

    Where it breaks off the database is as it was, and the same command may be given again.
    """
    backup = find(folder, name)
    manifest = read(backup)
    migrated = _require_known(backup, manifest)
    _require_room(manifest)
    _require_empty(replace)
    objects = Objects(folder)
    _verify(objects, backup, manifest)
    restored = Restored(backup, migrated=migrated)
    for line in read_lines(backup):
        _put(objects, line)
        restored.files += 1
        restored.byte_size += line["size"]
        progress(restored.files)
    database.load(backup / DUMP)
    _move(manifest["data_dir"], str(settings.DATA_DIR))
    _move(manifest["base_dir"], str(settings.BASE_DIR))
    call_command("migrate", verbosity=0, interactive=False)
    return restored


def find(folder: Path, name: str) -> Path:
    found = all_in(folder)
    if not found:
        raise BackupError(f"There is no backup in {folder}. Name the folder that `backup` wrote.")
    if not name:
        return found[-1]
    for backup in found:
        if backup.name == name:
            return backup
    known = ", ".join(backup.name for backup in found[-5:])
    raise BackupError(f"There is no backup “{name}” in {folder}. The newest are: {known}.")


def read(backup: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((backup / MANIFEST).read_text())
        said = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{backup / MANIFEST} cannot be read: {error}.") from None
    if said != FORMAT:
        raise BackupError(
            f"{backup} has the format {said}, and this OneLoop reads {FORMAT}. Use a newer OneLoop."
        )
    return manifest


# Before anything is touched -----------------------------------------------------------------------


def _require_known(backup: Path, manifest: dict[str, Any]) -> int:
    """How many migrations the backup still lacks."""
    loader = MigrationLoader(None)
    known = set(loader.disk_migrations or {})
    has = {(app, name) for app, name in manifest["migrations"] if app in loader.migrated_apps}
    if newer := sorted(has - known):
        app, name = newer[0]
        raise BackupError(
            f"{backup.name} was made by a newer OneLoop ({manifest['version']}): this one does "
            f"not know its migration {app}.{name}. Install that version and restore with it."
        )
    return len(known - has)


def _require_room(manifest: dict[str, Any]) -> None:
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.DATA_DIR).free
    if free < manifest["bytes"] and isinstance(default_storage, FileSystemStorage):
        raise BackupError(
            f"The backup's files take {manifest['bytes'] / 2**20:.0f} MiB, and "
            f"{free / 2**20:.0f} MiB are free under {settings.DATA_DIR}. Make room first."
        )


def _require_empty(replace: bool) -> None:
    # What this process keeps ready for itself is nobody else's.
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has one
    end = time.monotonic() + GOING_SECONDS
    while (others := database.others()) and time.monotonic() < end:
        time.sleep(0.1)
    if others:
        raise BackupError(
            f"{others} other connections use this database. Stop the site and its workers first."
        )
    if (there := database.holds()) and not replace:
        raise BackupError(
            f"This place is not empty: its database has {there}. Restore into an empty one, or "
            "say --replace to delete what is in this database; back it up before."
        )


def _verify(objects: Objects, backup: Path, manifest: dict[str, Any]) -> None:
    for name in (DUMP, FILES):
        if not (backup / name).is_file() or hash_of(backup / name) != manifest["sha256"][name]:
            raise BackupError(f"{backup / name} is damaged. Take another backup; nothing was done.")
    for line in read_lines(backup):
        path = objects.path(line["sha256"])
        if not path.is_file() or hash_of(path) != line["sha256"]:
            raise BackupError(
                f"{path}, which is {line['path']}, is damaged or gone. Nothing was restored. Take "
                "another backup, or bring that file back from a copy of this folder."
            )
        parts = PurePosixPath(line["path"])
        if parts.is_absolute() or ".." in parts.parts:
            raise BackupError(f"{backup / FILES} names {line['path']!r}, which lies outside.")


# Putting things back ------------------------------------------------------------------------------


def _put(objects: Objects, line: Line) -> None:
    kept = objects.path(line["sha256"])
    if line["root"] == contents.MEDIA and not isinstance(default_storage, FileSystemStorage):
        if not _is_there(line):
            with kept.open("rb") as file:
                default_storage.save(line["path"], File(file))
        return
    root = settings.DATA_DIR
    if line["root"] == contents.MEDIA:
        root = Path(default_storage.path(""))
    path = Path(root) / line["path"]
    if path.is_file() and hash_of(path) == line["sha256"]:
        return  # of a restore that broke off
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".restoring-{path.name}")
    with kept.open("rb") as file:
        copy(file, draft)
    if path.name == "secret_key":
        draft.chmod(0o600)
    if line["changed"]:
        os.utime(draft, ns=(line["changed"], line["changed"]))
    draft.replace(path)


def _is_there(line: Line) -> bool:
    if not default_storage.exists(line["path"]):
        return False
    if default_storage.size(line["path"]) == line["size"]:
        return True
    default_storage.delete(line["path"])
    return False


def _move(old: str, new: str) -> None:
    """Let rows name the directories where they lie now."""
    if old == new:
        return
    with connection.cursor() as cursor:
        for table, column in _columns(PATHS):
            cursor.execute(
                f'UPDATE {table} SET "{column}" = %s || substr("{column}", %s) '  # nosec B608  # a model's
                f'WHERE "{column}" = %s OR starts_with("{column}", %s)',
                [new, len(old) + 1, old, old + "/"],
            )
        for table, column in _columns(DOCUMENTS):
            cursor.execute(
                f'UPDATE {table} SET "{column}" = replace("{column}"::text, %s, %s)::jsonb '  # nosec B608  # a model's
                f'WHERE strpos("{column}"::text, %s) > 0',
                [_in_json(old), _in_json(new), _in_json(old)],
            )
        cursor.execute(
            "SELECT directory, config FROM modeling_trainingrun "
            "WHERE state IN ('queued', 'running')"
        )
        for directory, config in cursor.fetchall():
            # A training that goes on reads them there.
            path = Path(directory) / "config.json"
            if path.is_file():
                path.write_text(json.dumps(json.loads(config), indent=1))


def _in_json(path: str) -> str:
    return '"' + json.dumps(path + "/")[1:-1]


def _columns(tables: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for table, columns in tables.items():
        for column in columns:
            yield table, column
