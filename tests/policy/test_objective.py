import math
from typing import Any

import pytest
import torch
from torch import tensor

from modeling.policy.objective import (
    anchor_loss,
    capped_hinge,
    mean_over_dimensions,
    reward_loss,
    source_chances,
    straight_through,
    task_probabilities,
    tone_loss,
    toward_policy,
)


def test_its_probability_hinge_is_the_papers() -> None:
    """sigmoid(0) = 1/2 and sigmoid(ln 3) = 3/4: max(0, .9 - .5) = .4 and .9 - .75 = .15; sigmoid(3)
    = .9526 is beyond the cap."""
    loss = capped_hinge(tensor([0.0, math.log(3), 3.0]), 0.9, "probability")
    assert loss.tolist() == pytest.approx([0.4, 0.15, 0.0])


def test_its_margin_hinge_ends_at_the_same_cap() -> None:
    """logit(.9) = ln 9 = 2.1972: 2.1972 at margin 0, 4.1972 at -2, nothing from ln 9 on."""
    loss = capped_hinge(tensor([0.0, -2.0, math.log(9), 5.0]), 0.9, "margin")
    assert loss.tolist() == pytest.approx([2.19722, 4.19722, 0.0, 0.0], abs=1e-5)


def test_its_squared_hinge_grows_with_the_distance() -> None:
    """At cap 1/2 the hinge ends at margin 0: half of 3^2 at -3, with slope -3; half of 1 at -1."""
    margins = tensor([-3.0, -1.0, 2.0], requires_grad=True)
    loss = capped_hinge(margins, 0.5, "squared")
    assert loss.tolist() == [4.5, 0.5, 0.0]
    loss.sum().backward()
    assert margins.grad is not None
    assert margins.grad.tolist() == [-3.0, -1.0, 0.0]


def test_its_margin_hinge_does_not_saturate() -> None:
    """d/dm of sigmoid at -8 is .0003; the margin's slope is 1 there, and 0 beyond the cap."""
    found = {}
    for form in ("margin", "probability"):
        margins = tensor([-8.0, 4.0], requires_grad=True)
        capped_hinge(margins, 0.9, form).sum().backward()
        assert margins.grad is not None
        found[form] = margins.grad.tolist()
    assert found["margin"] == [-1.0, 0.0]
    assert found["probability"] == pytest.approx([-0.000335, 0.0], abs=1e-6)


def test_it_refuses_another_form() -> None:
    with pytest.raises(ValueError, match="'margin', 'squared' or 'probability'"):
        capped_hinge(tensor([0.0]), 0.9, "log")


def test_it_turns_margins_toward_the_policy() -> None:
    """Where the policy stood second, P(No) is its reward: the margin changes its sign."""
    margins = tensor([[1.0, -2.0], [1.0, -2.0]])
    assert toward_policy(margins, tensor([True, False])).tolist() == [[1, -2], [-1, 2]]


def test_it_averages_over_the_dimensions_a_task_has() -> None:
    """(4 + 2) / 2 = 3 with two dimensions; 4 with one, whatever the padding holds."""
    values = tensor([[4.0, 2.0], [4.0, 99.0]])
    present = tensor([[True, True], [True, False]])
    assert mean_over_dimensions(values, present).tolist() == [3.0, 4.0]


def test_refl_lets_a_good_dimension_pay_for_a_bad_one() -> None:
    """Margins 3 and -3 with the hinge ending at 0: hinges 0 and 3, mean 1.5; the hinge of their
    mean, 0, is 0. A second order of -1 and -1: hinges 1 and 1, so (1.5 + 1) / 2 = 1.25; the mean of
    all margins is -0.5, its hinge 0.5."""
    margins = tensor([[[3.0, -3.0]]])
    present = tensor([[True, True]])
    how: Any = {"cap": 0.5, "form": "margin"}
    assert reward_loss(margins, present, **how).item() == 1.5
    assert reward_loss(margins, present, scalar=True, **how).item() == 0.0
    both = torch.cat([margins, tensor([[[-1.0, -1.0]]])])
    assert reward_loss(both, present, **how).item() == 1.25
    assert reward_loss(both, present, scalar=True, **how).item() == 0.5


def test_it_scores_the_value_and_differentiates_the_carrier() -> None:
    carrier = tensor([2.0], requires_grad=True)
    shown = straight_through(tensor([7.0]), 3 * carrier)
    assert shown.item() == 7.0
    (shown**2).backward()
    # d(s^2)/ds = 14 at the shown value, times d(3c)/dc = 3.
    assert carrier.grad is not None
    assert carrier.grad.item() == 42.0


def test_its_anchor_is_the_mean_squared_distance() -> None:
    """Differences 1, 1, 3, 1 of one sample: (1 + 1 + 9 + 1) / 4 = 3."""
    velocity = tensor([[[1.0, 1.0], [3.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])
    other = torch.zeros(2, 2, 2)
    other[1] = 5.0
    assert anchor_loss(velocity, other).tolist() == [3.0, 0.0]


def test_its_tone_is_the_squared_shift_of_the_mean_under_the_mask() -> None:
    """Two tokens of three are inside: moves of (1, 3) average 2, squared 4; (1, -1) is no shift."""
    moved = tensor([[[1.0], [3.0], [50.0]], [[1.0], [-1.0], [50.0]]])
    inside = tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert tone_loss(moved, torch.zeros(2, 3, 1), inside).tolist() == [4.0, 0.0]


def test_a_tasks_share_does_not_depend_on_its_number_of_sources() -> None:
    """Weights 1 : 3 give fill a quarter, shared by two sources, and removal three quarters."""
    chances = source_chances(["fill", "removal", "fill"], {"fill": 1.0, "removal": 3.0})
    assert chances == [0.125, 0.75, 0.125]


def test_it_refuses_weights_without_a_task() -> None:
    assert task_probabilities({"b": 1.0, "a": 3.0}) == {"a": 0.75, "b": 0.25}
    with pytest.raises(ValueError, match="not all 0"):
        task_probabilities({"fill": 0.0})
