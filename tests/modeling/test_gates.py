from typing import Any

import pytest

from modeling import gates, human_check
from modeling.statistics import Interval, wilson


def cell(accuracy: float, n: int) -> dict[str, Any]:
    return {"accuracy": accuracy, "n": n}


def comparison(parent: float, new: float, n: int = 200) -> dict[str, Any]:
    step = new - parent
    return {
        "parent": parent,
        "new": new,
        "difference": step,
        "low": step - 0.02,
        "high": step + 0.02,
        "n": n,
    }


def reward_figures(swap: float | None = 0.9, n: int = 200) -> dict[str, Any]:
    overall = {"accuracy": swap, "low": 0.0, "high": min(1.0, (swap or 0) + 0.05), "n": n}
    return {
        "reward_accuracy": {"fill": {"structure": cell(0.9, 60), "consistency": cell(0.8, 60)}},
        "prompt_swap_accuracy": swap,
        "prompt_swap": {"overall": overall if swap is not None else {"n": 0}},
    }


def difference(parent: float, new: float, reach: float = 0.03, n: int = 60) -> dict[str, Any]:
    step = new - parent
    return {
        "parent": parent,
        "new": new,
        "difference": step,
        "low": step - reach,
        "high": step + reach,
        "n": n,
    }


def policy_figures(**changes: Any) -> dict[str, Any]:
    figures = {
        "usable": {"fill": difference(0.6, 0.7), "all": difference(0.6, 0.7, n=300)},
        "dimensions": {"fill": {"structure": difference(0.8, 0.85)}},
        "p_worse": {"fill": 0.9, "fill/structure": 0.8},
        "outside_psnr": difference(30.0, 30.1),
        "margin": {},
        "win_tie_lose": [0.3, 0.5, 0.2],
    }
    return figures | changes


# --- dimensions ---


def test_it_excludes_a_dimension_at_chance() -> None:
    table = {"fill": {"structure": cell(0.9, 60), "consistency": cell(0.55, 60)}}

    ((task, name, reason),) = gates.unusable_dimensions({"reward_accuracy": table})

    assert (task, name) == ("fill", "consistency")
    assert "55%" in reason
    assert "n = 60" in reason
    assert "not above chance" in reason


def test_it_judges_a_small_cell_together_with_the_other_tasks() -> None:
    table = {"fill": {"structure": cell(0.9, 60)}, "removal": {"structure": cell(0.5, 4)}}

    assert gates.unusable_dimensions({"reward_accuracy": table}) == []
    table["removal"]["structure"] = cell(0.7, 16)
    assert gates.unusable_dimensions({"reward_accuracy": table}) == []


def test_it_does_not_let_other_tasks_hide_a_cell_at_chance() -> None:
    table = {"fill": {"structure": cell(0.9, 60)}, "removal": {"structure": cell(0.45, 20)}}

    ((task, _, reason),) = gates.unusable_dimensions({"reward_accuracy": table})

    assert task == "removal"
    assert "n = 20" in reason


def test_it_keeps_the_parents_verdict_where_too_little_was_measured() -> None:
    table = {"fill": {"structure": cell(1.0, 3)}}
    known = [["fill", "structure", "it was at chance"], ["removal", "quality", "unmeasured"]]

    assert gates.unusable_dimensions({"reward_accuracy": table}, known) == known
    assert gates.unusable_dimensions({"reward_accuracy": table}) == []


# --- reward gate ---


def reward_gate(
    new: float, *, parent: float = 0.8, n: int = 200, swap: float | None = 0.9, swaps: int = 200
) -> gates.Gate:
    return gates.reward_gate(
        new=reward_figures(swap, swaps),
        last=reward_figures(),
        comparison=comparison(parent, new, n),
        excluded=[],
    )


def test_it_opens_for_a_better_reward_model() -> None:
    gate = reward_gate(0.85)

    assert gate.passed
    assert "80.0% → 85.0%" in gate.reason
    assert "+5.0 points" in gate.reason


