"""The report of a round: what it says, whom it does not name, and which limits it computes."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from annotation import withdrawals
from annotation.models import Campaign, Judgment
from annotation.pseudonyms import pseudonym
from generation.models import Policy, Role
from modeling import governance_report, transitions
from modeling.models import Evaluation, RewardModel, Round, RoundStep
from modeling.transitions import State
from tests.annotation.factories import claim, make_campaign, picks, submit
from tests.factories import make_policy, make_user
from tests.modeling.test_gates import comparison, reward_figures
from tests.modeling.test_lineage import make_learnt_policy
from tests.modeling.test_pages import make_evaluation, make_round

pytestmark = pytest.mark.django_db


def make_reported() -> Round:
    """A round whose labels are mostly one person's and disputed, with weak cells."""
    people = [make_user(name) for name in ("anna", "ben", "cleo")]
    campaign = make_campaign(sets=4, overlap=3)
    for place, user in enumerate(people):
        for _ in range(4 if place == 0 else 1):
            turn = claim(user, campaign)
            submit(turn, picks(turn, *((0, 3) if place == 0 else (3, 0))))
    policy = make_learnt_policy(make_policy("base"), "trained", list(Judgment.objects.all()))
    reward = RewardModel.objects.get(name="reward of trained")
    reward.excluded = [["fill", "structure", "its held-out accuracy is not above chance"]]
    reward.save()
    cells = {
        "structure": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 90},
        "consistency": {"accuracy": 0.55, "low": 0.45, "high": 0.65, "n": 80},
        "aesthetics": {"accuracy": 0.9, "low": 0.6, "high": 0.98, "n": 10},
    }
    Evaluation.objects.create(
        kind="reward",
        reward_model=reward,
        snapshot=reward.snapshot,
        figures={"reward_accuracy": {"fill": cells}, "calibration_error": 0.2},
    )
    evaluation = make_evaluation(policy, [(0.5, 0.9)])
    evaluation.figures |= {"win_tie_lose": [0.25, 0.7, 0.05], "below_zero": ["fill/structure"]}
    evaluation.save()
    round_ = make_round(
        campaign=campaign, reward_model=reward, policy=policy, finished_at=timezone.now()
    )
    transitions.record(round_, to=State.OPEN, reason="Started by hand.", actor=make_user("max"))
    step = round_.steps.get(name=RoundStep.Name.GATE_REWARD)
    step.state, step.result = "succeeded", {"passed": True, "reason": "Better on 90 pairs."}
    step.save()
    transitions.record(round_, step=step.name, to=State.RUNNING)
    transitions.record(round_, step=step.name, to=State.PASSED, reason="Better on 90 pairs.")
    return round_


def test_it_shows_data_people_figures_decisions_and_limits(client: Client) -> None:
    round_ = make_reported()
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/loop/{round_.number}/report/").content.decode()
    anna = Campaign.objects.get().items.first().assignments.get(annotator__username="anna")  # type: ignore[union-attr]
    assert pseudonym(anna.annotator_id) in html
    assert not any(name in html for name in ("anna", "ben<", "cleo"))
    # Who decided is named, what merely ran is left out.
    assert "max" in html
    steps = governance_report.decisions(round_).values_list("to_state", flat=True)
    assert list(steps) == ["open", "passed"]
    assert "Better on 90 pairs." in html
    assert "12 judgments by 3 annotators on 4 sources" in html
    assert (
        f'href="/loop/{round_.number}/report/"'
        in client.get(f"/loop/{round_.number}/").content.decode()
    )


def test_it_computes_the_known_limits_from_the_rows() -> None:
    round_ = make_reported()
    limits = "\n".join(governance_report.context(round_)["limits"])
    assert "One of 3 annotators gave 67% of the judgments." in limits
    assert "Annotators agree little: Krippendorff's alpha is" in limits
    assert "Left out of the policy's reward: fill × structure, for its held-out accuracy" in limits
    assert "fewer than 30 held-out comparisons: aesthetics" not in limits
    assert "fewer than 30 held-out comparisons: fill × aesthetics (10)." in limits
    # What is left out of the reward is not said to be rewarded all the same.
    assert "rewarded all the same: fill × consistency (55%)." in limits
    assert "off by 20 points" in limits
    assert "lies below zero: fill × structure." in limits
    assert "No person compared the new policy's pictures" in limits
    assert "tainted" not in limits


def test_it_says_what_was_withdrawn_since() -> None:
    round_ = make_reported()
    source = Judgment.objects.order_by("pk")[0].set.source
    withdrawals.withdraw(user=make_user(), source=source, reason="the licence ended")
    limits = governance_report.context(round_)["limits"]
    assert f"“trained” is tainted: source {source.pk} was withdrawn: the licence ended" in limits
    assert any("that were learnt from were withdrawn since." in one for one in limits)


def test_it_gives_shares_their_own_intervals() -> None:
    round_ = make_reported()
    better, alike, worse = governance_report.context(round_)["outcomes"]
    assert [one.interval.n for one in (better, alike, worse)] == [300] * 3
    assert (better.interval.percent, worse.interval.percent) == ("25.0", "5.0")
    # Wilson's interval of 15 of 300, by hand: centre .0557, reach .0251.
    assert worse.interval.bounds == "3.1 … 8.1"


def test_a_round_that_has_only_begun_says_so(client: Client) -> None:
    round_ = make_round()
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/loop/{round_.number}/report/").content.decode()
    for said in (
        "The round is not over",
        "No labels were collected in this round.",
        "No policy came out of this round.",
        "The round asked nobody anything yet.",
    ):
        assert said in html
    assert client.get("/loop/99/report/").status_code == 404


def test_figures_of_gates_stand_in_the_report(client: Client) -> None:
    from modeling import gates

    round_ = make_round()
    checked = gates.reward_gate(
        new=reward_figures(), last=reward_figures(), comparison=comparison(0.8, 0.9), excluded=[]
    ).as_dict()
    step = round_.steps.get(name=RoundStep.Name.GATE_REWARD)
    step.state, step.result = "succeeded", checked
    step.save()
    client.force_login(make_user(role=Role.VIEWER))
    html = client.get(f"/loop/{round_.number}/report/").content.decode()
    assert checked["reason"][:60] in html
    assert "What the gates looked at" in html
    assert Policy.objects.count() == 1
