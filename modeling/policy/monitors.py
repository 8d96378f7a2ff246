"""The hacking alarm: what tells a better policy from one that games its reward.

A reward that is differentiated through a VLM can be raised without a better picture: in trials
without an anchor P(Yes) rose while every edit collapsed into a patch pattern. So P(Yes) is never
evidence by itself. At fixed steps the policy is compared with its parent on the same held-out
sources and noise, on signs that a better picture does not show:

    drift        how far the velocity field has moved, relative to its own size
    psnr_drop    dB lost outside the mask, where nothing was to be changed
    ssim_drop    structural similarity lost there
    roughness    high-frequency energy inside the mask, times the parent's
    grid         jumps across token borders against other jumps, times the parent's
    diversity    distance between pictures of several seeds inside the mask, times the parent's
    reward_gap   P(Yes) of the reward model that trains less that of the held-out one
    adapter_norm  how far the trained weights have moved

One past its limit at two checks in a row stops the run.

Shapes: B pictures, K seeds, H, W pixels, masks 1 where the picture is edited.
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


def outside_ssim(images: Tensor, sources: Tensor, masks: Tensor) -> Tensor:
    """Structural similarity (B,) to the source outside the mask, at most 1 (Wang et al. 2004: a
    Gaussian window of 11 pixels, sigma 1.5). The source's own pixels stand under the mask, so that
    an edit does not count in the windows that reach into it; 1 where everything is masked."""
    side = min(11, 2 * ((min(images.shape[-2:]) - 1) // 2) + 1)
    axis = torch.arange(side, dtype=images.dtype, device=images.device) - side // 2
    bell = torch.exp(-axis.square() / (2 * 1.5**2))
    window = (bell[:, None] * bell / bell.sum() ** 2)[None, None]

    def blurred(values: Tensor) -> Tensor:
        channels = values.flatten(0, 1)[:, None]  # (3 B, 1, H, W)
        return F.conv2d(channels, window)[:, 0].unflatten(0, values.shape[:2])

    shown = torch.where(masks > 0.5, sources, images)
    mean, other = blurred(shown), blurred(sources)
    variance = blurred(shown.square()) - mean.square()
    other_variance = blurred(sources.square()) - other.square()
    covariance = blurred(shown * sources) - mean * other
    stable, other_stable = 0.01**2, 0.03**2
    found = (2 * mean * other + stable) * (2 * covariance + other_stable)
    found = found / (mean.square() + other.square() + stable)
    found = found / (variance + other_variance + other_stable)  # (B, 3, H - side + 1, ...)
    edge = side // 2
    inner = masks[..., edge : masks.shape[-2] - edge, edge : masks.shape[-1] - edge]
    keep = (inner <= 0.5).to(found.dtype)
    count = keep.sum((1, 2, 3))
    similarity = (found.mean(1, keepdim=True) * keep).sum((1, 2, 3)) / count.clamp(min=1)
    return torch.where(count > 0, similarity, 1.0)


def diversity(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean distance (B,) of two of K pictures (K, B, 3, H, W), K >= 2, of one source: root mean
    square over the pixels inside the mask."""
    inside = masks.sum((1, 2, 3)).clamp(min=1) * pictures.shape[2]
    pairs = torch.combinations(torch.arange(len(pictures)))  # (K (K - 1) / 2, 2)
    differences = (pictures[pairs[:, 0]] - pictures[pairs[:, 1]]).square() * masks
    return (differences.sum((2, 3, 4)) / inside).sqrt().mean(0)


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
    """The signs of one picture a source, for a batch of the policy's and its parent's pictures, all
    in [0, 1]."""
    kept = outside_psnr(images, sources, masks).mean()
    kept_before = outside_psnr(parents, sources, masks).mean()
    alike = outside_ssim(images, sources, masks).mean()
    alike_before = outside_ssim(parents, sources, masks).mean()
    rough = roughness(images, masks).mean() / roughness(parents, masks).mean().clamp(min=SMALL)
    grid = grid_energy(images, masks, period).median()
    grid_before = grid_energy(parents, masks, period).median()
    return {
        "drift": drift(velocity, parent_velocity),
        "psnr_drop": float(kept_before - kept),
        "ssim_drop": float(alike_before - alike),
        "roughness": float(rough),
        "grid": float(grid / grid_before.clamp(min=SMALL)),
        "outside_psnr": float(kept),
        "outside_ssim": float(alike),
    }


NAMES = {
    "drift": "its velocity field moved by {value:.2f} of its own size (limit {limit:.2f})",
    "psnr_drop": "pixels outside the mask lost {value:.1f} dB (limit {limit:.1f})",
    "ssim_drop": "structure outside the mask lost {value:.3f} of similarity (limit {limit:.3f})",
    "roughness": "texture inside the mask is {value:.1f} times the parent's (limit {limit:.1f})",
    "grid": "steps at token borders are {value:.1f} times the parent's (limit {limit:.1f})",
    "diversity": "pictures of several seeds differ {value:.2f} times as much as the parent's "
    "(at least {limit:.2f})",
    "reward_gap": "the held-out reward model's P(Yes) is lower by {value:.2f} (limit {limit:.2f})",
    "adapter_norm": "its weights moved by {value:.2f} (limit {limit:.2f})",
}


def limits(config: MonitorConfig) -> dict[str, float]:
    """The limit of each sign; a sign that is not measured in a run is passed over."""
    found = {name: float(getattr(config, f"max_{name}")) for name in NAMES if name != "diversity"}
    if not config.max_adapter_norm:
        del found["adapter_norm"]
    return {**found, "diversity": config.min_diversity}


def beyond(signs: dict[str, float], config: MonitorConfig) -> list[str]:
    """Names of the signs that are past their limit; NaN is past every limit."""
    return [
        name
        for name, limit in limits(config).items()
        if name in signs
        and not (signs[name] >= limit if name == "diversity" else signs[name] <= limit)
    ]


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
        past = beyond(signs, self.config)
        self.strikes = {name: self.strikes.get(name, 0) + 1 for name in past}
        tripped = [name for name in past if self.strikes[name] >= STRIKES]
        if not tripped:
            return ""
        limit = limits(self.config)
        reasons = [NAMES[name].format(value=signs[name], limit=limit[name]) for name in tripped]
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