@pytest.mark.parametrize("new", [0.79, 0.8])
def test_it_stays_shut_for_a_reward_model_that_is_not_better(new: float) -> None:
    gate = reward_gate(new)

    assert not gate.passed
    assert "which is kept" in gate.reason


def test_it_takes_the_newer_of_two_that_few_pairs_cannot_tell_apart() -> None:
    assert reward_gate(0.8, n=20).passed
    assert not reward_gate(0.75, n=20).passed


def test_it_stays_shut_for_a_reward_model_blind_to_the_prompt() -> None:
    gate = reward_gate(0.9, swap=0.55)

    assert not gate.passed
    assert "does not see what the prompt asks for" in gate.reason


def test_it_forgives_a_low_swap_figure_of_very_few_pairs() -> None:
    new = reward_figures(0.7, 5)
    new["prompt_swap"]["overall"]["high"] = 0.9

    gate = gates.reward_gate(
        new=new, last=reward_figures(), comparison=comparison(0.8, 0.9), excluded=[]
    )

    assert gate.passed


def test_it_needs_no_swap_figure_without_prompts() -> None:
    assert reward_gate(0.9, swap=None).passed


def test_it_stays_shut_without_a_usable_dimension() -> None:
    excluded = [["fill", "structure", "at chance"], ["fill", "consistency", "at chance"]]

    gate = gates.reward_gate(
        new=reward_figures(),
        last=reward_figures(),
        comparison=comparison(0.5, 0.6),
        excluded=excluded,
    )

    assert not gate.passed
    assert "no dimension" in gate.reason


def test_it_stays_shut_without_held_out_pairs() -> None:
    gate = reward_gate(0.9, n=0)

    assert not gate.passed
    assert "held-out sources" in gate.reason


# --- policy gate ---


def test_it_opens_for_a_better_policy() -> None:
    gate = gates.policy_gate(policy_figures(), alarm="")

    assert gate.passed
    assert gate.figure == "usable 60.0% → 70.0%"


def test_it_stays_shut_when_the_alarm_went_off() -> None:
    gate = gates.policy_gate(policy_figures(), alarm="fine texture is 4.0 times the parent's")

    assert not gate.passed
    assert "4.0 times" in gate.reason


def test_it_stays_shut_for_one_significantly_worse_dimension() -> None:
    figures = policy_figures(p_worse={"fill": 0.9, "fill/structure": 0.001})

    gate = gates.policy_gate(figures, alarm="")

    assert not gate.passed
    assert "Significantly worse: fill/structure" in gate.reason


def test_it_does_not_mistake_one_of_many_comparisons_for_a_loss() -> None:
    chances = {f"cell {i}": 0.5 for i in range(20)} | {"fill/structure": 0.02}
    figures = policy_figures(p_worse=chances)
    figures["dimensions"]["fill"]["structure"] = difference(0.85, 0.8)

    gate = gates.policy_gate(figures, alarm="")

    assert gate.passed
    assert "To watch, interval below zero by itself: fill/structure" in gate.reason


def test_it_stays_shut_without_improvement() -> None:
    figures = policy_figures(usable={"all": difference(0.7, 0.7, n=300)})

    assert not gates.policy_gate(figures, alarm="").passed


def test_it_stays_shut_when_the_surroundings_change() -> None:
    figures = policy_figures(outside_psnr=difference(30.0, 27.0))

    gate = gates.policy_gate(figures, alarm="")

    assert not gate.passed
    assert "30.0 → 27.0 dB" in gate.reason


def judged(low: float) -> dict[str, Any]:
    margin = {"mean": low + 0.2, "low": low, "high": low + 0.4, "n": 50, "judge": "last year's"}
    return policy_figures(usable={}, dimensions={}, p_worse={}, margin={"all": margin})


def test_it_asks_a_held_out_judge_where_no_truth_is_known() -> None:
    assert gates.policy_gate(judged(0.1), alarm="").passed
    assert not gates.policy_gate(judged(-0.1), alarm="").passed


def test_it_never_decides_on_the_reward_alone() -> None:
    figures = judged(2.0) | {"outside_psnr": difference(30.0, 20.0)}

    assert not gates.policy_gate(figures, alarm="").passed


