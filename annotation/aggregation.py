"""What many people's answers add up to: plain majority, and with people weighted by reliability.

Best picks go through the one-coin Dawid–Skene model (Zhang, Chen, Zhou and Jordan 2016) of
crowd-kit: a person gives the true answer with a probability of their own, and any other one
otherwise. The full model's confusion matrices would tell candidate 1 from candidate 2, whose
numbers are drawn at random and mean nothing. "No difference" is an answer like the others; "can't
judge" is none.

The order of all candidates of a set comes from a noisy Bradley–Terry model (Chen, Bennett,
Collins-Thompson and Horvitz 2013) on the pairs that best and worst imply, as `preferences` derives
them: a person looks with probability σ(γ) and otherwise takes the left one with probability σ(q).

crowd-kit imports scipy and scikit-learn (200 MB), so only the job and the command that call
`aggregate` load it; pages read the rows it stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from annotation import agreement
from annotation.agreement import Floats, Ints
from annotation.figures import VALUES, pick_values
from annotation.judged import MOST, PICKED, WORK, Judged, load, standing
from annotation.models import Aggregation, Campaign, Consensus
from generation.models import Candidate

if TYPE_CHECKING:
    import pandas as pd

ITERATIONS = 100
# Keeps scores finite where everybody says the same.
REGULARISATION = 0.1
BATCH = 2000
OVERDUE = timedelta(minutes=2)  # after which an order is asked for again
LOCK = 0x41676772  # the first half of the advisory locks of aggregations


@dataclass(frozen=True)
class Votes:
    """One row per answer: what it is about, whose it is, and which value it names."""

    unit: Ints
    person: Ints
    value: Ints


@dataclass(frozen=True)
class Verdicts:
    """Per unit the value that wins and how sure that is; `units` ascend."""

    units: Ints
    values: Ints
    confidence: Floats
    people: Ints
    accuracy: dict[int, float]  # of each person, as estimated; empty for a majority


def majority(votes: Votes) -> Verdicts:
    """The value most people gave and the share that gave it; a tie goes to the lowest."""
    units, counts = agreement.count(votes.unit, votes.value, VALUES)
    people = counts.sum(1)
    share = counts.max(1, initial=0) / np.maximum(people, 1)
    return Verdicts(units, counts.argmax(1), share, people, {})


def weighted(votes: Votes) -> Verdicts:
    """The most probable of the given values under the one-coin Dawid–Skene model."""
    plain = majority(votes)
    if len(np.unique(votes.value)) < 2:
        # Nothing is in dispute, and the model divides by the number of other values.
        return Verdicts(
            plain.units,
            plain.values,
            plain.confidence,
            plain.people,
            dict.fromkeys(np.unique(votes.person).tolist(), 1.0),
        )
    import pandas as pd
    from crowdkit.aggregation import OneCoinDawidSkene

    data = pd.DataFrame({"task": votes.unit, "worker": votes.person, "label": votes.value})
    model = OneCoinDawidSkene(n_iter=ITERATIONS).fit(data)
    assert model.probas_ is not None
    chances = model.probas_.reindex(plain.units).fillna(0.0)
    table = chances.to_numpy()
    # What nobody named may be no candidate of this set.
    _, named = agreement.count(votes.unit, votes.value, VALUES)
    table = np.where(named[:, chances.columns.to_numpy()] > 0, table, 0.0)
    return Verdicts(
        plain.units,
        chances.columns.to_numpy()[table.argmax(1)],
        np.clip(table.max(1), 0.0, 1.0),
        plain.people,
        {int(person): float(skill) for person, skill in model.skills_.items()},
    )


@dataclass(frozen=True)
class Pairs:
    """One row per comparison; the left candidate stood further left on that person's screen."""

    person: Ints
    left: Ints
    right: Ints
    chosen: Ints


@dataclass(frozen=True)
class Ranking:
    scores: dict[int, float]  # per candidate, 0 to 1; comparable within a set
    attentive: dict[int, float]  # per person, the probability that they look


def rank(pairs: Pairs) -> Ranking:
    """Scores under the noisy Bradley–Terry model."""
    if not len(pairs.person):
        return Ranking({}, {})
    import pandas as pd

    data = pd.DataFrame(
        {
            "worker": pairs.person,
            "left": pairs.left,
            "right": pairs.right,
            "label": pairs.chosen,
        }
    )
    model = noisy_bradley_terry().fit(data)
    return Ranking(_by_number(model.scores_), _by_number(model.skills_))


