"""The run directory: the only interface between a training process and the rest of the platform.

    config.json          in: one frozen dataclass, unknown keys are an error
    metrics.jsonl        out: one JSON object a line, key "step"
    progress.json        out: {"step", "total", "message"}
    checkpoints/step-N/  out: written under a temporary name and renamed, with checksums.json; the
                         newest two are kept
    samples/             out: pictures
    tensorboard/         out: the same for TensorBoard, written anew whenever a run goes on
    card.json            out: base, snapshot hash, code version, config, metrics, parent
    result.json          out: final figures
    error.json           out: {"message": one readable sentence} when the run failed

A process that is killed at any moment and started again with the same directory goes on from its
newest checkpoint that is intact; metrics logged after that checkpoint are dropped first, so that no
step appears twice.
"""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from modeling.failures import explain

T = TypeVar("T")
KEEP_CHECKPOINTS = 2
CHECKSUMS = "checksums.json"
SHA256 = re.compile(r"[0-9a-f]{64}")
# What a configuration may name beside TensorBoard; see tracking.py.
TRACKERS = ("wandb", "mlflow", "trackio")
# A disk with less room than this is full.
FULL_BYTES = 64 * 1024
# Kept in the lock file, so that a reason still fits on a disk that is full.
RESERVED_BYTES = 64 * 1024


class RunError(Exception):
    """A failure with one readable sentence for the person who started the run."""


def whole_bytes(path: Path) -> bytes:
    """A file's bytes; where its name is the hash of its content, they have to be those."""
    data = path.read_bytes()
    if SHA256.fullmatch(path.stem) and hashlib.sha256(data).hexdigest() != path.stem:
        raise RunError(
            f"The picture '{path}' is damaged: it is not what was stored. Restore it from a backup."
        )
    return data


def load_config(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the frozen dataclass `cls`; unknown and missing keys are errors that name the key."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = (
                f" Did you mean '{near[0]}'?"
                if near
                else f" Valid keys: {', '.join(sorted(fields))}."
            )
            raise RunError(f"Unknown configuration key '{key}'.{hint}")
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise RunError(f"The configuration key '{name}' is missing.")
    hints = typing.get_type_hints(cls)
    built: dict[str, Any] = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = load_config(typing.cast(type, hint), value)
        elif typing.get_origin(hint) is tuple and isinstance(value, list):
            value = tuple(value)
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        built[key] = value
    try:
        return cls(**built)
    except (TypeError, ValueError) as error:
        raise RunError(f"Invalid configuration: {error}") from error


def write_json(path: Path, payload: Any) -> None:
    """Write `payload` so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(payload, indent=1, default=str))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def die_with_parent() -> None:
    """Ask Linux to end this process with its parent: a killed worker leaves no trainer behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Listener(Protocol):
    """Is told what a run logs, such as a tracker."""

    def log(self, step: int, values: Mapping[str, Any]) -> None: ...

    def picture(self, step: int, path: Path) -> None: ...

    def close(self) -> None: ...


