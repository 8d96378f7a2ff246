"""Ranking on order: a row owns the work, and a worker ranks those that wait together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils.translation import gettext as _

from generation import images
from generation.models import Candidate, Image, Project, Source
from generation.ownership import JobState, LeaseLost
from modeling import judging, policy_inputs, runs
from modeling.models import RankedPicture, Ranking, RewardModel

T = TypeVar("T")
logger = logging.getLogger(__name__)

FEWEST, MOST = 2, 16
TOGETHER = 16  # rankings that share batches
ATTEMPTS = 3  # a row that takes its worker down is not tried for ever
OPEN_PER_PERSON = 32
POLL_SECONDS = 0.1


class RankingError(ValueError):
    """One readable sentence: why this cannot be ranked, and the remedy."""


class Given(NamedTuple):
    """A picture to rank, and the candidate it is, if it is one."""

    image: Image
    candidate: Candidate | None = None


def active_reward() -> RewardModel:
    model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
    if model is None:
        raise RankingError(_("No reward model is active. Make one active in the admin."))
    return model


@transaction.atomic
def order(
    *,
    project: Project,
    source: Source,
    pictures: Sequence[Given],
    model: RewardModel,
    user: User | None = None,
) -> Ranking:
    """Have pictures of a source, which need not be stored, ranked by a worker."""
    if not FEWEST <= len(pictures) <= MOST:
        raise RankingError(
            _("Give %(fewest)d to %(most)d pictures, not %(count)d.")
            % {"fewest": FEWEST, "most": MOST, "count": len(pictures)}
        )
    if len({(given.image.width, given.image.height) for given in pictures}) > 1:
        raise RankingError(_("All pictures must have one size to be compared."))
    if not policy_inputs.questions(source.task, model)[0]:
        raise RankingError(
            _("“%(model)s” judges no dimension of %(task)s. Choose another reward model.")
            % {"model": model, "task": source.task}
        )
    if user and Ranking.objects.unfinished().filter(requested_by=user).count() >= OPEN_PER_PERSON:
        raise RankingError(
            _("You have %(count)d rankings waiting. Wait until some are done.")
            % {"count": OPEN_PER_PERSON}
        )
    row = Ranking.objects.create(
        project=project,
        task=source.task,
        image=source.image,
        mask=source.mask,
        prompt=source.prompt,
        reward_model=model,
        requested_by=user,
    )
    RankedPicture.objects.bulk_create(
        RankedPicture(ranking=row, index=index, image=given.image, candidate=given.candidate)
        for index, given in enumerate(pictures)
    )
    transaction.on_commit(ring, robust=True)  # beat rings once the broker is back
    return row


def ring() -> None:
    from modeling.jobs import rank_waiting

    rank_waiting.delay()


# Working ----------------------------------------------------------------------------------------


def work() -> int:
    """Rank whatever waits; how many rankings this call brought to an end."""
    ended = 0
    while rows := _claim():
        with ExitStack() as stack:
            for row in rows:
                stack.enter_context(row.heartbeat())
            _rank(rows)
        ended += len(rows)
    return ended


def _claim() -> list[Ranking]:
    """The oldest that waits, and others for the same reward model."""
    waiting = Ranking.objects.claimable().order_by("pk")
    if (first := waiting.first()) is None:
        return []
    rows = waiting.filter(reward_model=first.reward_model)[:TOGETHER]
    return [row for row in rows.select_related("task", "image", "mask", "project") if row.claim()]


def _rank(rows: list[Ranking]) -> None:
    asked: list[tuple[Ranking, judging.Contest]] = []
    for row in rows:
        try:
            asked.append((row, _contest(row)))
        except (judging.JudgeError, images.ImageError, runs.RunFailed, RankingError) as error:
            row.fail(str(error))
    if not asked:
        return
    try:
        judge = judging.loaded_judge(rows[0].reward_model)
        found = judge.rank_all([contest for _row, contest in asked])
    except Exception as error:
        logger.exception("Rankings %s failed", [row.pk for row, _contest in asked])
        if len(asked) > 1:  # one of them may be at fault
            for row, _contest_of in asked:
                _rank([row])
        else:
            asked[0][0].fail(f"{type(error).__name__}: {error}")
        return
    for (row, _contest_of), result in zip(asked, found, strict=True):
        try:
            row.finish(result=result)
        except LeaseLost:
            continue  # cancelled, or another worker's


def _contest(row: Ranking) -> judging.Contest:
    if row.attempt > ATTEMPTS:
        raise RankingError(
            _("This ranking ended its worker %(count)d times. Try smaller or fewer pictures.")
            % {"count": ATTEMPTS}
        )
    runs.check_reward(row.reward_model)
    pictures = row.pictures.select_related("image")
    opened = [images.open_image(picture.image) for picture in pictures]
    return judging.contest(row.reward_model, row.source(), opened)


# Asking -----------------------------------------------------------------------------------------


def wait(row: Ranking, seconds: float) -> Ranking:
    """The row once it has ended, or after so many seconds."""
    rows = Ranking.objects.select_related("task", "reward_model")
    open_ = (JobState.QUEUED, JobState.RUNNING)
    return poll(lambda: rows.get(pk=row.pk), lambda found: found.state in open_, seconds)


def poll(read: Callable[[], T], is_open: Callable[[T], bool], seconds: float) -> T:
    """Read until it is not open any more; between two looks no connection is held."""
    end = time.monotonic() + seconds
    while is_open(found := read()) and time.monotonic() < end:
        if not connection.in_atomic_block:
            connection.close()
        time.sleep(POLL_SECONDS)
    return found


def as_json(row: Ranking, address: Callable[[str], str]) -> dict[str, Any]:
    """The row for a program; `address` makes a path of this site whole."""
    pictures = list(row.pictures.select_related("image"))
    ranked = [
        {
            "rank": rank,
            "index": found["index"],
            "candidate": pictures[found["index"]].candidate_id,
            "image": pictures[found["index"]].image.sha256,
            "score": found["score"],
            "margins": found["dimensions"],
            "flipped": found["flipped"],
        }
        for rank, found in enumerate(row.result, start=1)
    ]
    return {
        "id": row.pk,
        "url": address(row.get_absolute_url()),
        "state": row.state,
        "error": row.error or None,
        "task": row.task.slug,
        "reward_model": row.reward_model.name,
        "ranking": ranked or None,
    }
