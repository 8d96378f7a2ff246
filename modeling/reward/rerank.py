"""Order pictures by a reward model: every picture against every other, in both orders."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.vlm import RewardVLM

PAIRS_PER_BATCH = 32


@torch.no_grad()
def rerank(
    vlm: RewardVLM, views: Tensor, queries: list[str], context: Tensor | None = None
) -> tuple[list[int], Tensor]:
    """Rank (N, 3, H, W) reward views of one source by the rendered queries of its dimensions.

    Args:
        context: (1, 3, H, W) from `reward_context`, for a model whose view shows one; else None.

    Returns:
        the indices from best to worst, and scores (N, D): each picture's mean margin over the
        others, half the difference of both orders, so that the scores of a question sum to zero.
    """
    count = len(views)
    if count < 2:
        return list(range(count)), torch.zeros(count, len(queries))
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
    scores = (margins - margins.transpose(0, 1)).sum(1) / (2 * (count - 1))  # (N, D)
    return scores.mean(1).argsort(descending=True, stable=True).tolist(), scores
