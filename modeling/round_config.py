"""What can be chosen about a round; everything has a default that suits the starter project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from modeling.evaluation import Sampling
from modeling.gates import PROMPT_SWAP
from modeling.models import Round


@dataclass(frozen=True)
class RoundConfig:
    """The configuration of one round, stored with its row."""

    # Make sets and have them labelled; without, the labels of earlier campaigns are learnt from.
    collect: bool = True
    # Candidate sets a task to label, from training pictures.
    sets_per_task: int = 100
    # The same from held-out pictures, for the reward model's figures; -1 is 0.6 of sets_per_task.
    holdout_sets_per_task: int = -1
    # Held-out sources a task on which the new policy is compared with its parent.
    evaluation_sources_per_task: int = 60
    # Noise of the evaluation; kept over rounds, so that filmstrips show one picture get better.
    evaluation_seed: int = 0
    # How evaluation pictures are sampled.
    sampling: Sampling = field(default_factory=Sampling)
    # Labels with a best and a worst on training pictures that training needs.
    min_judgments: int = 20
    # Share of slips of simulated annotators.
    noise: float = 0.05
    # Also learn from the labels of earlier campaigns.
    earlier_labels: bool = False
    # Below this share of right answers to the prompt-swap test the reward gate stays shut.
    prompt_swap_threshold: float = PROMPT_SWAP
    # Go on after a gate that did not open, to see the figures; nothing is promoted then.
    keep_going: bool = False
    # Let the new models make the next round's candidates when all gates opened.
    promote: bool = True
    # Ask a person before that.
    approval: bool = False
    # Settings of modeling.reward.train and modeling.policy.train that differ from their defaults.
    reward: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low in (
            ("sets_per_task", 1),
            ("holdout_sets_per_task", -1),
            ("evaluation_sources_per_task", 1),
            ("evaluation_seed", 0),
            ("min_judgments", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} must be a whole number from {low} on, not {value!r}")
        for name in ("noise", "prompt_swap_threshold"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {value!r}")
        for name in ("collect", "earlier_labels", "keep_going", "promote", "approval"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        for name in ("reward", "policy"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be an object of settings")

    @property
    def holdout_sets(self) -> int:
        if self.holdout_sets_per_task >= 0:
            return self.holdout_sets_per_task
        return max(1, round(0.6 * self.sets_per_task))


# A person labels fewer sets than a program, and all of a person's labels are worth learning from.
HUMAN = {"sets_per_task": 8, "earlier_labels": True}


def complete(values: Mapping[str, Any], annotators: str) -> dict[str, Any]:
    """The whole configuration as JSON; rundir.RunError names a key or value that is wrong."""
    from modeling.rundir import load_config

    defaults = HUMAN if annotators == Round.Annotators.HUMAN else {}
    return asdict(load_config(RoundConfig, {**defaults, **values}))


def read(round_: Round) -> RoundConfig:
    from modeling.rundir import load_config

    return load_config(RoundConfig, round_.config)
