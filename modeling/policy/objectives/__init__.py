"""The objectives of the policy loop, by the name that `algorithm` has in the configuration."""

from typing import Any

from modeling.policy.objectives.onereward import OneReward
from modeling.policy.objectives.protocol import Objective, Outcome, Parts, Tally

__all__ = ["Objective", "Outcome", "Parts", "Tally", "build"]


def build(parts: Parts) -> Objective[Any]:
    """The configured objective; RunError where the run directory lacks what it learns from."""
    match parts.config.algorithm:
        case "frozen":
            return OneReward(parts, moving=False)
        case "dynamic":
            return OneReward(parts, moving=True)
        case "refl":
            return OneReward(parts, moving=False, scalar=True)
    raise ValueError(f"Unknown algorithm {parts.config.algorithm!r}.")
