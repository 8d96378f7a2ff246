"""A training's directory, where machines share an object store and no disk.

At its start a run publishes what it reads; while it trains, its newest checkpoints and figures; at
its end, the weights. Whoever goes on after a lost machine fetches the newest of it, and pages read
the figures from the store. Where media lie in a folder, none of this does anything.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.files.storage import default_storage

from generation import shared
from modeling.models import TrainingRun
from modeling.rundir import KEEP_CHECKPOINTS

log = logging.getLogger(__name__)
FIGURES = (
    "metrics.jsonl",
    "before.json",
    "holdout_before.jsonl",
    "holdout.jsonl",
    "card.json",
    "error.json",
    "result.json",
)
OUTPUTS = ("adapter", "model", "transformer")
KEEP_SECONDS = 15.0


def on_this_machine(run: TrainingRun) -> Path:
    """The run's directory, ready to be trained in; what is missing of it is fetched."""
    directory = Path(shared.local(run.directory))
    if not run.directory.startswith(shared.SCHEME):
        return directory
    if run.snapshot is not None:
        shared.local(run.snapshot.directory)
    (directory / "config.json").write_text(json.dumps(_local(run.config), indent=1))
    published = _steps(run)
    here = [int(path.name[5:]) for path in directory.glob("checkpoints/step-*")]
    if published and max(published) > max(here, default=-1):
        for step in published[-KEEP_CHECKPOINTS:]:
            shared.local(f"{run.directory}/checkpoints/step-{step}")
        _take(run, directory, FIGURES[:3])  # what it had logged; later steps are dropped
    if shared.file_of(run.directory, "result.json") and not (directory / "result.json").exists():
        for name in OUTPUTS:
            if shared.exists(f"{run.directory}/{name}"):
                shared.local(f"{run.directory}/{name}")
        _take(run, directory, FIGURES)
    return directory


def _local(values: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration with the paths of this machine."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[key] = shared.local_spec(value) if key == "policy" else _local(value)
        else:
            found[key] = shared.local(value) if isinstance(value, str) else value
    return found


def _take(run: TrainingRun, directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (copy := shared.file_of(run.directory, name)) is not None:
            shutil.copyfile(copy, directory / name)


def _steps(run: TrainingRun) -> list[int]:
    """Published checkpoints, oldest first."""
    key = f"{shared.PREFIX}/{run.directory.removeprefix(shared.SCHEME)}/checkpoints"
    folders, _files = default_storage.listdir(key)
    names = [f"{run.directory}/checkpoints/{name}" for name in folders]
    return sorted(int(name.rpartition("-")[2]) for name in names if shared.exists(name))


def has_checkpoint(run: TrainingRun) -> bool:
    if any(shared.place(run.directory).glob("checkpoints/step-*")):
        return True
    return run.directory.startswith(shared.SCHEME) and bool(_steps(run))


class Keeper:
    """Publishes a running training's newest state, now and then; call it often."""

    def __init__(self, run: TrainingRun, directory: Path) -> None:
        self.run, self.directory = run, directory
        self.kept: list[int] = []
        self.next_at = 0.0

    def __call__(self, *, now: bool = False) -> None:
        if not self.run.directory.startswith(shared.SCHEME):
            return
        if not now and time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + KEEP_SECONDS
        try:
            self._keep()
        except OSError as error:
            # The training goes on; the next attempt publishes what is newest then.
            log.warning("%s could not be published: %s", self.run, error)

    def _keep(self) -> None:
        steps = sorted(int(one.name[5:]) for one in self.directory.glob("checkpoints/step-*"))
        new = [step for step in steps if step not in self.kept]
        for step in new:
            shared.publish(self.directory / "checkpoints" / f"step-{step}")
            self.kept.append(step)
        # The figures come after the checkpoint that they lead to: none of its steps is missing.
        shared.put_files(self.run.directory, self.directory, FIGURES)
        for step in self.kept[:-KEEP_CHECKPOINTS] if new else []:
            shared.withdraw(f"{self.run.directory}/checkpoints/step-{step}")
            self.kept.remove(step)
