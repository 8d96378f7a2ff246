"""The best policy of a run: not by the reward that it is trained on, but by the checks.

At each check the EMA, which is what a run gives out, is judged on the held-out sources. A check
counts only while every sign is within its limit. Among those the best has the highest mean margin
over the parent by the held-out reward model, which was trained on other labels; without one by the
training's own reward model, on sources that were not trained on.

    best/step-N/   weights of the best checks, as `roles.save` writes them; kept are the best so far
                   and those that a kept checkpoint knows, so that a killed run goes on exactly
    best.json      {"step", "score", "signs"} of the best so far
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modeling.rundir import RunDirectory

FILE = "best.json"


@dataclass
class Best:
    """The best check so far; step 0 is none."""

    step: int = 0
    score: float | None = None
    signs: dict[str, float] = field(default_factory=dict)

    def improves(self, score: float, past_limits: list[str]) -> bool:
        return not past_limits and (self.score is None or score > self.score)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load_state(self, state: dict[str, Any]) -> None:
        self.step, self.score, self.signs = state["step"], state["score"], dict(state["signs"])


def folder(run: RunDirectory, step: int) -> Path:
    return run.path / "best" / f"step-{step}"


def keep_weights(run: RunDirectory, best: Best, save: Callable[[Path], None]) -> None:
    """Write the weights of the best check, under a temporary name first."""
    final = folder(run, best.step)
    final.parent.mkdir(exist_ok=True)
    temporary = final.with_name(f".{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    save(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    run.write(FILE, best.state())


def forget_others(run: RunDirectory, best: Best) -> None:
    """Remove weights that neither the present state nor a kept checkpoint refers to."""
    known = {best.step}
    for _, checkpoint in run.checkpoints():
        if (checkpoint / FILE).is_file():
            known.add(int(json.loads((checkpoint / FILE).read_text())["step"]))
    for path in (run.path / "best").glob("step-*"):
        if int(path.name.split("-")[1]) not in known:
            shutil.rmtree(path, ignore_errors=True)
