"""The loss of one batch and what it says about its answers.

Shapes: B shown orders (order 2i and 2i + 1 show one pair), D questions, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, stack


def answer_loss(logits: Tensor, yes: int, no: int, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of -[target log P(Yes) + (1 - target) log P(No)], P over these two answers.

    Args:
        logits: (B, D, V) of the answer's token.
        target: (B, D), the share of annotators for whom the first picture is the better one.
        weight: (B, D), half of each question's weight for each of its two orders.
    """
    logp = logits[..., [yes, no]].float().log_softmax(-1)  # (B, D, 2)
    return -(weight * (target * logp[..., 0] + (1 - target) * logp[..., 1])).sum()


def batch_accuracy(margins: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Right answers from the mean of both orders, and how many there are: (2,)."""
    averaged = (margins[0::2] - margins[1::2]) / 2  # (pairs, D)
    asked = weight[0::2] > 0
    right = (averaged > 0) == (target[0::2] > 0.5)
    return stack([(right & asked).sum(), asked.sum()]).float()
