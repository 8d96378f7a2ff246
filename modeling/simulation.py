"""Simulated annotators: they label through the same queue and the same record function as people.

What they see is the starter world's ground truth of a picture, blurred by slips (`noise`) and by
not telling close candidates apart. Only sources that carry a `scene` can be judged this way.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import numpy as np
from django.contrib.auth.models import User

from annotation import campaigns, judgments, queue
from annotation.models import Assignment, Campaign
from generation import images
from generation.models import Membership
from modeling.starter import annotators, truth
from modeling.starter.world import Scene

NAMES = ("sim-1", "sim-2", "sim-3", "sim-4")


class NotSimulable(Exception):
    """The campaign holds sources whose ground truth nobody knows."""


def crowd(campaign: Campaign) -> list[User]:
    """The simulated annotators' accounts, members of the campaign's project; they cannot log in."""
    found = []
    for name in NAMES:
        user, created = User.objects.get_or_create(username=name)
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        Membership.objects.get_or_create(project=campaign.project, user=user)
        found.append(user)
    return found


def simulate(
    *,
    campaign: Campaign,
    noise: float = 0.05,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Label what the queue hands out, at most `limit` sets; returns how many were labelled."""
    unknown = campaign.sets.filter(source__scene__isnull=True).count()
    if unknown:
        raise NotSimulable(
            f"{unknown} sets of campaign '{campaign}' come from pictures without known ground "
            "truth; simulated annotators judge starter scenes only. Let people label this campaign."
        )
    if not 0 <= noise <= 1:
        raise NotSimulable(f"noise is a probability between 0 and 1, not {noise}.")
    rng = np.random.default_rng(seed)
    people = crowd(campaign)
    done = 0
    idle = 0
    while idle < len(people) and (limit is None or done < limit):
        user = people[done % len(people)] if idle == 0 else people[(done + idle) % len(people)]
        assignment = queue.claim(user=user, campaign=campaign)
        if assignment is None:
            idle += 1
            continue
        idle = 0
        answers = _judge(assignment, noise=noise, rng=rng)
        judgments.record(
            assignment=assignment,
            user=user,
            answers=answers,
            submission=uuid.uuid4(),
            seconds_spent=float(rng.gamma(4.0, 2.0)),
        )
        done += 1
        if progress is not None:
            progress(done)
    return done


def _judge(
    assignment: Assignment, *, noise: float, rng: np.random.Generator
) -> dict[str, judgments.Answer]:
    source = assignment.set.source
    assert source.scene is not None  # `simulate` refused the others
    scene = Scene.from_dict(source.scene)
    candidates = list(assignment.set.candidates.select_related("image").order_by("index"))
    scores = []
    for candidate in candidates:
        assert candidate.image is not None  # the queue hands out ready sets only
        scores.append(truth.score(np.asarray(images.open_image(candidate.image)), scene))
    answers = {}
    for dimension in campaigns.dimensions_for(assignment.item.campaign, source.task):
        if dimension.slug not in scores[0]:
            answers[dimension.slug] = judgments.Answer(outcome="cannot_judge")
            continue
        values = [score[dimension.slug] for score in scores]
        picked = annotators.best_worst(values, rng, noise=noise, tie=annotators.JUST_NOTICEABLE)
        if picked is None:
            answers[dimension.slug] = judgments.Answer(outcome="no_difference")
        else:
            best, worst = (candidates[place].index for place in picked)
            answers[dimension.slug] = judgments.Answer(outcome="picked", best=best, worst=worst)
    return answers
