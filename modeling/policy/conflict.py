"""Conflicts between the dimensions' gradients at a picture's pixels.

One picture is pulled by every dimension of its task, and what one dimension gains another may lose.
The pulls meet at the pixels: D small tensors from one forward of the reward model, before they
become one gradient of many weights. There they can be compared and combined:

    mean        their mean, the loss's own gradient
    normalised  every dimension pulls with the same strength, the mean of their norms
    pcgrad      a dimension's component against another one is projected out before the mean
                (Yu et al. 2020, Gradient Surgery for Multi-Task Learning, arXiv 2001.06782)

All three are weighted sums of the gradients, so only their Gram matrix is worked on.

Shapes: B samples, D dimensions, C, H, W of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modeling.policy.config import COMBINATIONS

SMALL = 1e-20  # a squared norm below it is none: the hinge is at its cap there


def dimension_gradients(losses: Tensor, pixels: Tensor) -> Tensor:
    """dL_bd/dpixels_b (B, D, C, H, W) of losses (B, D), where sample b's losses depend on picture b
    (B, C, H, W) alone. D backward passes over one graph, which the last of them frees."""
    last = losses.shape[1] - 1
    found = [
        torch.autograd.grad(losses[:, number].sum(), pixels, retain_graph=number < last)[0]
        for number in range(last + 1)
    ]
    return torch.stack(found, 1)


def combine(
    gradients: Tensor, present: Tensor, how: str, seeds: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """One gradient (B, C, H, W) of several (B, D, C, H, W), and how many pairs were compared and
    how many of them conflict (2,).

    present (B, D) says which dimensions a sample's task has; a sample's mean is over these. PCGrad
    takes the others in an order drawn from each sample's own seed.
    """
    flat = gradients.flatten(2).double() * present[..., None]
    gram = (flat @ flat.transpose(1, 2)).cpu()  # (B, D, D)
    pulls = gram.diagonal(dim1=1, dim2=2) > SMALL  # (B, D)
    counts = present.sum(1).clamp(min=1).cpu()[:, None].double()
    weights = pulls.double()
    if how == "normalised":
        norms = gram.diagonal(dim1=1, dim2=2).clamp(min=SMALL).sqrt() * pulls
        mean = norms.sum(1, keepdim=True) / pulls.sum(1, keepdim=True).clamp(min=1)
        weights = torch.where(pulls, mean / norms.clamp(min=SMALL), 0.0)
    elif how == "pcgrad":
        weights = torch.stack([_projected(*one) for one in zip(gram, pulls, seeds, strict=True)])
    elif how != "mean":
        raise ValueError(f"Unknown combination {how!r}: use one of {', '.join(COMBINATIONS)}.")
    shares = (weights / counts).to(gradients.device, gradients.dtype)
    combined = torch.einsum("bd,bdchw->bchw", shares, gradients)
    return combined, _conflicts(gram, pulls)


def _projected(gram: Tensor, pulls: Tensor, seed: int) -> Tensor:
    """Weights (D,) of the gradients in the sum of the projected ones; gram (D, D).

    Every projected gradient is a sum of the given ones, c @ g, and its product with g_j is
    (c @ gram)_j.
    """
    generator = torch.Generator().manual_seed(seed)
    active = [int(index) for index in pulls.nonzero()[:, 0]]
    total = torch.zeros(len(gram), dtype=gram.dtype)
    for own in active:
        weights = torch.zeros(len(gram), dtype=gram.dtype)
        weights[own] = 1.0
        for place in torch.randperm(len(active), generator=generator).tolist():
            other = active[place]
            product = weights @ gram[:, other]
            if other != own and product < 0:
                weights[other] -= product / gram[other, other]
        total += weights
    return total


def _conflicts(gram: Tensor, pulls: Tensor) -> Tensor:
    """Pairs of dimensions that both pull, and those among them with a negative cosine: (2,)."""
    pairs = (pulls[:, :, None] & pulls[:, None, :]).triu(1)
    return torch.stack([pairs.sum(), (pairs & (gram < 0)).sum()])