class RunDirectory:
    """Reads and writes one run directory; see the module docstring for its layout."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.listeners: list[Listener] = []
        if not (self.path / "config.json").is_file():
            raise RunError(
                f"'{self.path}' holds no config.json; create the run before starting it."
            )

    def config(self, cls: type[T]) -> T:
        try:
            values = json.loads((self.path / "config.json").read_text())
        except json.JSONDecodeError as error:
            raise RunError(f"'{self.path / 'config.json'}' is not valid JSON: {error}") from error
        return load_config(cls, values)

    @contextmanager
    def guarded(self, *, leads: bool = True) -> Iterator[None]:
        """Hold the directory for this process alone; a failure leaves a sentence in error.json.

        Of several processes of one training one `leads` and holds the directory for all.
        """
        with (self.path / "lock").open("ab") if leads else nullcontext() as handle:
            if handle is not None:
                self._hold(handle)
            try:
                yield
            except RunError as error:
                self._record(str(error), handle)
                raise
            except Exception as error:
                message = explain(error, place=self.path, resumes=self._resumes())
                self._record(message or f"{type(error).__name__}: {error}", handle)
                if not message:
                    raise
                traceback.print_exc()
                raise RunError(message) from error
            finally:
                while self.listeners:
                    self.listeners.pop().close()

    def _hold(self, handle: BinaryIO) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"Another process is training in '{self.path}'.") from None
        try:
            (self.path / "error.json").unlink(missing_ok=True)
            handle.truncate(0)
            handle.write(bytes(RESERVED_BYTES))
            handle.flush()
        except OSError as error:
            message = explain(error, place=self.path, resumes=self._resumes())
            raise RunError(message or str(error)) from error

    def _record(self, message: str, handle: BinaryIO | None) -> None:
        """Write error.json, unless another process of this training was first."""
        if handle is not None:
            handle.truncate(0)
        elif (self.path / "error.json").exists():
            return
        try:
            write_json(self.path / "error.json", {"message": message})
        except OSError as error:
            print(f"error.json could not be written: {error}", file=sys.stderr)

    def _resumes(self) -> str:
        latest = self.latest_checkpoint()
        return f"from step {latest[0]}" if latest else "from its start"

    def log(self, step: int, **values: Any) -> None:
        with (self.path / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps({"step": step, **values}) + "\n")
        for listener in self.listeners:
            listener.log(step, values)

    def picture(self, step: int, path: Path) -> None:
        """Tell the listeners of a picture that was written."""
        for listener in self.listeners:
            listener.picture(step, path)

    def drop_metrics_after(self, step: int) -> None:
        """Forget metrics of steps after the newest checkpoint: a resumed run repeats them."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                break  # the line that was being written when the process was killed
        temporary = path.with_name(".metrics.jsonl")
        temporary.write_text("".join(kept))
        temporary.replace(path)

    def metrics(self) -> list[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def progress(self, step: int, total: int, message: str = "") -> None:
        write_json(self.path / "progress.json", {"step": step, "total": total, "message": message})

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Complete checkpoints, oldest first."""
        found = [(int(p.name[5:]), p) for p in (self.path / "checkpoints").glob("step-*")]
        return sorted(found)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        found = self.checkpoints()
        return found[-1] if found else None

    def intact_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint whose files are those that were written; None to start afresh.

        RunError when there are checkpoints and none of them is intact.
        """
        found = self.checkpoints()
        for step, path in reversed(found):
            reason = _damage(path)
            if not reason:
                return step, path
            print(f"warning: checkpoint '{path}' is left out: {reason}.", file=sys.stderr)
        if found:
            raise RunError(
                f"No checkpoint in '{self.path / 'checkpoints'}' is intact: {reason}. Restore that "
                "folder from a backup, or delete it to train from the start."
            )
        return None

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary folder, rename it to checkpoints/step-N, keep two.

        A failed attempt leaves the earlier checkpoints, and no part of its own.
        """
        root = self.path / "checkpoints"
        root.mkdir(exist_ok=True)
        final = root / f"step-{step}"
        temporary = root / f".step-{step}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            write(temporary)
            write_json(temporary / CHECKSUMS, _digests(temporary))
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
        except BaseException as error:
            free = shutil.disk_usage(root).free
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, Exception) and free < FULL_BYTES:
                # Libraries say it in many ways, and some say nothing of the disk.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for _, old in self.checkpoints()[:-KEEP_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)
        for stale in root.glob(".step-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return final

    def write(self, name: str, payload: Any) -> None:
        write_json(self.path / name, payload)


def _digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a checkpoint but of the list itself."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != CHECKSUMS:
            with file.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            found[file.relative_to(folder).as_posix()] = digest
    return found


def _damage(folder: Path) -> str:
    """What is wrong with a checkpoint's files, "" for nothing."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return f"its {CHECKSUMS} cannot be read"
    found = _digests(folder)
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} is damaged"
    return ""
