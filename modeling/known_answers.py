"""Known answers from the ground truth of the starter world."""

from __future__ import annotations

import numpy as np

from annotation import gold
from annotation.campaigns import dimensions_for
from annotation.gold import Known
from annotation.models import Campaign, Gold
from generation import images
from generation.models import CandidateSet
from modeling.simulation import NotSimulable
from modeling.starter import truth
from modeling.starter.annotators import JUST_NOTICEABLE
from modeling.starter.world import Scene

# Best and worst must stand apart from the rest by more than a person overlooks; where they stand
# apart by as much as this, only somebody who does not look gets it wrong.
PLAIN = 0.4


def from_truth(campaign: Campaign, *, limit: int | None = None) -> list[Known]:
    """What is plainly best and worst of the campaign's sets, as far as it is not known yet.

    `limit` is a number of sets.
    """
    sets = (
        CandidateSet.objects.ready()
        .filter(items__campaign=campaign, source__scene__isnull=False)
        .select_related("source__task")
        .order_by("items__position", "pk")
        .distinct()
    )
    if not sets.exists():
        raise NotSimulable(
            f"No set of campaign '{campaign}' comes from a starter scene, so their ground truth is "
            "not known. Use answers that people agree on: --from consensus."
        )
    known = set(
        Gold.objects.filter(set__items__campaign=campaign).values_list("set_id", "dimension_id")
    )
    asked: dict[int, dict[str, int]] = {}
    found: list[Known] = []
    named: set[int] = set()
    for candidate_set in sets.iterator(chunk_size=200):
        if limit is not None and len(named) >= limit:
            break
        task = candidate_set.source.task
        if task.pk not in asked:
            asked[task.pk] = {d.slug: d.pk for d in dimensions_for(campaign, task)}
        for answer in _plain(candidate_set, asked[task.pk]):
            if (answer.set, answer.dimension) not in known:
                found.append(answer)
                named.add(answer.set)
    return gold.first_sets(found, limit)


def _plain(candidate_set: CandidateSet, dimensions: dict[str, int]) -> list[Known]:
    assert candidate_set.source.scene is not None
    scene = Scene.from_dict(candidate_set.source.scene)
    candidates = candidate_set.candidates.select_related("image").order_by("index")
    scores = []
    for candidate in candidates:
        assert candidate.image is not None  # the set is ready
        scores.append(truth.score(np.asarray(images.open_image(candidate.image)), scene))
    found = []
    for slug in dimensions.keys() & scores[0].keys():
        values = [score[slug] for score in scores]
        ranked = sorted(range(len(values)), key=values.__getitem__)
        worst, best = ranked[0], ranked[-1]
        margin = min(values[best] - values[ranked[-2]], values[ranked[1]] - values[worst])
        if margin >= JUST_NOTICEABLE:
            found.append(
                Known(candidate_set.pk, dimensions[slug], best, worst, attention=margin >= PLAIN)
            )
    return sorted(found, key=lambda answer: answer.dimension)
