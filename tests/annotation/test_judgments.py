import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone

from annotation import counts, judgments
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Criterion, Judgment, Wording
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_judged_task,
    picks,
    slugs,
    submit,
)
from tests.conftest import address
from tests.factories import make_user

pytestmark = pytest.mark.django_db
State = Assignment.State


def open_turn(**fields: object) -> Assignment:
    return claim(make_user(), make_campaign(**fields))  # type: ignore[arg-type]


class TestRecord:
    def test_it_stores_one_judgment_per_dimension(self) -> None:
        turn = open_turn()
        first, second = slugs(turn)
        sent = uuid.uuid4()
        answers = {first: Answer("picked", 2, 0), second: Answer("no_difference")}
        submit(turn, answers, submission=sent, seconds_spent=7.04)
        picked, same = Judgment.objects.order_by("pk")
        assert picked.best is not None
        assert picked.worst is not None
        assert (picked.best.index, picked.worst.index) == (2, 0)
        assert (same.outcome, same.best, same.worst) == ("no_difference", None, None)
        assert picked.wording == picked.dimension.wording
        turn.refresh_from_db()
        assert (turn.state, turn.submission, turn.seconds_spent) == (State.SUBMITTED, sent, 7.0)

    def test_it_stores_the_same_submission_once(self) -> None:
        turn, sent = open_turn(), uuid.uuid4()
        first = submit(turn, submission=sent)
        again = submit(turn, submission=sent)
        assert {row.pk for row in again} == {row.pk for row in first}
        assert Judgment.objects.count() == 2

    def test_it_keeps_the_first_answers_when_the_same_submission_says_something_else(self) -> None:
        turn, sent = open_turn(), uuid.uuid4()
        submit(turn, submission=sent)
        with pytest.raises(Refused, match="with other answers") as refused:
            submit(turn, picks(turn, 3, 2), submission=sent)
        assert refused.value.code == "stale"
        assert set(Judgment.objects.values_list("best__index", flat=True)) == {0}

    def test_it_keeps_the_earlier_revision_of_a_correction(self) -> None:
        turn = open_turn()
        submit(turn, submission=uuid.uuid4())
        submit(turn, picks(turn, 3, 2), submission=uuid.uuid4())
        rows = Judgment.objects.order_by("revision").values_list(
            "revision", "current", "best__index"
        )
        assert set(rows) == {(1, False, 0), (2, True, 3)}

    def test_it_asks_what_is_not_required_without_insisting(self) -> None:
        task = make_judged_task(2)
        optional = task.criteria.last()
        assert optional is not None
        Criterion.objects.filter(pk=optional.pk).update(required=False)
        turn = open_turn(task=task)
        submit(turn, {slugs(turn)[0]: Answer("picked", 0, 1)})
        assert Judgment.objects.count() == 1

    def test_it_stores_the_newest_wording(self) -> None:
        turn = open_turn(task=make_judged_task(1))
        dimension = turn.set.source.task.criteria.get().dimension
        newer = Wording.objects.create(dimension=dimension, version=2, question="?", query="?")
        submit(turn)
        assert Judgment.objects.get().wording == newer

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (Answer("picked", 1, 1), "the same candidate is best and worst"),
            (Answer("picked", 1, None), "the worst is missing"),
            (Answer("picked", None, 1), "the best is missing"),
            (Answer("picked", 0, 4), "there is no such candidate. Choose among the 4"),
            (Answer("picked", -1, 0), "there is no such candidate"),
            (Answer("great"), "is no answer"),
            (Answer("no_difference", 0, 1), "names no best or worst"),
        ],
    )
    def test_it_refuses_a_wrong_answer_and_stores_nothing(self, answer: Answer, says: str) -> None:
        turn = open_turn()
        wrong = picks(turn) | {slugs(turn)[1]: answer}
        with pytest.raises(Refused, match=says) as refused:
            submit(turn, wrong)
        assert refused.value.code == "invalid"
        assert not Judgment.objects.exists()
        turn.refresh_from_db()
        assert turn.state == State.OPEN

    def test_it_names_the_dimensions_that_are_missing(self) -> None:
        turn = open_turn()
        with pytest.raises(Refused, match="Dimension .* and Dimension .* still need an answer"):
            submit(turn, {})
        assert not Judgment.objects.exists()

    def test_it_refuses_a_dimension_that_is_not_asked(self) -> None:
        turn = open_turn()
        with pytest.raises(Refused, match="“beauty” is not asked about this set. It is asked: Dim"):
            submit(turn, picks(turn) | {"beauty": Answer("picked", 0, 1)})
        assert not Judgment.objects.exists()

    def test_it_refuses_somebody_elses_turn(self) -> None:
        turn = open_turn()
        with pytest.raises(Refused, match="belongs to somebody else") as refused:
            judgments.record(assignment=turn, user=make_user(), answers=picks(turn))
        assert refused.value.code == "foreign"
        assert not Judgment.objects.exists()

    def test_it_takes_a_late_answer_as_long_as_nobody_else_took_the_slot(self) -> None:
        turn = open_turn()
        Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
        submit(turn)
        assert Judgment.objects.count() == 2

    def test_it_keeps_answers_to_a_turn_that_went_to_somebody_else_without_counting_them(
        self,
    ) -> None:
        turn = open_turn()
        Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
        other = claim(make_user(), turn.item.campaign)
        submit(turn)
        turn.refresh_from_db()
        assert (turn.state, Judgment.objects.count()) == (State.LATE, 2)
        assert not Judgment.objects.counted().exists()
        submit(other)
        assert set(Judgment.objects.counted().values_list("assignment", flat=True)) == {other.pk}
        assert counts.judged_share(turn.item.campaign) == (1, 1)

    def test_it_counts_late_answers_once_the_slot_is_free_again(self) -> None:
        turn = open_turn()
        Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
        other = claim(make_user(), turn.item.campaign)
        submit(turn)
        judgments.skip(assignment=other, user=other.annotator)
        submit(turn, picks(turn, 3, 2))
        turn.refresh_from_db()
        assert turn.state == State.SUBMITTED
        assert Judgment.objects.counted().count() == 2

    def test_a_late_answer_that_is_undone_stands_nowhere_until_it_is_given_again(self) -> None:
        turn = open_turn()
        Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
        claim(make_user(), turn.item.campaign)
        submit(turn)
        undone = judgments.undo(user=turn.annotator, campaign=turn.item.campaign)
        assert (undone.pk, undone.state) == (turn.pk, State.EXPIRED)
        assert not Judgment.objects.current().exists()
        submit(turn, picks(turn, 3, 2))
        turn.refresh_from_db()
        assert turn.state == State.LATE
        assert Judgment.objects.current().count() == 2
        assert not Judgment.objects.counted().exists()

    @pytest.mark.parametrize("state", ["paused", "closed"])
    def test_it_refuses_a_campaign_that_is_not_open(self, state: str) -> None:
        turn = open_turn()
        Campaign.objects.update(state=state)
        with pytest.raises(Refused, match=state) as refused:
            submit(turn)
        assert refused.value.code == "closed"
        assert not Judgment.objects.exists()

    def test_it_drops_a_time_that_cannot_be(self) -> None:
        turn = open_turn()
        submit(turn, seconds_spent=float("nan"))
        turn.refresh_from_db()
        assert turn.seconds_spent is None