def test_it_stays_shut_when_nobody_can_tell() -> None:
    figures = policy_figures(usable={}, margin={})

    gate = gates.policy_gate(figures, alarm="")

    assert not gate.passed
    assert "Nothing says whether" in gate.reason


# --- what was looked at ---


def named(gate: gates.Gate) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in gate.checks}


def with_newest(last: float, new: float, n: int = 100, **options: Any) -> gates.Gate:
    return gates.reward_gate(
        new=reward_figures(),
        last=reward_figures(),
        comparison=comparison(0.8, 0.9) | {"p": 0.01},
        excluded=[],
        newest=[wilson(round(last * n), n), wilson(round(new * n), n)],
        **options,
    )


def test_it_lists_every_figure_of_the_reward_gate() -> None:
    gate = with_newest(0.8, 0.85)
    assert gate.passed
    found = named(gate)
    assert list(found) == ["pairs", "newest", "prompt_swap"]
    assert (found["pairs"]["n"], found["pairs"]["p"]) == (200, 0.01)
    assert (found["newest"]["parent"], found["newest"]["new"]) == (0.8, 0.85)
    assert gate.as_dict()["checks"] == gate.checks


def test_it_stays_shut_for_labels_that_contradict_the_active_model() -> None:
    """As when all labels, held-out ones too, are flipped: the new model agrees with them."""
    gate = with_newest(0.22, 0.78)
    assert not gate.passed
    assert "right on only 22% of the newest 100 labels" in gate.reason
    assert "labels the wrong way round" in gate.reason
    # Chance alone, or a handful of labels, is no contradiction.
    assert with_newest(0.45, 0.78).passed
    assert with_newest(0.2, 0.8, n=10).passed


def test_it_asks_for_an_accuracy_on_the_newest_labels() -> None:
    gate = with_newest(0.7, 0.6, newest_accuracy=0.75)
    assert not gate.passed
    assert "and 75% is asked for" in gate.reason
    # 70 % of 100 is not clearly below.
    assert with_newest(0.7, 0.7, newest_accuracy=0.75).passed


def margin(mean: float, judge: str = "last year's") -> dict[str, Any]:
    return {"all": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 50, "judge": judge}}


def test_it_stays_shut_when_a_held_out_reward_model_prefers_the_parent() -> None:
    """A hacked reward: what trained the policy likes it, what did not does not."""
    figures = policy_figures(reward_margin=margin(3.0, "new"), margin=margin(-0.5))
    gate = gates.policy_gate(figures, alarm="")
    assert not gate.passed
    assert "the held-out reward model, 'last year's', prefers the parent" in gate.reason
    found = named(gate)
    assert found["reward_margin"]["passed"]
    assert found["usable"]["passed"]
    assert gates.policy_gate(policy_figures(margin=margin(-0.05)), alarm="").passed


def test_it_stays_shut_when_the_policy_lost_its_own_reward() -> None:
    gate = gates.policy_gate(policy_figures(reward_margin=margin(-0.5, "new")), alarm="")
    assert not gate.passed
    assert "the reward model that trained it, 'new', prefers the parent" in gate.reason


def test_it_lets_a_round_say_how_much_of_the_surroundings_may_go() -> None:
    figures = policy_figures(outside_psnr=difference(30.0, 28.5))
    assert not gates.policy_gate(figures, alarm="").passed
    assert gates.policy_gate(figures, alarm="", psnr_loss=2.0).passed


@pytest.mark.parametrize(
    ("rule", "low", "high", "passed"),
    [
        ("not_worse", 0.45, 0.60, True),
        ("not_worse", 0.30, 0.49, False),
        ("better", 0.45, 0.60, False),
        ("better", 0.51, 0.70, True),
    ],
)
def test_people_decide_by_the_interval(rule: str, low: float, high: float, passed: bool) -> None:
    share = Interval((low + high) / 2, low, high, 80)
    gate = human_check.decide(share, 40, rule=rule, asked=0.5)
    assert gate.passed is passed
    assert "Of 40 pairs that people compared blind" in gate.reason
