"""What can be chosen about a round; everything has a default that suits the starter project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from modeling import reward_gap
from modeling.evaluation import Sampling
from modeling.gates import PROMPT_SWAP, PSNR_LOSS
from modeling.models import Round


@dataclass(frozen=True)
class RoundConfig:
    """The configuration of one round, stored with its row."""

    # Make sets and have them labelled; without, the labels of earlier campaigns are learnt from.
    collect: bool = True
    # Draw more often what earlier labels said most about; see modeling.sampling.
    adapt_plans: bool = False
    # Shares of the candidates that other policies make, by name; the round's makes the rest.
    other_policies: dict[str, float] = field(default_factory=dict)
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
    # What production says of training pictures, weighed so much beside a person's answer; 0: not.
    feedback_weight: float = 0.0
    # Below this share of right answers to the prompt-swap test the reward gate stays shut.
    prompt_swap_threshold: float = PROMPT_SWAP
    # The reward gate looks at this many of the newest labels that no model learnt from; 0: none.
    newest_labels: int = 200
    # It stays shut when the new model's accuracy on them lies clearly below this.
    newest_accuracy: float = 0.0
    # Train the policy by the last reward model where the new one is not better; without, the round
    # ends there. It always ends where the newest labels contradict the last model.
    keep_last_reward: bool = True
    # Name of a reward model that compares the policies; "" is the one that the round started from.
    held_out_reward: str = ""
    # Outside the mask the new policy may lose this many dB against its parent.
    psnr_loss: float = PSNR_LOSS
    # Pairs of pictures that people compare blind before the promotion; 0: none.
    human_comparisons: int = 0
    # How many people see each of them.
    human_overlap: int = 1
    # The new policy's share of wins (ties count half) that the check asks for, and how: its 95 %
    # interval must not lie below ("not_worse") or must lie above ("better").
    human_share: float = 0.5
    human_rule: str = "not_worse"
    # The check stays shut when the reward model that trained the policy sees it win more often than
    # people do, clearly by more than this share.
    max_reward_gap: float = reward_gap.LIMIT
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
            ("newest_labels", 0),
            ("human_comparisons", 0),
            ("human_overlap", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} must be a whole number from {low} on, not {value!r}")
        for name in (
            "noise",
            "prompt_swap_threshold",
            "newest_accuracy",
            "human_share",
            "max_reward_gap",
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {value!r}")
        for name in (
            "collect",
            "adapt_plans",
            "earlier_labels",
            "keep_last_reward",
            "keep_going",
            "promote",
            "approval",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        weight = self.feedback_weight
        if not isinstance(weight, int | float) or not 0 <= weight <= 10:
            raise ValueError(f"feedback_weight must lie between 0 and 10, not {weight!r}")
        if self.human_rule not in ("not_worse", "better"):
            raise ValueError(f"human_rule must be 'not_worse' or 'better', not {self.human_rule!r}")
        if not isinstance(self.psnr_loss, int | float) or self.psnr_loss < 0:
            raise ValueError(f"psnr_loss must be 0 or more decibels, not {self.psnr_loss!r}")
        shares = self.other_policies
        if not isinstance(shares, dict) or not all(
            isinstance(share, int | float) and share > 0 for share in shares.values()
        ):
            raise ValueError("other_policies must give each policy's name a share above 0")
        if sum(shares.values()) >= 1:
            raise ValueError("other_policies must leave a share for the round's own policy")
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
