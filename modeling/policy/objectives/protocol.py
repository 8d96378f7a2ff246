"""An objective: what one step of the policy loop computes.

The loop (modeling/policy/train.py) owns what all methods share: accelerate, optimiser, learning
rate, clipping, EMA, monitors, checkpoints and logs. An objective draws a step's material and turns
parts of it into gradients. Everything random of a step is drawn in `prepare` from the generator
that the loop seeds by (seed, step): every process draws for all of them and keeps its own part, so
that neither micro-batches nor processes change anything, and a step can be repeated.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from modeling.policy.adapters import Roles
from modeling.policy.config import PolicyConfig
from modeling.policy.pairs import Pair
from modeling.policy.processes import Processes
from modeling.policy.rollouts import Sampler
from modeling.policy.sources import Sources
from modeling.reward.vlm import RewardVLM


@dataclass(frozen=True)
class Parts:
    """What an objective works with, built once."""

    config: PolicyConfig
    directory: Path  # of the run
    processes: Processes
    vlm: RewardVLM
    roles: Roles
    sampler: Sampler
    sources: Sources
    pairs: dict[str, list[Pair]]  # of each source, where the objective learns from labels


class Material(Protocol):
    """A step's samples and all that was drawn for them; a slice of it is a micro-batch."""

    @property
    def figures(self) -> Mapping[str, float]:
        """What to log of the whole step."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> Self: ...


@dataclass(frozen=True)
class Outcome:
    """What the step's log keeps of a micro-batch."""

    loss: float
    figures: dict[str, float]  # means over the samples
    # Of each sample its task and its margin per dimension, where a reward model was asked.
    margins: list[tuple[str, dict[str, float]]] = field(default_factory=list)


M = TypeVar("M", bound=Material)


class Objective(Protocol[M]):
    headline: tuple[str, str]  # label and key of the figure that the progress line shows

    def prepare(self, step: int, rng: np.random.Generator) -> M:
        """Draw the step's material and return this process's part of it; no gradient is needed
        here."""

    def forward_backward(self, material: M, share: float) -> Outcome:
        """Add to the policy's gradients `share` times that of the material's mean loss; `share` is
        the material's of the batch of all processes."""

    def state(self) -> dict[str, Any]:
        """What must survive a kill, in types that `torch.load(weights_only=True)` reads."""

    def load_state(self, state: dict[str, Any]) -> None: ...


class Stateless:
    """An objective whose steps depend on the weights, the step and the run directory alone."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def step_rng(config: PolicyConfig, step: int) -> np.random.Generator:
    """What a step draws from, the same on every process."""
    return np.random.default_rng([config.seed, step, 0])


class Tally:
    """Means of a step over its micro-batches, and per task and dimension."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Outcome, float]] = []

    def add(self, outcome: Outcome, share: float) -> None:
        self.outcomes.append((outcome, share))

    def values(self, cap: float) -> dict[str, Any]:
        values: dict[str, Any] = {"loss": sum(found.loss * share for found, share in self.outcomes)}
        for name in self.outcomes[0][0].figures:
            values[name] = sum(found.figures[name] * share for found, share in self.outcomes)
        cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for outcome, _ in self.outcomes:
            for task, row in outcome.margins:
                for name, margin in row.items():
                    cells[task][name].append(margin)
        every = [margin for task in cells.values() for row in task.values() for margin in row]
        if every:
            values |= _cell(every, cap)
            values["tasks"] = {
                task: {name: _cell(row, cap) for name, row in sorted(rows.items())}
                for task, rows in sorted(cells.items())
            }
        return values


def _cell(margins: list[float], cap: float) -> dict[str, Any]:
    count = len(margins)
    rewards = [1 / (1 + math.exp(-max(-60.0, margin))) for margin in margins]
    return {
        "reward": sum(rewards) / count,
        "margin": sum(margins) / count,
        "clipped": sum(reward >= cap for reward in rewards) / count,
        "n": count,
    }
