"""The run directory: the only interface between a training process and the rest of the platform.

    config.json          in: one frozen dataclass, unknown keys are an error
    metrics.jsonl        out: one JSON object a line, key "step"
    progress.json        out: {"step", "total", "message"}
    checkpoints/step-N/  out: written under a temporary name and renamed; the newest two are kept
    samples/             out: pictures
    card.json            out: base, snapshot hash, code version, config, metrics, parent
    result.json          out: final figures
    error.json           out: {"message": one readable sentence} when the run failed

A process that is killed at any moment and started again with the same directory goes on from its
newest checkpoint; metrics logged after that checkpoint are dropped first, so that no step appears
twice.
"""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
KEEP_CHECKPOINTS = 2


class RunError(Exception):
    """A failure with one readable sentence for the person who started the run."""


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
    temporary.write_text(json.dumps(payload, indent=1, default=str))
    temporary.replace(path)


def die_with_parent() -> None:
    """Ask Linux to end this process with its parent: a killed worker leaves no trainer behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def rng_state() -> dict[str, Any]:
    """Every global random state, in types that `torch.load(weights_only=True)` reads."""
    import torch

    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "python": json.dumps(random.getstate()),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    import torch

    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class RunDirectory:
    """Reads and writes one run directory; see the module docstring for its layout."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
    def guarded(self) -> Iterator[None]:
        """Hold the directory for this process alone; a failure leaves a sentence in error.json."""
        with (self.path / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"Another process is training in '{self.path}'.") from None
            (self.path / "error.json").unlink(missing_ok=True)
            try:
                yield
            except RunError as error:
                write_json(self.path / "error.json", {"message": str(error)})
                raise
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                write_json(self.path / "error.json", {"message": message})
                raise

    def log(self, step: int, **values: Any) -> None:
        with (self.path / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps({"step": step, **values}) + "\n")

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

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary folder, rename it to checkpoints/step-N, keep two."""
        root = self.path / "checkpoints"
        root.mkdir(exist_ok=True)
        final = root / f"step-{step}"
        temporary = root / f".step-{step}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for _, old in self.checkpoints()[:-KEEP_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)
        for stale in root.glob(".step-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return final

    def write(self, name: str, payload: Any) -> None:
        write_json(self.path / name, payload)
