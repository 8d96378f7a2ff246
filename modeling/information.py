"""What a label would tell a reward model, from its own opinion of a set's candidates.

`measure` asks the model once per set and keeps the answer; `close` and `expected` read it. The
margin of two candidates is rebuilt from their scores: a score is the mean margin over the N - 1
others, so that with additive margins a difference of scores is N / (N - 1) margins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, zip_longest
from math import exp, log, pi, sqrt
from typing import Any

from annotation import contents
from annotation.models import Campaign
from generation import embeddings, images
from generation.bandit import CLOSE
from generation.models import Candidate, CandidateSet
from modeling import judging, runs
from modeling.judging import JudgeError
from modeling.models import RewardModel, SetScore

Lists = Mapping[str, Sequence[float]]  # "score", "std" and "flipped", by a candidate's index
TOGETHER = 8  # sets whose comparisons share batches
POOL = 4  # most informative sets among which diversity chooses one


# Asking -----------------------------------------------------------------------------------------


def measure(
    model: RewardModel,
    sets: Iterable[CandidateSet],
    progress: Callable[[int, int], None] | None = None,
    *,
    others: Sequence[RewardModel] = (),
) -> int:
    """Score the ready sets that `model` has not scored; how many were. Runs where torch is.

    `others` judge together with it, and a set is scored again where other ones did before; raises
    JudgeError where they cannot. Sets that cannot be compared (one picture, several sizes, nothing
    that the model judges) are left out.
    """
    judging.check_together(model, others)
    members = sorted(other.pk for other in others)
    known = set(model.set_scores.filter(members=members).values_list("set", flat=True))
    waiting = [one for one in sets if one.pk not in known and one.size > 1]
    if not waiting:
        return 0
    for one in (model, *others):
        runs.check_reward(one)
    done = scored = 0
    rest = iter(waiting)
    while chunk := list(islice(rest, TOGETHER)):
        asked = list(_contests(model, chunk))
        if asked:
            judge = judging.loaded_judge(model, others)
            rankings = judge.rank_all([contest for _, contest in asked])
            SetScore.objects.bulk_create(
                [
                    SetScore(
                        set=one,
                        reward_model=model,
                        by_dimension=_by_dimension(ranking),
                        members=members,
                    )
                    for (one, _), ranking in zip(asked, rankings, strict=True)
                ],
                update_conflicts=True,
                unique_fields=["set", "reward_model"],
                update_fields=["by_dimension", "members"],
            )
            scored += len(asked)
        done += len(chunk)
        if progress is not None:
            progress(done, len(waiting))
    return scored


def _contests(
    model: RewardModel, sets: Sequence[CandidateSet]
) -> Iterator[tuple[CandidateSet, judging.Contest]]:
    for one in sets:
        rows = Candidate.objects.filter(set=one, image__isnull=False).select_related("image")
        pictures = [images.open_image(row.image) for row in rows.order_by("index") if row.image]
        if len(pictures) == one.size:
            try:
                yield one, judging.contest(model, one.source, pictures)
            except JudgeError:
                continue


def _by_dimension(ranking: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    rows = sorted(ranking, key=lambda row: row["index"])
    names = {"score": "dimensions", "std": "std", "flipped": "flipped"}
    return {
        dimension: {
            name: [round(row[key][dimension], 4) for row in rows] for name, key in names.items()
        }
        for dimension in rows[0]["dimensions"]
    }


# Reading ----------------------------------------------------------------------------------------


def margin(lists: Lists, first: int, second: int) -> float:
    """Log-odds that the first candidate is better, rebuilt from the scores."""
    scores = lists["score"]
    return (scores[first] - scores[second]) * (len(scores) - 1) / len(scores)


def close(lists: Lists, first: int, second: int) -> bool:
    return abs(margin(lists, first, second)) < CLOSE


def expected(by_dimension: Mapping[str, Lists]) -> float:
    """Bits a label is expected to bring: mean entropy of the answers over pairs and dimensions.

    An answer that changes with the order of the two pictures, or with the member of an ensemble,
    counts as less sure than its margin says: the margin loses the share of flips, and is divided by
    MacKay's factor for its variance (1992).
    """
    bits = []
    for lists in by_dimension.values():
        share = (len(lists["score"]) - 1) / len(lists["score"])
        for first, second in combinations(range(len(lists["score"])), 2):
            flips = (lists["flipped"][first] + lists["flipped"][second]) / 2
            variance = (lists["std"][first] ** 2 + lists["std"][second] ** 2) * share**2
            sure = margin(lists, first, second) * (1 - flips) / sqrt(1 + pi / 8 * variance)
            bits.append(_entropy(sure))
    return sum(bits) / len(bits) if bits else 0.0


def _entropy(logit: float) -> float:
    """Of a yes/no answer, in bits."""
    chance = 1 / (1 + exp(min(abs(logit), 600.0)))
    return -(chance * log(chance) + (1 - chance) * log(1 - chance)) / log(2)


# Labelling first what says most -----------------------------------------------------------------

Cluster = Callable[[Sequence[int], int], Sequence[int]]  # of sets, into so many: each one's cluster


def prioritise(
    campaign: Campaign, model: RewardModel, *, count: int, clusters: Cluster | None = None
) -> list[tuple[int, float]]:
    """Hand out first the sets whose labels are expected to say most; (set, bits), best first.

    With `clusters` the most informative ones also differ among themselves; see `spread`. Only what
    still waits and was scored takes part; call `measure` before.
    """
    waiting = campaign.items.filter(full=False)
    scores = SetScore.objects.filter(reward_model=model, set__in=waiting.values("set"))
    found = [(one.set_id, expected(one.by_dimension)) for one in scores]
    ordered = sorted(found, key=lambda row: (-row[1], row[0]))
    chosen = spread(ordered, count, clusters) if clusters else ordered[:count]
    first = waiting.filter(set__in=[pk for pk, _ in chosen])
    contents.set_priority(campaign=campaign, items=waiting, priority=0)
    contents.set_priority(campaign=campaign, items=first, priority=1)
    return chosen


def spread(
    ordered: Sequence[tuple[int, float]], count: int, clusters: Cluster
) -> list[tuple[int, float]]:
    """`count` of the most informative sets, from as many clusters of pictures as there are.

    Cluster-Margin (Citovsky et al. 2021): the most informative sets, several times as many as are
    wanted, are clustered, and the clusters give their most informative one in turn, small clusters
    first. Bits alone choose near-copies of one hard picture.
    """
    pool = ordered[: count * POOL]
    if len(pool) <= count:
        return list(pool)
    of = clusters([pk for pk, _ in pool], count)
    members: dict[int, list[tuple[int, float]]] = {}
    for row, cluster in zip(pool, of, strict=True):
        members.setdefault(cluster, []).append(row)
    groups = sorted(members.values(), key=lambda rows: (len(rows), -rows[0][1]))
    turns = zip_longest(*groups)
    chosen = [row for turn in turns for row in turn if row is not None][:count]
    return sorted(chosen, key=lambda row: (-row[1], row[0]))


def by_picture(model: str, progress: Callable[[int, int], None] | None = None) -> Cluster:
    """Clusters of the sets' source pictures by a CLIP model; raises EmbeddingError when asked."""

    def clusters(sets: Sequence[int], count: int) -> list[int]:
        rows = CandidateSet.objects.select_related("source__image").in_bulk(sets)
        pictures = [rows[pk].source.image for pk in sets]
        return embeddings.clusters(embeddings.embed(pictures, model, progress), count)

    return clusters
