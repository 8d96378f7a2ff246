"""The objective that `algorithm` names in the configuration."""

from typing import Any

from modeling.policy.objectives.labelled import SFT, DiffusionDPO
from modeling.policy.objectives.nft import DiffusionNFT
from modeling.policy.objectives.onereward import OneReward
from modeling.policy.objectives.protocol import Objective, Parts


def build(parts: Parts) -> Objective[Any]:
    """The configured objective; RunError where a program or a file that it needs is missing."""
    match parts.config.algorithm:
        case "frozen":
            return OneReward(parts, moving=False)
        case "dynamic":
            return OneReward(parts, moving=True)
        case "refl":
            return OneReward(parts, moving=False, scalar=True)
        case "diffusion_dpo":
            return DiffusionDPO(parts)
        case "sft":
            return SFT(parts)
        case "diffusion_nft":
            return DiffusionNFT(parts)
    raise ValueError(f"Unknown algorithm {parts.config.algorithm!r}.")
