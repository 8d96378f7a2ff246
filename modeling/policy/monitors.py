"""The hacking alarm: what tells a better policy from one that games its reward.

A reward that is differentiated through a VLM can be raised without a better picture: in trials
without an anchor P(Yes) rose while every edit collapsed into a patch pattern. So P(Yes) is never
evidence by itself. At fixed steps the policy is compared with its parent on the same held-out
sources and noise, on signs that a better picture does not show:

    drift       how far the velocity field has moved, relative to its own size
    psnr_drop   dB lost outside the mask, where nothing was to be changed
    roughness   high-frequency energy inside the mask, times the parent's
    grid        jumps across token borders against other jumps, times the parent's

One past its limit at two checks in a row stops the run.

Shapes: B pictures, H, W pixels, masks 1 where the picture is edited.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.policy.config import MonitorConfig

STRIKES = 2
SMALL = 1e-8


def outside_psnr(images: Tensor, sources: Tensor, masks: Tensor) -> Tensor:
    """dB (B,) between a picture and its source where nothing was to be edited; at most 60."""
    keep = (1 - masks).expand_as(images)
    error = ((images - sources).square() * keep).sum((1, 2, 3)) / keep.sum((1, 2, 3)).clamp(min=1)
    return -10 * error.clamp(min=1e-6).log10()


def roughness(images: Tensor, masks: Tensor) -> Tensor:
    """Mean squared Laplacian (B,) inside the mask: noise and adversarial texture raise it."""
    kernel = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    grey = images.mean(1, keepdim=True)
    response = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel[None, None])
    return (response.square() * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3)).clamp(min=1)


def grid_energy(images: Tensor, masks: Tensor, period: int) -> Tensor:
    """Squared jumps across the borders of period x period tokens over all others (B,), inside the
    mask. About 1 for a picture that knows nothing of tokens."""
    border, other = [], []
    for dim in (2, 3):
        length = images.shape[dim]
        jumps = images.diff(dim=dim).square().mean(1, keepdim=True)
        inside = torch.minimum(masks.narrow(dim, 1, length - 1), masks.narrow(dim, 0, length - 1))
        at = (torch.arange(1, length, device=images.device) % period == 0).to(images.dtype)
        at = at.view(1, 1, -1, 1) if dim == 2 else at.view(1, 1, 1, -1)
        border.append(((jumps * inside * at).sum((1, 2, 3)), (inside * at).sum((1, 2, 3))))
        other.append(
            ((jumps * inside * (1 - at)).sum((1, 2, 3)), (inside * (1 - at)).sum((1, 2, 3)))
        )
    return _mean(border) / _mean(other).clamp(min=SMALL)


def _mean(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    total = torch.stack([sums for sums, _ in parts]).sum(0)
    return total / torch.stack([counts for _, counts in parts]).sum(0).clamp(min=1)


def drift(velocity: Tensor, reference: Tensor) -> float:
    """||v - v_ref||^2 / ||v_ref||^2 over a batch."""
    change = (velocity.float() - reference.float()).square().sum()
    return float(change / reference.float().square().sum().clamp(min=SMALL))


def evidence(
    *,
    images: Tensor,
    parents: Tensor,
    sources: Tensor,
    masks: Tensor,
    period: int,
    velocity: Tensor,
    parent_velocity: Tensor,
) -> dict[str, float]:
    """The four signs for a batch of the policy's and its parent's pictures, all in [0, 1]."""
    kept = outside_psnr(images, sources, masks).mean()
    kept_before = outside_psnr(parents, sources, masks).mean()
    rough = roughness(images, masks).mean() / roughness(parents, masks).mean().clamp(min=SMALL)
    grid = grid_energy(images, masks, period).median()
    grid_before = grid_energy(parents, masks, period).median()
    return {
        "drift": drift(velocity, parent_velocity),
        "psnr_drop": float(kept_before - kept),
        "roughness": float(rough),
        "grid": float(grid / grid_before.clamp(min=SMALL)),
        "outside_psnr": float(kept),
    }


NAMES = {
    "drift": "its velocity field moved by {value:.2f} of its own size (limit {limit:.2f})",
    "psnr_drop": "pixels outside the mask lost {value:.1f} dB (limit {limit:.1f})",
    "roughness": "texture inside the mask is {value:.1f} times the parent's (limit {limit:.1f})",
    "grid": "steps at token borders are {value:.1f} times the parent's (limit {limit:.1f})",
}


@dataclass
class Alarm:
    """Counts how many checks in a row passed each limit."""

    config: MonitorConfig
    strikes: dict[str, int] = field(default_factory=dict)
    first_reward: float | None = None

    def check(self, step: int, signs: dict[str, float], reward: float) -> str:
        """The reason to stop, or "". `reward` is the mean P(Yes) against the parent."""
        if self.first_reward is None:
            self.first_reward = reward
        limits = {
            "drift": self.config.max_drift,
            "psnr_drop": self.config.max_psnr_drop,
            "roughness": self.config.max_roughness,
            "grid": self.config.max_grid,
        }
        for name, limit in limits.items():
            passed = not signs[name] <= limit  # NaN passes every limit
            self.strikes[name] = self.strikes.get(name, 0) + 1 if passed else 0
        tripped = [name for name in limits if self.strikes[name] >= STRIKES]
        if not tripped:
            return ""
        reasons = [NAMES[name].format(value=signs[name], limit=limits[name]) for name in tripped]
        return (
            f"Stopped at step {step}: the policy games its reward. P(Yes) against the parent went "
            f"from {self.first_reward:.2f} to {reward:.2f} on held-out sources, while "
            f"{' and '.join(reasons)}. Raise anchor_weight or lower lr, and look at samples/."
        )

    def state(self) -> dict[str, object]:
        return {"strikes": dict(self.strikes), "first_reward": self.first_reward}

    def load_state(self, state: dict[str, object]) -> None:
        strikes, first = state["strikes"], state["first_reward"]
        assert isinstance(strikes, dict)
        self.strikes = {str(name): int(count) for name, count in strikes.items()}
        self.first_reward = None if first is None else float(str(first))
