"""Order pictures by a reward model: every picture against every other, in both orders.

Shapes: N pictures of one source, D questions, M members of an ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.uncertainty import Ensemble, each, spread
from modeling.reward.vlm import RewardVLM

PAIRS_PER_BATCH = 32


@dataclass(frozen=True)
class Ranking:
    order: list[int]  # indices from best to worst
    # (N, D) each picture's mean margin over the others, half the difference of both orders, so that
    # the scores of a question sum to zero; mean over the members.
    scores: Tensor
    std: Tensor  # (N, D) of the scores over the members; 0 for a single model
    flipped: Tensor  # (N, D) share of its comparisons whose winner changes with the order


@torch.no_grad()
def rerank(
    judges: RewardVLM | Ensemble,
    views: Tensor,
    queries: list[str],
    context: Tensor | None = None,
    *,
    caution: float = 0.0,
) -> Ranking:
    """Rank (N, 3, H, W) reward views of one source by the rendered queries of its dimensions.

    Args:
        context: (1, 3, H, W) from `reward_context`, for a model whose view shows one; else None.
        caution: order by score - caution * std over an ensemble's members instead of by score.
    """
    count = len(views)
    if count < 2:
        nothing = torch.zeros(count, len(queries))
        return Ranking(list(range(count)), nothing, nothing, nothing)
    scores, flips = [], []
    for vlm in each(judges):
        margins = _compare(vlm, views, queries, context)  # (N, N, D)
        turned = margins.transpose(0, 1)
        scores.append((margins - turned).sum(1) / (2 * (count - 1)))
        flips.append(((margins + turned).abs() > (margins - turned).abs()).float().sum(1))
    by_member = torch.stack(scores)  # (M, N, D)
    mean, std = by_member.mean(0), spread(by_member)
    # One decision for a picture: the members' disagreement about its mean over the questions.
    safe = mean.mean(1) - caution * spread(by_member.mean(2))
    return Ranking(
        order=safe.argsort(descending=True, stable=True).tolist(),
        scores=mean,
        std=std,
        flipped=torch.stack(flips).mean(0) / (count - 1),
    )


def _compare(vlm: RewardVLM, views: Tensor, queries: list[str], context: Tensor | None) -> Tensor:
    """Margins (N, N, D) that picture i, shown first, is better than j; 0 on the diagonal."""
    count = len(views)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    images, before = views.to(vlm.device), tuple[int, ...]()
    if context is not None:
        images, before = torch.cat([images, context.to(images)]), (count,)
    rows = []
    for start in range(0, len(pairs), PAIRS_PER_BATCH):
        part = [(*before, *pair) for pair in pairs[start : start + PAIRS_PER_BATCH]]
        logits = answer_logits(vlm, images, part, [queries] * len(part))
        rows.append(margins_of(vlm, logits).float().cpu())
    margins = torch.zeros(count, count, len(queries))
    for (i, j), margin in zip(pairs, torch.cat(rows), strict=True):
        margins[i, j] = margin
    return margins
