"""Sizes of studies against statsmodels, and against studies that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from modeling import power
from modeling.power import Design
from modeling.statistics import mcnemar


@pytest.mark.parametrize(("base", "gap"), [(0.5, 0.05), (0.69, 0.1), (0.9, -0.2)])
def test_its_number_of_unpaired_images_has_the_power(base: float, gap: float) -> None:
    n = power.images_for_share(base, gap)
    found = power_proportions_2indep(gap, base, n, return_results=False)
    assert found == pytest.approx(0.8, abs=0.005)


def test_it_gives_a_known_number() -> None:
    """Fleiss: 60 % against 65 % at 80 % power and 5 %: 1471 each."""
    assert power.images_for_share(0.6, 0.05) == 1471


@pytest.mark.parametrize("gap", [0.2, -0.5])
def test_its_number_of_images_for_means_is_that_of_statsmodels(gap: float) -> None:
    wanted = NormalIndPower().solve_power(gap / 1.1, alpha=0.05, power=0.9)
    assert power.images_for_mean(1.1, gap, Design(power=0.9)) == int(np.ceil(wanted))
    assert power.images_for_paired_mean(1.1, gap, Design(power=0.9)) == int(np.ceil(wanted / 2))


def test_drawn_studies_of_pairs_see_the_difference_as_often_as_said() -> None:
    """15 % of the sources gained and 8 % lost: 7 points in 23 % unlike."""
    n = power.images_for_paired_share(0.23, 0.07)
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(n, [0.15, 0.08, 0.77], 600).tolist()
    seen = [mcnemar(gained, lost) < 0.05 for gained, lost, _ in drawn]
    # The exact test asks for a little more than the normal approximation.
    assert 0.72 < np.mean(seen) < 0.84


def test_pairs_need_fewer_images_where_the_systems_are_alike() -> None:
    apart = power.expected_discordant(0.6, 0.05)
    alike = power.expected_discordant(0.6, 0.05, alike=0.7)
    assert apart == pytest.approx(0.6 * 0.35 + 0.4 * 0.65)
    assert power.images_for_paired_share(alike, 0.05) < power.images_for_paired_share(apart, 0.05)


def test_people_who_disagree_save_images_and_many_comparisons_cost_some() -> None:
    one = power.images_for_share(0.6, 0.05)
    assert power.images_for_share(0.6, 0.05, Design(raters=3, agreement=1.0)) == one
    assert power.images_for_share(0.6, 0.05, Design(raters=3, agreement=0.0)) == -(-one // 3)
    assert power.images_for_share(0.6, 0.05, Design(comparisons=10)) > 1.5 * one


@pytest.mark.parametrize(("base", "gap"), [(0.98, 0.05), (0.5, 0.0), (0.0, 0.1)])
def test_it_says_what_cannot_be_asked(base: float, gap: float) -> None:
    with pytest.raises(power.PowerError):
        power.images_for_share(base, gap)
    with pytest.raises(power.PowerError):
        power.images_for_paired_share(0.01, 0.05)
