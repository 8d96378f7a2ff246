import math

import pytest
import torch
from torch import Tensor

from modeling.policy.conflict import combine, dimension_gradients


def _pixels(*rows: list[float]) -> Tensor:
    """One sample with a gradient per row: (1, D, 1, 1, W)."""
    return torch.tensor(rows)[None, :, None, None]


ALL = torch.ones(1, 2, dtype=torch.bool)


def test_its_mean_is_the_losss_own_gradient() -> None:
    """Three dimensions of sample 0, two of sample 1: mean over |E_s|, as in the loss."""
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 4, 4, requires_grad=True)
    maps = torch.randn(3, 48)
    present = torch.tensor([[True, True, True], [True, True, False]])
    losses = (pixels.flatten(1) @ maps.T).square() * present
    found = dimension_gradients(losses, pixels)
    assert found.shape == (2, 3, 3, 4, 4)
    losses = (pixels.flatten(1) @ maps.T).square() * present
    mean = (losses.sum(1) / present.sum(1)).sum()
    (expected,) = torch.autograd.grad(mean, pixels)
    torch.testing.assert_close(combine(found, present, "mean")[0], expected)


def test_it_projects_a_conflict_out() -> None:
    """g1 = (1, 0), g2 = (-1, 1): the product is -1. g1' = g1 + g2 / 2 = (1/2, 1/2), g2' = g2 + g1 =
    (0, 1), their mean (1/4, 3/4). The plain mean (0, 1/2) would not help the first at all."""
    gradients = _pixels([1.0, 0.0], [-1.0, 1.0])
    combined, counts = combine(gradients, ALL, "pcgrad", [0])
    assert combined.flatten().tolist() == pytest.approx([0.25, 0.75])
    assert counts.tolist() == [1, 1]
    assert combine(gradients, ALL, "mean")[0].flatten().tolist() == pytest.approx([0.0, 0.5])


def test_it_leaves_agreeing_gradients_alone() -> None:
    gradients = _pixels([1.0, 0.0], [1.0, 1.0])
    plain, counts = combine(gradients, ALL, "mean")
    assert counts.tolist() == [1, 0]
    assert torch.equal(combine(gradients, ALL, "pcgrad", [0])[0], plain)


def test_it_gives_every_dimension_the_same_strength() -> None:
    """Norms 3 and 1 become 2 and 2: ((2, 0) + (0, 2)) / 2."""
    combined, _ = combine(_pixels([3.0, 0.0], [0.0, 1.0]), ALL, "normalised")
    assert combined.flatten().tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("how", ["mean", "normalised", "pcgrad"])
def test_a_dimension_at_its_cap_does_not_pull(how: str) -> None:
    """It still counts in the mean, as in the loss: half of the other's gradient."""
    combined, counts = combine(_pixels([2.0, 0.0], [0.0, 0.0]), ALL, how, [0])
    assert combined.flatten().tolist() == pytest.approx([1.0, 0.0])
    assert counts.tolist() == [0, 0]


def test_its_projected_gradient_harms_no_dimension_of_two() -> None:
    torch.manual_seed(1)
    for _ in range(50):
        gradients = torch.randn(1, 2, 1, 1, 6)
        combined, _ = combine(gradients, ALL, "pcgrad", [0])
        products = (gradients * combined[:, None]).flatten(2).sum(2)
        assert products.min() >= -1e-6


def test_its_order_is_drawn_from_the_generator() -> None:
    """With three dimensions the order of projections matters; one seed gives one result."""
    torch.manual_seed(3)
    gradients, present = torch.randn(1, 3, 1, 1, 2), torch.ones(1, 3, dtype=torch.bool)
    found = {
        tuple(combine(gradients, present, "pcgrad", [seed])[0].flatten().tolist())
        for seed in [*range(8), *range(8)]
    }
    assert 1 < len(found) <= 8
    assert all(math.isfinite(value) for row in found for value in row)


def test_it_refuses_another_combination() -> None:
    with pytest.raises(ValueError, match="use one of mean, normalised, pcgrad"):
        combine(_pixels([1.0], [1.0]), ALL, "sum")
