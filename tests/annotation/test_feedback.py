"""Feedback from production: stored once, turned into preferences of their own, never mixed in."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation import datasets, feedback
from annotation.feedback import FeedbackError
from annotation.models import Feedback, Judgment
from generation import shared, tokens
from generation.models import Candidate, CandidateSet, Role, Split
from modeling import round_steps, snapshots
from modeling.feedback_report import median, report
from modeling.reward.data import Snapshot, pairs_of
from modeling.round_config import RoundConfig
from modeling.taxonomy import seed
from tests.annotation.factories import claim, make_campaign, submit
from tests.factories import make_set, make_source, make_user
from tests.modeling.test_pages import make_round

pytestmark = pytest.mark.django_db
URL = "/api/v1/feedback"


def tell(row: Candidate, kind: str, user: str = "u1", **more: Any) -> Feedback:
    values = {"client_id": f"{row.pk}-{kind}-{user}", **more}
    return feedback.record(candidate=row, kind=kind, user=user, **values)[0]


def candidates_of(made: CandidateSet) -> list[Candidate]:
    rows = made.candidates.select_related("image", "policy", "set__source__project")
    return list(rows.order_by("index"))


def found() -> set[tuple[int, int, str, float]]:
    """(index of the chosen, of the rejected, relation, weight) of every preference."""
    index = {row.image.sha256: row.index for row in Candidate.objects.all() if row.image}
    return {
        (index[p.chosen], index[p.rejected], p.relation, p.weight)
        for p in (one.preference for one in feedback.derive(Feedback.objects.all()))
    }


class TestPreferences:
    def test_the_last_event_of_each_picture_counts(self) -> None:
        a, b, c, _d = candidates_of(make_set())
        tell(a, "published")
        tell(b, "accepted")
        tell(b, "discarded", happened_at=timezone.now() + timedelta(seconds=1))
        tell(c, "edited")
        assert found() == {
            (0, 1, "direct", 1.0),
            (0, 2, "direct", 1.0),
            (2, 1, "direct", 1.0),
            (0, 3, "implied", 0.5),  # nobody reported the fourth
        }

    def test_people_are_told_apart(self) -> None:
        a, b, *_ = candidates_of(make_set(size=2))
        tell(a, "accepted", "u1")
        tell(b, "accepted", "u2")
        assert found() == {(0, 1, "implied", 0.5), (1, 0, "implied", 0.5)}

    def test_value_weighs_up_to_twice_and_down_to_half(self) -> None:
        for value, factor in ((100, 2.0), (1, 0.5), (None, 1.0)):
            Feedback.objects.all().delete()
            a, b, *_ = candidates_of(make_set(size=2))
            tell(a, "accepted", value=value)
            tell(b, "discarded", value=0)
            for _ in range(2):
                other = candidates_of(make_set(size=2))[0]
                tell(other, "discarded", value=1 if value == 100 else 10)
            mine = {one[3] for one in found() if one[2] == "direct"}
            assert mine == {factor}


class TestRecord:
    def test_sent_again_it_is_stored_once(self) -> None:
        row = candidates_of(make_set())[0]
        sent: dict[str, Any] = {"candidate": row, "kind": "accepted", "user": "u1"}
        _first, created = feedback.record(**sent, client_id="7")
        _again, twice = feedback.record(**sent, client_id="7")
        assert (created, twice, Feedback.objects.count()) == (True, False, 1)
        with pytest.raises(FeedbackError, match="Another event was sent under this id"):
            feedback.record(**{**sent, "kind": "discarded"}, client_id="7")
        stored = Feedback.objects.get()
        assert stored.policy == row.policy
        assert stored.user == feedback.pseudonym(stored.project, "u1") != "u1"

    def test_it_lies_between_the_making_and_now(self) -> None:
        row = candidates_of(make_set())[0]
        for when in (timezone.now() + timedelta(hours=1), timezone.now() - timedelta(days=9)):
            with pytest.raises(FeedbackError, match="between the picture's making and now"):
                tell(row, "accepted", happened_at=when)


class TestApi:
    def test_a_program_reports_with_its_own_scope(self, client: Client) -> None:
        row = candidates_of(make_set())[0]
        _, secret = tokens.make(user=make_user(), name="shop", scopes=["feedback"])
        event = {"candidate": row.pk, "event": "published", "id": "9", "user": "u", "value": 2.5}
        headers = {"Authorization": f"Bearer {secret}"}
        codes = [
            client.post(URL, event, content_type="application/json", headers=headers).status_code
            for _ in range(2)
        ]
        assert codes == [201, 200]
        stored = Feedback.objects.get()
        assert (stored.kind, stored.value, stored.candidate) == ("published", 2.5, row)
        other = {**event, "event": "edited"}
        wrong = client.post(URL, other, content_type="application/json", headers=headers)
        assert wrong.status_code == 422
        unknown = {**event, "event": "liked"}
        said = client.post(URL, unknown, content_type="application/json", headers=headers).json()
        assert said["detail"].startswith("event: ")

    @pytest.mark.parametrize(
        ("role", "scope", "code"),
        [(None, "feedback", 404), (Role.VIEWER, "feedback", 403), (Role.ADMIN, "serve", 403)],
    )
    def test_others_are_kept_out(
        self, client: Client, role: str | None, scope: str, code: int
    ) -> None:
        row = candidates_of(make_set())[0]
        _, secret = tokens.make(user=make_user(role=role), name="x", scopes=[scope])
        event = {"candidate": row.pk, "event": "accepted", "id": "1", "user": "u"}
        headers = {"Authorization": f"Bearer {secret}"}
        response = client.post(URL, event, content_type="application/json", headers=headers)
        assert response.status_code == code
        assert not Feedback.objects.exists()


class TestReport:
    def test_a_policy_has_its_acceptance_and_its_time(self) -> None:
        sets = [make_set() for _ in range(4)]
        for number, made in enumerate(sets):
            one, other, *_ = candidates_of(made)
            Candidate.objects.filter(set=made).update(policy=one.policy)
            CandidateSet.objects.update(created_at=timezone.now() - timedelta(hours=1))
            one, other, *_ = candidates_of(made)
            tell(one, "discarded")
            if number:
                when = made.created_at - timedelta(hours=1) + timedelta(seconds=60 * number)
                tell(other, "accepted", happened_at=max(when, other.set.created_at))
        from generation.models import Project

        rows = report(Project.objects.all()).policies
        assert [row.accepted.n for row in rows] == [1, 1, 1, 1]
        assert sorted(row.accepted.value for row in rows) == [0.0, 1.0, 1.0, 1.0]
        assert sum(row.completion is None for row in rows) == 1

    def test_a_median_lies_in_its_interval(self) -> None:
        found = median([float(n) for n in range(1, 26)])
        # Ranks of n/2 ± 1.96 √n / 2 = 12.5 ± 4.9.
        assert (found.value, found.low, found.high, found.n) == (13.0, 8.0, 18.0, 25)
        assert median([3.0]).low == median([3.0]).high == 3.0

    def test_it_is_compared_with_what_people_say(self, client: Client) -> None:
        from generation.models import Project

        campaign = make_campaign(sets=3)
        user = make_user()
        for number in range(3):
            turn = claim(user, campaign)
            submit(turn)  # the first is the best, the second the worst
            best, worst, *_ = candidates_of(turn.set)
            better, worse = (best, worst) if number else (worst, best)
            tell(better, "accepted")
            tell(worse, "discarded")
        rows = report(Project.objects.all()).agreement
        # Best against worst, and each of those against the others as people implied it, too.
        assert {row.agreed.n for row in rows} == {9}
        client.force_login(user)
        page = client.get("/feedback/").content.decode()
        assert rows[0].dimension in page
        assert Judgment.objects.counted().count() == 3 * len(rows)


def test_a_snapshot_takes_it_only_when_asked_and_says_so(data_dir: Path) -> None:
    seed()
    sources = [make_source(split=split) for split in (Split.TRAIN, Split.HOLDOUT)]
    task = sources[0].task
    campaign = make_campaign(sets=2)
    submit(claim(make_user(), campaign))
    for source in sources:
        a, b, *_ = candidates_of(make_set(source))
        tell(a, "accepted")
        tell(b, "discarded")
    judgments = Judgment.objects.filter(assignment__item__campaign=campaign)
    plain = snapshots.take(judgments)
    asked = snapshots.take(judgments, feedback_weight=0.25)
    assert plain.content_hash != asked.content_hash
    assert snapshots.take(judgments) == plain
    without, within = shared.local(plain.directory), shared.local(asked.directory)
    assert "feedback" not in datasets.read_card(without)
    assert not (Path(without) / "feedback.parquet").exists()

    card = datasets.verify(within)
    assert card["feedback"] == {
        "weight": 0.25,
        "events": 4,
        "preferences": 3,  # of the training picture alone
        "dimension": "overall",
    }
    assert asked.counts["feedback"] == 3
    assert "nobody was asked for" in (Path(within) / "README.md").read_text()
    assert json.loads((Path(within) / "card.json").read_text())["taxonomy"]["tasks"][task.slug]
    assert card["counts"]["preferences"] == datasets.read_card(without)["counts"]["preferences"]
    learnt = pairs_of(Snapshot(within), "train")
    overall = [q for pair in learnt for q in pair.questions if q.dimension == "overall"]
    assert sorted(question.weight for question in overall) == [0.125, 0.125, 0.25]
    assert not any(
        question.dimension == "overall"
        for pair in pairs_of(Snapshot(within), "holdout")
        for question in pair.questions
    )


def test_a_round_learns_from_it_only_when_told_to(data_dir: Path) -> None:
    seed()
    campaign = make_campaign(sets=2)
    submit(claim(make_user(), campaign))
    best, worst, *_ = candidates_of(make_set(make_source(split=Split.TRAIN)))
    tell(best, "accepted")
    tell(worst, "discarded")
    round_ = make_round(campaign=campaign)
    assert "feedback" not in round_steps.snapshot_of(round_).counts
    round_.config = {"feedback_weight": 0.5}
    assert round_steps.snapshot_of(round_).counts["feedback"] == 3
    with pytest.raises(ValueError, match="feedback_weight must lie between 0 and 10"):
        RoundConfig(feedback_weight=11)
