"""Directories that every machine finds: datasets, checkpoints, and what a training reads.

Where the store of media is a folder on this disk, a directory is named by its path, and machines
that work together mount the same folders. Where it is an object store, a directory below DATA_DIR
is named `store:runs/…`: `publish` copies its files there with a list of their hashes, which comes
last, and `local` gives its path on this machine, fetched at the first use and held against the
list. A directory is therefore seen whole or not at all, and its content never changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, default_storage

SCHEME = "store:"
PREFIX = "shared"
LIST = ".files.json"
CHUNK = 1 << 20
ATTEMPTS = 3  # of one file whose bytes are not those that were published


class SharedError(OSError):
    """One readable sentence: which directory cannot be had, and the remedy."""


def in_object_store() -> bool:
    return not isinstance(default_storage, FileSystemStorage)


def name_of(directory: Path) -> str:
    """What other machines know a directory of this data directory by."""
    if not in_object_store():
        return str(directory)
    return SCHEME + directory.resolve().relative_to(Path(settings.DATA_DIR).resolve()).as_posix()


def place(name: str) -> Path:
    """Where a directory lies on this machine, or would lie; nothing is fetched."""
    if name.startswith(SCHEME):
        inside = PurePosixPath(name.removeprefix(SCHEME))
        if inside.is_absolute() or ".." in inside.parts:
            raise SharedError(f"{name} leads out of the store of directories.")
        return Path(settings.DATA_DIR) / inside
    return Path(name).expanduser()


def exists(name: str) -> bool:
    if name.startswith(SCHEME):
        return place(name).is_dir() or default_storage.exists(_key(name, LIST))
    return place(name).is_dir()


# Putting there ----------------------------------------------------------------------------------


def publish(directory: Path) -> str:
    """Let other machines have a finished directory; its name."""
    name = name_of(directory)
    if name.startswith(SCHEME) and not default_storage.exists(_key(name, LIST)):
        files = {}
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            relative = path.relative_to(directory).as_posix()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[relative] = {"sha256": digest, "key": _put(name, relative, path, digest)}
        text = json.dumps({"files": files}, indent=0)
        default_storage.save(_key(name, LIST), ContentFile(text.encode()))
    return name


def _put(name: str, relative: str, path: Path, digest: str) -> str:
    """Copy one file, unless it is a picture that the store holds already; its key."""
    known = f"images/{digest[:2]}/{digest}.png"
    if relative.endswith(f"{digest}.png") and default_storage.exists(known):
        return known
    key = _key(name, relative)
    with path.open("rb") as file:
        default_storage.save(key, File(file))
    return key


def put_files(name: str, directory: Path, files: Iterable[str]) -> None:
    """Copy files that still change, such as a running training's figures, over their last state."""
    if name.startswith(SCHEME):
        for relative in files:
            path = directory / relative
            if path.is_file():
                default_storage.save(_key(name, relative), ContentFile(path.read_bytes()))


def withdraw(name: str) -> None:
    """Delete a published directory from the store, its list first."""
    if name.startswith(SCHEME) and (found := _list(name)) is not None:
        default_storage.delete(_key(name, LIST))
        for file in found.values():
            if file["key"].startswith(f"{PREFIX}/"):
                default_storage.delete(file["key"])


# Getting from there -----------------------------------------------------------------------------


def local(name: str) -> str:
    """The path on this machine of a directory that was published anywhere. Raises SharedError.

    What is no name of the store, such as a path or a hub id, is given back as it is.
    """
    if not name.startswith(SCHEME):
        return name
    path = place(name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.exists():
                _fetch(name, path)
    return str(path)


def local_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's spec with the paths of this machine."""
    found = {key: value for key, value in spec.items() if key != "transformer"}
    found = {key: local(value) if isinstance(value, str) else value for key, value in found.items()}
    transformer = spec.get("transformer", "")
    if transformer.startswith(SCHEME):  # a training's directory, of which one folder is meant
        transformer = str(Path(local(f"{transformer}/{spec['subfolder']}")).parent)
    return {**found, "transformer": transformer}


def file_of(name: str, relative: str) -> Path | None:
    """One file of a directory that may still change, in its newest published state."""
    if not name.startswith(SCHEME):
        path = place(name) / relative
        return path if path.is_file() else None
    key = _key(name, relative)
    if not default_storage.exists(key):
        return None
    # Beside the directory itself: this machine may be the one that writes there.
    copy = Path(settings.DATA_DIR) / "fetched" / name.removeprefix(SCHEME) / relative
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=copy.parent, delete=False) as draft:
        _download(key, Path(draft.name))
    return Path(draft.name).replace(copy)


def _fetch(name: str, path: Path) -> None:
    files = _list(name)
    if files is None:
        raise SharedError(
            f"{name} is neither on this machine nor in the store. Restore it from a backup, or "
            "make it again."
        )
    draft = Path(tempfile.mkdtemp(prefix=".fetching-", dir=path.parent))
    try:
        for relative, file in files.items():
            target = draft / relative
            if not target.resolve().is_relative_to(draft.resolve()):
                raise SharedError(f"The list of {name} leads outside it.")
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(name, file["key"], file["sha256"], target)
        draft.chmod(0o755)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fetch_file(name: str, key: str, sha256: str, target: Path) -> None:
    for _attempt in range(ATTEMPTS):
        try:
            if _download(key, target) == sha256:
                return
        except FileNotFoundError:
            break
    raise SharedError(
        f"The file {key} of {name} is missing from the store or is not the one that was published. "
        "Restore it from a backup."
    )


def _download(key: str, target: Path) -> str:
    digest = hashlib.sha256()
    with default_storage.open(key) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _list(name: str) -> dict[str, dict[str, Any]] | None:
    try:
        with default_storage.open(_key(name, LIST)) as file:
            files: dict[str, dict[str, Any]] = json.loads(file.read())["files"]
    except FileNotFoundError:
        return None
    return files


def _key(name: str, relative: str) -> str:
    return f"{PREFIX}/{name.removeprefix(SCHEME)}/{relative}"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of several processes of this machine one fetches, and the others find it done."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