def _by_number(series: pd.Series[Any]) -> dict[int, float]:
    return {int(name): float(value) for name, value in series.items()}


def noisy_bradley_terry() -> Any:
    """crowd-kit's model with the gradient of its own likelihood.

    As of 1.4.2 the library's gradient keeps only each person's last comparison, one place off, its
    regulariser rewards large scores in the value and punishes them in the gradient, and it walks
    through comparisons one by one. The test holds this one against finite differences.
    """
    from crowdkit.aggregation import NoisyBradleyTerry
    from scipy.special import expit

    class Corrected(NoisyBradleyTerry):
        @staticmethod
        def _compute_log_likelihood(
            x: Floats,
            np_data: Ints,
            np_workers: Ints,
            labels: int,
            people: int,
            regularization_ratio: float,
        ) -> float:
            _, _, _, chance, _ = _terms(x, np_data, np_workers, labels, people)
            apart = x[1 : labels + 1] - x[0]
            held = np.log(expit(apart)) + np.log(expit(-apart))
            return float(-np.log(chance).sum() - regularization_ratio * held.sum())

        @staticmethod
        def _compute_gradient(
            x: Floats,
            np_data: Ints,
            np_workers: Ints,
            labels: int,
            people: int,
            regularization_ratio: float,
        ) -> Floats:
            sign, looks, better, chance, blind = _terms(x, np_data, np_workers, labels, people)
            score = looks * better * (1 - better) * sign / chance
            bias = (1 - looks) * blind * (1 - blind) * sign / chance
            skill = looks * (1 - looks) * (better - blind) / chance
            pull = np.tanh((x[1 : labels + 1] - x[0]) / 2)
            gradient = np.bincount(np_data[:, 0], score, labels + 1)
            gradient -= np.bincount(np_data[:, 1], score, labels + 1)
            gradient[1:] -= regularization_ratio * pull
            gradient[0] += regularization_ratio * pull.sum()
            parts = [np.bincount(np_workers, part, people) for part in (bias, skill)]
            return -np.concatenate([gradient, *parts])

    def _terms(
        x: Floats, rows: Ints, workers: Ints, labels: int, people: int
    ) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        sign = np.where(rows[:, 0] == rows[:, 2], 1.0, -1.0)
        looks = expit(x[1 + labels + people + workers])
        better = expit(sign * (x[rows[:, 0]] - x[rows[:, 1]]))
        blind = expit(sign * x[1 + labels + workers])
        return sign, looks, better, looks * better + (1 - looks) * blind, blind

    return Corrected(n_iter=ITERATIONS, regularization_ratio=REGULARISATION)


# A campaign -------------------------------------------------------------------------------------


def votes_of(judged: Judged) -> Votes:
    values = pick_values(judged)
    said = values >= 0
    return Votes(judged.item[judged.row[said]], judged.person[judged.row[said]], values[said])


def pairs_of(judged: Judged) -> Pairs:
    """Best over each other, and each other over worst; a candidate is called item × 8 + index."""
    picked = judged.only(judged.outcome == PICKED)
    order = picked.order[picked.row]  # (J, 8) indexes from left to right
    shown = order >= 0
    is_best, is_worst = order == picked.best[:, None], order == picked.worst[:, None]
    base = picked.item[picked.row] * MOST
    best_at, worst_at = is_best.argmax(1), is_worst.argmax(1)
    parts = []
    # The pair of best and worst comes from the first of the two alone.
    for end, at, rivals, wins in (
        (picked.best, best_at, shown & ~is_best, True),
        (picked.worst, worst_at, shown & ~is_worst & ~is_best, False),
    ):
        row, place = np.nonzero(rivals)
        mine, other = base[row] + end[row], base[row] + order[row, place]
        first = at[row] < place
        parts.append(
            (
                picked.person[picked.row[row]],
                np.where(first, mine, other),
                np.where(first, other, mine),
                mine if wins else other,
            )
        )
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def aggregate(campaign: Campaign) -> Aggregation:
    """Work out and store the consensus of every item × dimension, in place of the earlier one."""
    started, began = timezone.now(), time.monotonic()
    judged = load(campaign)
    work = judged.only(judged.kind[judged.row] == WORK)
    rows: list[Consensus] = []
    reliability: list[dict[str, Any]] = []
    candidates = _candidates(campaign)
    for dimension in np.unique(work.dimension).tolist():
        made, people = _dimension(work.only(work.dimension == dimension), dimension, candidates)
        rows += made
        reliability += people
    with transaction.atomic():
        found, _ = Aggregation.objects.get_or_create(campaign=campaign)
        found = Aggregation.objects.select_for_update().get(pk=found.pk)
        if found.made_at is not None and found.made_at > started:
            return found  # a later one was stored in the meantime
        Consensus.objects.filter(item__campaign=campaign).delete()
        Consensus.objects.bulk_create(rows, batch_size=BATCH)
        found.made_at = started
        found.judgments = len(work.row)
        found.seconds = round(time.monotonic() - began, 2)
        found.reliability = reliability
        found.save(update_fields=["made_at", "judgments", "seconds", "reliability"])
    return found


