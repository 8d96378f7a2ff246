"""The reward model's wins of a policy against people's, on the same pictures."""

from __future__ import annotations

import pytest

from annotation.models import Campaign
from modeling import reward_gap, rounds
from modeling.evaluation import Pair, policy_figures
from modeling.gates import Gate
from modeling.models import EvaluationPair
from modeling.round_steps import Name
from modeling.statistics import paired_difference
from tests.factories import make_source, make_task
from tests.modeling.project import Project
from tests.modeling.test_human_check import at_the_check, compare
from tests.modeling.test_rounds import step_of
from tests.modeling.test_transitions import go_on


def scores(margin: float, new: float, parent: float = 0.5) -> dict[str, dict[str, float]]:
    return {"reward_margin": {"structure": margin}, "new": {"structure": new}, "parent": {
        "structure": parent}}  # fmt: skip


def test_it_compares_shares_of_wins_with_the_truth() -> None:
    """Margins of +2, +2, +0.1 and -1 are 1, 1, 1/2 and 0; the truth says 0, 1/2, 1/2 and 0."""
    told = [scores(2, 0.1), scores(2, 0.51), scores(0.1, 0.5), scores(-1, 0.2)]
    found = reward_gap.by_truth(enumerate(told))
    assert (found["new"], found["parent"], found["n"]) == (0.625, 0.25, 4)
    assert found["difference"] == 0.375
    assert found["low"] < 0.375 < found["high"]
    assert reward_gap.by_truth([(1, {"reward_margin": {"structure": 1.0}})]) == {}
    assert reward_gap.by_truth([(1, {"new": {"a": 1.0}, "parent": {"a": 0.0}})]) == {}
    (check,) = reward_gap.shown({"reward_gap": found})
    assert (check["passed"], check["difference"]) == (None, 0.375)
    assert reward_gap.shown({"reward_gap": {}}) == []


def test_a_source_counts_once_however_many_questions_it_has() -> None:
    many = {
        "reward_margin": dict.fromkeys("abc", 2.0),
        "new": dict.fromkeys("abc", 0.0),
        "parent": dict.fromkeys("abc", 1.0),
    }
    found = reward_gap.by_truth([(1, many), (2, scores(-2, 0.0))])
    assert (found["new"], found["parent"], found["n"]) == (0.5, 0.0, 2)


@pytest.mark.parametrize(("passed", "limit", "opens"), [
    (True, 0.25, False), (True, 1.0, True), (False, 1.0, False),
])  # fmt: skip
def test_only_a_gap_clearly_above_the_limit_shuts_the_gate(
    passed: bool, limit: float, opens: bool
) -> None:
    gate = Gate(passed, "because")
    wide = paired_difference([0.0] * 20, [1.0] * 20)
    found = reward_gap.shut_if_wide(gate, wide, limit=limit)
    assert found.passed is opens
    assert [one["name"] for one in found.checks] == ["reward_gap"]
    assert ("pleases its judge and not people" in found.reason) == (passed and not opens)
    # One source more or less decides nothing.
    unclear = paired_difference([0.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.5])
    assert unclear.difference > 0.1 > unclear.low
    assert reward_gap.shut_if_wide(gate, unclear, limit=0.1).passed is passed
    nothing = paired_difference([], [])
    assert reward_gap.shut_if_wide(gate, nothing, limit=0.0) == gate


@pytest.mark.django_db
def test_an_evaluation_measures_it_where_there_is_truth() -> None:
    from PIL import Image

    picture = Image.new("RGB", (8, 8))
    sources = [make_source(make_task()) for _ in range(2)]
    pairs = [Pair(source, 0, picture, picture, scores(2, 0.5)) for source in sources]
    assert policy_figures(pairs)["reward_gap"]["difference"] == 0.5


@pytest.mark.parametrize("margin", [3.0, -3.0])
def test_it_shuts_the_human_check_and_says_why(project: Project, margin: float) -> None:
    """People prefer the parent everywhere; the share of wins that is asked for lets that pass."""
    round_ = at_the_check(project, human_comparisons=8, human_share=0.0)
    for pair in EvaluationPair.objects.all():
        names = pair.source.task.criteria.values_list("dimension__slug", flat=True)
        pair.scores = {"reward_margin": dict.fromkeys(names, margin)}
        pair.save()
    go_on(round_)
    campaign = Campaign.objects.get()
    for _ in range(8):
        compare(campaign, new_wins=False)
    go_on(round_)

    result = step_of(round_, Name.HUMAN_CHECK).result
    assert [one["name"] for one in result["checks"]] == ["human", "reward_gap"]
    gap = result["checks"][1]
    assert (gap["model"], gap["people"], gap["n"]) == (float(margin > 0), 0.0, 8)
    assert result["passed"] is (margin < 0)
    if margin > 0:
        assert "sees it win 100% where people do 0%" in result["reason"]
        assert "Have pictures of this policy labelled" in result["reason"]


@pytest.mark.django_db
def test_its_limit_is_a_share(project: Project) -> None:
    with pytest.raises(rounds.RoundError, match="max_reward_gap must lie between 0 and 1"):
        rounds.create(annotators="human", config={"max_reward_gap": 25})
