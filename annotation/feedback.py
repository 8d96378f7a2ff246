"""What becomes of candidates in production, and the preferences that it implies.

These preferences have an origin of their own: nobody was asked a question. They go into a snapshot
only when it is asked for (`train_reward --feedback WEIGHT`), into a file of their own, as answers
about the dimension "overall", from training pictures alone: held-out figures stay people's.

Of the candidates that one person was shown together, the last event of each counts. Published
beats accepted beats edited again beats discarded (direct); accepted or published beats those of
which nothing was reported (implied). A pair counts more, up to twice, the more valuable its better
picture was, relative to the project's mean, and down to half.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Literal

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Avg, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from annotation import preferences
from annotation.models import Feedback
from annotation.preferences import DIRECT_WEIGHT, IMPLIED_WEIGHT, Preference, Shown
from generation.models import Candidate, CandidateSet, Project

DIMENSION = "overall"
Kind = Feedback.Kind
LEVEL = {Kind.PUBLISHED: 3, Kind.ACCEPTED: 2, Kind.EDITED: 1, Kind.DISCARDED: 0}
TAKEN = (Kind.ACCEPTED, Kind.PUBLISHED)
LOWEST, HIGHEST = 0.5, 2.0  # what the value may make of a weight
AHEAD = timedelta(minutes=5)  # by which the other system's clock may be wrong


class FeedbackError(ValueError):
    """One readable sentence: why this cannot be stored, and the remedy."""


def record(
    *,
    candidate: Candidate,
    kind: str,
    user: str,
    client_id: str,
    happened_at: datetime | None = None,
    value: float | None = None,
    reported_by: User | None = None,
) -> tuple[Feedback, bool]:
    """Store one event; sent again under the same id it is the same row. FeedbackError says why not.

    `user` is the other system's name for whoever did it; only a digest of it is kept.
    """
    project = candidate.set.source.project
    now = timezone.now()
    when = happened_at or now
    if not candidate.set.created_at - AHEAD <= when <= now + AHEAD:
        raise FeedbackError(_("The event must lie between the picture's making and now."))
    said = {
        "candidate": candidate,
        "kind": kind,
        "value": value,
        "user": pseudonym(project, user),
    }
    try:
        with transaction.atomic():
            row = Feedback.objects.create(
                project=project,
                policy=candidate.policy,
                client_id=client_id,
                happened_at=when,
                reported_by=reported_by,
                **said,
            )
        return row, True
    except IntegrityError as error:
        if "feedback_once" not in str(error):
            raise
    row = Feedback.objects.get(project=project, client_id=client_id)
    same_time = happened_at is None or row.happened_at == happened_at
    if not same_time or any(getattr(row, name) != given for name, given in said.items()):
        raise FeedbackError(_("Another event was sent under this id. Give every event its own."))
    return row, False


def pseudonym(project: Project, user: str) -> str:
    """The same person has another name in every project."""
    key = f"{project.pk}:{user}"
    return salted_hmac("annotation.feedback", key, algorithm="sha256").hexdigest()[:16]


# Preferences ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Implied:
    """A preference that nobody was asked for."""

    preference: Preference
    user: str
    happened_at: datetime


def derive(rows: QuerySet[Feedback]) -> Iterator[Implied]:
    """The preferences that these events imply, set by set and person by person."""
    events: dict[int, dict[str, list[Feedback]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.select_related("candidate").order_by("happened_at", "pk"):
        events[row.candidate.set_id][row.user].append(row)
    usual = dict(rows.filter(value__gt=0).values_list("project").annotate(Avg("value")).order_by())
    sets = CandidateSet.objects.select_related("source__task", "source__image", "source__mask")
    found = sets.in_bulk(list(events))
    shown = preferences.candidates_of(events)
    for number in sorted(events):
        for user in sorted(events[number]):
            mine = events[number][user]
            yield from _of_person(
                found[number], shown.get(number, []), mine, usual.get(mine[0].project_id)
            )


def _of_person(
    made: CandidateSet, shown: list[Shown], rows: list[Feedback], usual: float | None
) -> Iterator[Implied]:
    last = {row.candidate_id: row for row in rows}  # in the order of time
    value = _values(rows)
    images = {one.pk: one.image for one in shown}
    for better, worse, relation in _pairs(last, images):
        chosen, rejected = images[better], images[worse]
        if chosen == rejected:
            continue
        weight = DIRECT_WEIGHT if relation == "direct" else IMPLIED_WEIGHT
        if usual and better in value:
            weight *= min(HIGHEST, max(LOWEST, value[better] / usual))
        source = made.source
        yield Implied(
            Preference(
                set=made.pk,
                task=source.task.slug,
                dimension=DIMENSION,
                prompt=source.effective_prompt,
                source=source.image.sha256,
                mask=source.mask.sha256,
                chosen=chosen,
                rejected=rejected,
                relation=relation,
                weight=weight,
                split=source.split,
                annotator=0,  # nobody of this installation
            ),
            last[better].user,
            last[better].happened_at,
        )


def _values(rows: Iterable[Feedback]) -> dict[int, float]:
    """What each candidate brought, over all its events."""
    found: dict[int, float] = defaultdict(float)
    for row in rows:
        if row.value is not None:
            found[row.candidate_id] += row.value
    return found


def _pairs(
    last: Mapping[int, Feedback], images: Mapping[int, str]
) -> Iterator[tuple[int, int, Literal["direct", "implied"]]]:
    """(better, worse) candidates, as far as pictures of them are there."""
    level = {pk: LEVEL[Kind(row.kind)] for pk, row in last.items() if pk in images}
    for one, other in combinations(sorted(level), 2):
        if level[one] != level[other]:
            better, worse = (one, other) if level[one] > level[other] else (other, one)
            yield better, worse, "direct"
    for better in sorted(level):
        if last[better].kind in TAKEN:
            for worse in sorted(images.keys() - level.keys()):
                yield better, worse, "implied"
