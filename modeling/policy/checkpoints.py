"""What a killed policy training goes on from; the rest follows from (seed, step)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from modeling import tracking
from modeling.policy import best
from modeling.policy.trainer import Trainer


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    save_file(trainer.roles.state(), path / "roles.safetensors")
    torch.save(trainer.optimizer.state_dict(), path / "optimizer.pt")
    torch.save(trainer.objective.state(), path / "objective.pt")
    (path / "alarm.json").write_text(json.dumps(trainer.watch.alarm.state()))
    (path / best.FILE).write_text(json.dumps(trainer.watch.best.state()))


def resume(trainer: Trainer) -> int:
    """Load the newest intact checkpoint; the step that it ends."""
    found = trainer.run.intact_checkpoint()
    step = 0
    if found is not None:
        step, path = found
        trainer.roles.load_state(load_file(path / "roles.safetensors"))
        trainer.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
        trainer.objective.load_state(torch.load(path / "objective.pt", weights_only=True))
        trainer.watch.alarm.load_state(json.loads((path / "alarm.json").read_text()))
        trainer.watch.best.load_state(json.loads((path / best.FILE).read_text()))
    if trainer.processes.is_main:
        trainer.run.drop_metrics_after(step)
        tracking.attach(
            trainer.run,
            names=trainer.config.trackers,
            project=trainer.config.tracker_project,
            config=dataclasses.asdict(trainer.config),
        )
        trainer.run.progress(step, trainer.config.steps, "resumed" if step else "started")
    return step
