"""The loss of one batch and what it says about its answers.

With P over the two answers alone, P(Yes) = sigmoid(m) for the margin m = logit(Yes) - logit(No):
the loss is that of Bradley and Terry (1952) on the margin, -log sigmoid(m) where the first picture
is the better one. Nothing else of the vocabulary's distribution enters.

"No difference" makes it the model of Davidson (1970, JASA 65), whose strength nu > 0 says how
readily people find none:

    P(first) : P(second) : P(tie) = exp(m / 2) : exp(-m / 2) : nu

At nu = 0 it is Bradley and Terry's again, and a tie pulls the margin towards 0 with the gradient of
half an answer for either side. Rao and Kupper's (1967) model of a threshold fits such data as well;
its tie is a difference of two sigmoids, which loses digits at large margins.

Shapes: B shown orders (2i and 2i + 1 show one pair, or i shows pair i), D questions, V vocabulary.
"""

from __future__ import annotations

import torch
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


def davidson_loss(
    logits: Tensor,
    yes: int,
    no: int,
    target: Tensor,
    weight: Tensor,
    tie: Tensor,
    judged: Tensor,
    log_strength: Tensor,
) -> Tensor:
    """`answer_loss` where "no difference" is an answer, too.

    Args:
        logits, target, weight: as of `answer_loss`; target is a share of the decided answers.
        tie: (B, D), the share of all answers that found no difference.
        judged: (B, D), False for questions that nobody was asked: they have two answers.
        log_strength: (1,), log nu.
    """
    logp = logits[..., [yes, no]].float().log_softmax(-1)
    half = (logp[..., 0] - logp[..., 1]) / 2
    three = stack([half, -half, log_strength.float().expand_as(half)], -1).log_softmax(-1)
    decided = target * three[..., 0] + (1 - target) * three[..., 1]
    open_answer = (1 - tie) * decided + tie * three[..., 2]
    closed_answer = target * logp[..., 0] + (1 - target) * logp[..., 1]
    return -(weight * torch.where(judged, open_answer, closed_answer)).sum()


def strength_of(share: float) -> float:
    """nu at which equal pictures are called equal with this probability: share = nu / (2 + nu)."""
    return 2 * share / (1 - share)


def batch_accuracy(margins: Tensor, target: Tensor, weight: Tensor, *, both: bool = True) -> Tensor:
    """Right answers, from the mean of both orders where both are shown, and their number: (2,)."""
    if both:
        margins = (margins[0::2] - margins[1::2]) / 2  # (pairs, D)
        target, weight = target[0::2], weight[0::2]
    asked = (weight > 0) & (target != 0.5)
    right = (margins > 0) == (target > 0.5)
    return stack([(right & asked).sum(), asked.sum()]).float()
