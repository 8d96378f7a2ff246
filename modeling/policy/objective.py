"""The losses of multi-task ReFL as pure functions.

OneReward (arXiv 2508.21066), Algorithms 1 and 2: with r = P(Yes | x_policy, x_reference, q) the
policy *descends* on max(0, lambda - r), averaged over the task's dimensions. (The paper's
pseudo-code ascends on it, which would minimise the reward.)

Deliberate changes: the hinge may act on the logit margin, which does not saturate; both orders of
a pair are asked; an anchor holds the velocity field to the frozen policy's.

Shapes: B samples, D dimensions (rows of shorter tasks are padded), S tokens, C channels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def toward_policy(margins: Tensor, policy_first: Tensor) -> Tensor:
    """Margins (B, D) that the *policy's* image is better, from margins that the first one is.

    policy_first (B,) says where the policy's image stood first; where it stood second the margin
    changes its sign, since P(No | reference, policy) then counts for the policy.
    """
    sign = torch.where(policy_first, 1.0, -1.0).to(margins.dtype)
    return margins * sign[:, None]


def capped_hinge(margins: Tensor, cap: float, form: str) -> Tensor:
    """Loss per question, 0 from the cap on.

    "probability": max(0, cap - sigmoid(m)), the paper's. "margin": max(0, logit(cap) - m), which
    reaches 0 at the same point and keeps its slope where P(Yes) is close to 0. "squared": half the
    square of that, which spends the gradient on what is clearly worse than the reference.
    """
    if form == "probability":
        return F.relu(cap - margins.sigmoid())
    if form == "margin":
        return F.relu(math.log(cap / (1 - cap)) - margins)
    if form == "squared":
        return 0.5 * F.relu(math.log(cap / (1 - cap)) - margins).square()
    raise ValueError(f"Unknown reward form {form!r}: use 'margin', 'squared' or 'probability'.")


def mean_over_dimensions(values: Tensor, present: Tensor) -> Tensor:
    """(B, D) -> (B,): each sample's mean over its own task's dimensions (1 / |E_s|)."""
    weights = present.to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def reward_loss(
    margins: Tensor, present: Tensor, *, cap: float, form: str, scalar: bool = False
) -> Tensor:
    """The mean loss, (), of margins (orders, B, D) of which `present` (B, D) exist.

    OneReward: a capped hinge for every dimension, then its mean over the task's dimensions.
    scalar: one hinge on the mean margin, which is ReFL with one score: a dimension beyond the cap
    pays for one below it.
    """
    if scalar:
        mean = mean_over_dimensions(margins.mean(0), present)  # (B,)
        return capped_hinge(mean, cap, form).mean()
    hinge = capped_hinge(margins, cap, form).mean(0)  # (B, D)
    return mean_over_dimensions(hinge, present).mean()


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """Forward: value. Backward: as if it were the carrier.

    The reward model is trained on finished samples, not on one-step endpoints: it scores the
    finished sample here, and the gradient flows through the endpoint.
    """
    return value.detach() + (carrier - carrier.detach())


def anchor_loss(velocity: Tensor, anchor: Tensor) -> Tensor:
    """Squared distance (B,) of two velocity fields (B, S, C) at the same latents and time."""
    return (velocity.float() - anchor.float()).square().mean(dim=(1, 2))


def tone_loss(velocity: Tensor, anchor: Tensor, inside: Tensor) -> Tensor:
    """Squared distance (B,) of the two fields' means over the tokens under the mask (B, S).

    A reward model hardly sees a shift of tone of two or three levels, people see it as a seam. Such
    a shift is small in `anchor_loss`, whose mean it is: here it counts alone.
    """
    share = inside / inside.sum(1, keepdim=True).clamp(min=1)  # (B, S)
    moved = ((velocity.float() - anchor.float()) * share[..., None]).sum(1)  # (B, C)
    return moved.square().mean(1)


def task_probabilities(weights: Mapping[str, float]) -> dict[str, float]:
    """p_s of each task, in the tasks' alphabetic order."""
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError(f"Task weights must be 0 or more and not all 0, got {dict(weights)}.")
    return {task: weights[task] / total for task in sorted(weights)}


def source_chances(tasks: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Each source's chance, given its task: p_s shared equally by the task's sources, so that their
    number does not change the task's share."""
    chances, counts = task_probabilities(weights), Counter(tasks)
    return [chances[task] / counts[task] for task in tasks]