class TestSkip:
    def test_it_keeps_the_reason_and_frees_the_slot(self) -> None:
        turn = open_turn()
        judgments.skip(assignment=turn, user=turn.annotator, reason=" broken ")
        turn.refresh_from_db()
        assert (turn.state, turn.skip_reason) == (State.SKIPPED, "broken")

    def test_it_refuses_a_foreign_a_skipped_and_a_submitted_turn(self) -> None:
        turn = open_turn()
        with pytest.raises(Refused, match="somebody else"):
            judgments.skip(assignment=turn, user=make_user())
        submit(turn)
        with pytest.raises(Refused, match="submitted this set already"):
            judgments.skip(assignment=turn, user=turn.annotator)
        assert Judgment.objects.current().count() == 2


class TestUndo:
    def test_it_reopens_the_last_turn_and_withdraws_its_judgments(self) -> None:
        user, campaign = make_user(), make_campaign(sets=3)
        first, second = claim(user, campaign), None
        submit(first)
        second = claim(user, campaign)
        submit(second)
        claim(user, campaign)
        reopened = judgments.undo(user=user, campaign=campaign)
        assert (reopened.pk, reopened.state) == (second.pk, State.OPEN)
        withdrawn = Judgment.objects.filter(assignment=second)
        assert [row.current for row in withdrawn] == [False, False]
        assert all(row.withdrawn_at for row in withdrawn)
        assert Judgment.objects.current().count() == 2
        assert set(judgments.last_answers(reopened).values()) == {Answer("picked", 0, 1)}

    def test_it_goes_on_with_the_interrupted_turn_after_a_corrected_one(self) -> None:
        user, campaign = make_user(), make_campaign(sets=2)
        submit(claim(user, campaign), submission=uuid.uuid4())
        interrupted = claim(user, campaign)
        reopened = judgments.undo(user=user, campaign=campaign)
        assert claim(user, campaign).pk == reopened.pk
        submit(reopened, picks(reopened, 2, 3), submission=uuid.uuid4())
        assert claim(user, campaign).pk == interrupted.pk
        current = Judgment.objects.current().values_list("revision", "best__index")
        assert set(current) == {(2, 2)}

    def test_it_refuses_an_old_submission_that_arrives_after_the_undo(self) -> None:
        user, campaign, sent = make_user(), make_campaign(), uuid.uuid4()
        turn = claim(user, campaign)
        submit(turn, submission=sent)
        judgments.undo(user=user, campaign=campaign)
        with pytest.raises(Refused, match="was undone"):
            submit(turn, submission=sent)
        assert not Judgment.objects.current().exists()

    def test_it_takes_back_a_skip_while_the_slot_is_free(self) -> None:
        user, campaign = make_user(), make_campaign()
        turn = claim(user, campaign)
        judgments.skip(assignment=turn, user=user)
        assert judgments.undo(user=user, campaign=campaign).pk == turn.pk
        judgments.skip(assignment=turn, user=user)
        claim(make_user(), campaign)
        with pytest.raises(Refused, match="gone to other people"):
            judgments.undo(user=user, campaign=campaign)

    def test_it_says_when_there_is_nothing_to_undo(self) -> None:
        turn = open_turn()
        with pytest.raises(Refused, match="nothing of yours to undo"):
            judgments.undo(user=turn.annotator, campaign=turn.item.campaign)

    def test_it_leaves_other_peoples_turns_alone(self) -> None:
        campaign, other = make_campaign(overlap=2), make_user()
        submit(claim(make_user(), campaign))
        with pytest.raises(Refused):
            judgments.undo(user=other, campaign=campaign)
        assert Judgment.objects.current().count() == 2


