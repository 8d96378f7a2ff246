"""What a killed policy training goes on from; the rest follows from (seed, step)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from modeling import tracking
from modeling.policy import best, sharding
from modeling.policy.trainer import Trainer


def gather(trainer: Trainer) -> dict[str, Any]:
    """Weights and moments, whole; every process takes part, the main one keeps them."""
    state = {"roles": trainer.roles.state(), "optimizer": trainer.optimizer.state_dict()}
    found: dict[str, Any] = sharding.whole(state, keep=trainer.processes.is_main)
    return found


def save_checkpoint(trainer: Trainer, path: Path, state: dict[str, Any]) -> None:
    """Write what `gather` gave, and the rest."""
    save_file(state["roles"], path / "roles.safetensors")
    torch.save(state["optimizer"], path / "optimizer.pt")
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
        moments = torch.load(path / "optimizer.pt", weights_only=True, mmap=True)
        sharding.load_optimizer_state(trainer.optimizer, moments)
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
