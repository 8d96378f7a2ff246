import numpy as np
import pytest

from modeling.starter.annotators import best_worst


def test_it_names_the_best_and_the_worst() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert best_worst([0.2, 0.9, 0.5, 0.1], rng, noise=0) == (1, 3)


def test_it_sees_no_difference_within_a_tie() -> None:
    rng = np.random.default_rng(0)
    assert best_worst([0.5, 0.52, 0.54], rng, noise=0, tie=0.05) is None
    assert best_worst([0.5, 0.52, 0.56], rng, noise=0, tie=0.05) is not None


def test_it_never_names_one_candidate_twice() -> None:
    rng = np.random.default_rng(1)
    for _ in range(2000):
        scores = list(rng.uniform(0, 1, int(rng.integers(2, 6))).round(1))
        found = best_worst(scores, rng, noise=0.2, tie=0.3)
        assert found is None or found[0] != found[1]


def test_it_slips_as_often_as_told() -> None:
    rng = np.random.default_rng(2)
    found = [best_worst([0.0, 0.3, 0.6, 1.0], rng, noise=0.3) for _ in range(4000)]
    # A slip names the right pair too, once in twelve.
    wrong = np.mean([pair != (3, 0) for pair in found])
    assert abs(wrong - 0.3 * 11 / 12) < 0.03


def test_it_picks_among_equals_at_random() -> None:
    rng = np.random.default_rng(3)
    found = {best_worst([1.0, 1.0, 0.0, 0.0], rng, noise=0) for _ in range(100)}
    assert found == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_it_repeats_itself_from_the_same_seed() -> None:
    def draws() -> list[tuple[int, int] | None]:
        rng = np.random.default_rng(4)
        return [best_worst([0.1, 0.4, 0.3], rng, noise=0.5) for _ in range(50)]

    assert draws() == draws()


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, float("nan")]])
def test_it_refuses_scores_that_cannot_be_compared(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        best_worst(scores, np.random.default_rng(0))