class TestTheDatabaseItself:
    def store(self, turn: Assignment, **fields: object) -> None:
        dimension = turn.set.source.task.criteria.all()[0].dimension
        values = {
            "assignment": turn,
            "set": turn.set,
            "dimension": dimension,
            "wording": dimension.wording,
            "outcome": "picked",
        }
        with transaction.atomic():
            Judgment.objects.create(**(values | fields))
            # The composite foreign keys are checked when the transaction ends.
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def test_it_refuses_a_best_that_is_the_worst(self) -> None:
        turn = open_turn()
        one = turn.set.candidates.all()[0]
        with pytest.raises(IntegrityError, match="judgment_best_is_not_worst"):
            self.store(turn, best=one, worst=one)

    def test_it_refuses_a_candidate_of_another_set(self) -> None:
        turn, other = open_turn(), open_turn()
        with pytest.raises(IntegrityError, match="judgment_worst_in_the_set"):
            self.store(turn, best=turn.set.candidates.all()[0], worst=other.set.candidates.all()[0])

    def test_it_refuses_a_second_current_judgment(self) -> None:
        turn = open_turn()
        submit(turn)
        best, worst = turn.set.candidates.all()[:2]
        with pytest.raises(IntegrityError, match="judgment_one_current"):
            self.store(turn, best=best, worst=worst, revision=2)

    def test_it_refuses_a_second_live_lease_of_a_slot(self) -> None:
        turn = open_turn(overlap=2)
        with pytest.raises(IntegrityError, match="assignment_one_live_lease"), transaction.atomic():
            Assignment.objects.create(
                item=turn.item,
                set=turn.set,
                annotator=make_user(),
                slot=turn.slot,
                order=turn.order,
                lease_until=timezone.now(),
            )


def test_it_offers_what_is_left_after_a_correction() -> None:
    user, campaign = make_user(), make_campaign(sets=1)
    turn = claim(user, campaign)
    submit(turn, submission=uuid.uuid4())
    submit(turn, picks(turn, 1, 0), submission=uuid.uuid4())
    assert counts.judged_share(campaign) == (1, 1)
    assert counts.submitted_today(user, campaign) == 1


@pytest.mark.django_db(transaction=True)
def test_whoever_is_chosen_to_break_a_deadlock_does_it_again() -> None:
    turn = claim(make_user(), make_campaign(sets=1))
    # Its slot is asked for anew: the turn is locked before its item.
    Assignment.objects.filter(pk=turn.pk).update(state=State.EXPIRED)
    turn.refresh_from_db()

    def act() -> int:
        try:
            return len(submit(turn))
        finally:
            connections.close_all()

    with psycopg.connect(address()) as other, ThreadPoolExecutor() as threads:
        other.execute("SET deadlock_timeout = '20s'")  # so that it is the judgment's that breaks
        other.execute(
            "SELECT 1 FROM annotation_item WHERE id = %s FOR NO KEY UPDATE", [turn.item_id]
        )
        done = threads.submit(act)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not done.done() and other.execute(waiting).fetchone() == (0,):
            time.sleep(0.01)
        update = "UPDATE annotation_assignment SET comment = comment WHERE id = %s"
        other.execute(update, [turn.pk])
        other.commit()
        assert done.result(30) == 2
    turn.refresh_from_db()
    assert turn.state == State.SUBMITTED
