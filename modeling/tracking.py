"""Experiment trackers: TensorBoard always, and others by name, through accelerate's own classes.

metrics.jsonl and samples/ are the record of a run; trackers show it. TensorBoard's files are
written anew from that record whenever a run goes on, so that no step appears twice. A hosted
tracker cannot be rewritten: trackers.json keeps its run's id and the newest step that it was sent,
and a step that a resumed run repeats is not sent again (it would be the same numbers).

A tracker that fails is left out with a warning: no training ends because a website is down.
Trackio is sent numbers only.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image

from modeling.rundir import RunDirectory, RunError, write_json

TENSORBOARD = "tensorboard"
STATE = "trackers.json"


def check(names: Sequence[str]) -> None:
    """Raise RunError for a tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RunError(
                f"trackers names '{name}', which is not installed here. Install it "
                f"(pip install {name}) or leave it out."
            )


def attach(run: RunDirectory, *, names: Sequence[str], project: str, config: Any) -> None:
    """Show `run` in TensorBoard and in the trackers `names`, from what it has logged so far on."""
    shutil.rmtree(run.path / TENSORBOARD, ignore_errors=True)
    settings = {key: str(value) for key, value in flatten(config)}
    shown = [_Tracker(run, name, project, settings) for name in (TENSORBOARD, *names)]
    grids = {int(path.stem.split("-")[1]): path for path in run.path.glob("samples/step-*.png")}
    newest = 0
    for row in run.metrics():
        values = dict(row)
        newest = values.pop("step")
        for tracker in shown:
            tracker.log(newest, values)
    for step, path in sorted(grids.items()):
        if step <= newest:
            for tracker in shown:
                tracker.picture(step, path)
    run.listeners += shown


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as `outer/inner` names; empty values are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        elif value is not None:
            yield f"{prefix}{key}", value


class _Tracker:
    """One of accelerate's trackers on one run; a listener of its RunDirectory."""

    def __init__(
        self, run: RunDirectory, name: str, project: str, settings: Mapping[str, str]
    ) -> None:
        self.name, self.place = name, run.path / STATE
        self.state = self._states().get(name, {"id": "", "step": -1})
        # What was sent before; steps of this process may be logged in several parts.
        self.sent = int(self.state["step"])
        self.tracker: Any = None
        self._guard(self._start, run, project, dict(settings))

    def _start(self, run: RunDirectory, project: str, settings: dict[str, str]) -> None:
        make: Any = LOGGER_TYPE_TO_CLASS[self.name]
        known = str(self.state["id"])
        if self.name == TENSORBOARD:
            self.tracker = make("", str(run.path / TENSORBOARD))
        elif self.name == "mlflow":
            self.tracker = make(
                project, **({"run_id": known} if known else {}), run_name=_name(run)
            )
        else:
            known = known or _name(run)
            once = {"id": known, "dir": str(run.path)} if self.name == "wandb" else {}
            self.tracker = make(project, name=_name(run), resume="allow", **once)
        self.tracker.start()
        if self.name == TENSORBOARD:
            text = "\n".join(f"    {key}: {value}" for key, value in settings.items())
            self.tracker.log({"config": text}, step=0)
            return
        if self.name == "mlflow":
            known = self.tracker.active_run.info.run_id
        if known != self.state["id"]:
            self.state["id"] = known
            self.tracker.store_init_configuration(settings)
            self._keep()

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        if self.tracker is None or step <= self.sent:
            return
        numbers = {
            key: float(value)
            for key, value in flatten(values)
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._guard(self.tracker.log, numbers, step=step)
        if self.name != TENSORBOARD and step > self.state["step"]:
            self.state["step"] = step
            self._guard(self._keep)

    def picture(self, step: int, path: Path) -> None:
        if self.tracker is None or step <= self.sent:
            return
        if hasattr(self.tracker, "log_images"):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))[None]  # (1, H, W, 3)
            options = {"dataformats": "NHWC"} if self.name == TENSORBOARD else {}
            self._guard(self.tracker.log_images, {"samples": pixels}, step=step, **options)
        elif hasattr(self.tracker, "log_artifact"):
            self._guard(self.tracker.log_artifact, str(path), "samples")

    def close(self) -> None:
        if self.tracker is not None:
            self._guard(self.tracker.finish)
            self.tracker = None

    def _guard(self, call: Any, *values: Any, **options: Any) -> None:
        try:
            call(*values, **options)
        except Exception as error:
            self.tracker = None
            print(f"warning: {self.name} is left out from here on: {error}", file=sys.stderr)

    def _states(self) -> dict[str, Any]:
        try:
            found = json.loads(self.place.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _keep(self) -> None:
        write_json(self.place, {**self._states(), self.name: self.state})


def _name(run: RunDirectory) -> str:
    return run.path.resolve().name