def _candidates(campaign: Campaign) -> dict[int, dict[int, int]]:
    """Per set the ids of its candidates by index."""
    found: dict[int, dict[int, int]] = {}
    sets = campaign.items.values("set")
    rows = Candidate.objects.filter(set__in=sets).values_list("set_id", "index", "pk")
    for set_id, index, pk in rows.iterator():
        found.setdefault(set_id, {})[index] = pk
    return found


def _dimension(
    work: Judged, dimension: int, candidates: dict[int, dict[int, int]]
) -> tuple[list[Consensus], list[dict[str, Any]]]:
    votes = votes_of(work)
    plain, sure = majority(votes), weighted(votes)
    ranking = rank(pairs_of(work))
    sets = dict(zip(work.item.tolist(), work.set.tolist(), strict=True))
    rows = []
    for place, item in enumerate(sure.units.tolist()):
        ids = candidates[sets[item]]
        scores = {
            index: ranking.scores[key]
            for index in ids
            if (key := item * MOST + index) in ranking.scores
        }
        best = int(sure.values[place])
        rest = [index for index in scores if index != best]
        worst = min(rest, key=scores.__getitem__) if best < MOST else None
        rows.append(
            Consensus(
                item_id=item,
                dimension_id=dimension,
                best_id=ids.get(best),
                worst_id=None if worst is None else ids[worst],
                confidence=float(sure.confidence[place]),
                people=int(sure.people[place]),
                majority_id=ids.get(int(plain.values[place])),
                majority_share=float(plain.confidence[place]),
                scores={str(index): round(score, 4) for index, score in scores.items()},
            )
        )
    names, counts = np.unique(work.person[work.row], return_counts=True)
    people = [
        {
            "user": int(user),
            "dimension": dimension,
            "n": int(n),
            "accuracy": round(sure.accuracy.get(int(user), 0.0), 4),
            "attentive": _rounded(ranking.attentive.get(int(user))),
        }
        for user, n in zip(names, counts, strict=True)
        if int(user) in sure.accuracy
    ]
    return rows, people


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def request(campaign: Campaign) -> Aggregation:
    """Order an aggregation from the worker."""
    from annotation.jobs import aggregate_campaign

    with transaction.atomic():
        found, _ = Aggregation.objects.update_or_create(
            campaign=campaign, defaults={"requested_at": timezone.now()}
        )
        # Where the broker is away, beat rings once it is back.
        transaction.on_commit(lambda: aggregate_campaign.delay(campaign.pk), robust=True)
    return found


def overdue() -> list[int]:
    """Campaigns whose order nobody heard, or whose worker died."""
    late = Aggregation.objects.filter(requested_at__lt=timezone.now() - OVERDUE)
    waiting = late.filter(Q(made_at=None) | Q(made_at__lt=F("requested_at")))
    return list(waiting.values_list("campaign_id", flat=True))


@contextmanager
def alone(campaign_id: int) -> Iterator[bool]:
    """Whether no other worker is at this campaign's; none begins meanwhile."""
    key = [LOCK, campaign_id]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", key)
        mine = bool(cursor.fetchone()[0])
        try:
            yield mine
        finally:
            if mine:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", key)


def newer(found: Aggregation) -> int:
    """How many judgments stand that it has not seen, or that it saw and stand no more."""
    work = standing(found.campaign).filter(assignment__kind="work").count()
    return abs(work - found.judgments)


def reliability_by_person(found: Aggregation | None) -> dict[int, float]:
    """Each person's estimated accuracy over all dimensions, weighted by how much they judged."""
    sums: dict[int, list[float]] = {}
    for entry in found.reliability if found else []:
        total = sums.setdefault(entry["user"], [0.0, 0.0])
        total[0] += entry["accuracy"] * entry["n"]
        total[1] += entry["n"]
    return {user: points / n for user, (points, n) in sums.items() if n}
