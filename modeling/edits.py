"""Edits on order: N candidates of one picture by a policy, the best of more where wished."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from PIL import Image as Pillow

from generation import candidates, images, policies, sources
from generation.models import Candidate, Policy, Project, Source, Task
from generation.ownership import JobState
from modeling import rankings
from modeling.models import Edit, RewardModel

FEWEST, MOST = 2, 8  # candidates of a set
OPEN_PER_PERSON = 8
ACTIVE = "active"
# Values of a candidate that an order may fix, instead of drawing them from the task's plan.
SAMPLING: dict[str, tuple[float, float]] = {
    "num_inference_steps": (1, 200),
    "strength": (0.01, 1),
    "guidance_scale": (0, 1000),
    "true_cfg_scale": (1, 100),
}


class EditError(ValueError):
    """One readable sentence: why this cannot be edited, and the remedy."""


# What `order` may raise, each with one readable sentence.
REFUSALS = (
    EditError,
    rankings.RankingError,
    policies.PolicyError,
    candidates.CandidateError,
    sources.SourceError,
    images.ImageError,
)


def policy_named(name: str) -> Policy:
    return policies.active() if name in ("", ACTIVE) else policies.named(name)


@transaction.atomic
def order(
    *,
    project: Project,
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    prompt: str,
    policy: Policy,
    wanted: int = 4,
    best_of: int | None = None,
    reward: RewardModel | None = None,
    seed: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    user: User | None = None,
) -> Edit:
    """Have a picture edited by a worker.

    `wanted` pictures are given back, of `best_of` that are made; `reward` ranks them. Raises one
    of REFUSALS.
    """
    made = best_of or max(wanted, FEWEST)
    if not 1 <= wanted <= made or not FEWEST <= made <= MOST:
        raise EditError(
            _("Ask for 1 to %(most)d pictures, the best of at most %(most)d.") % {"most": MOST}
        )
    if made > wanted and reward is None:
        reward = rankings.active_reward()
    mine = Edit.objects.filter(requested_by=user, set__run__state__in=["queued", "running"])
    if user is not None and mine.count() >= OPEN_PER_PERSON:
        raise EditError(
            _("You have %(count)d edits waiting. Wait until some are done.")
            % {"count": OPEN_PER_PERSON}
        )
    source, _created = sources.add_source(
        task=task,
        image=image,
        mask=mask,
        prompt=prompt,
        user=user,
        project=project,
        origin=Source.Origin.EDIT,
    )
    run = candidates.order_sets(
        policy=policy,
        sources=[source],
        seed=secrets.randbelow(candidates.LARGEST_SEED) if seed is None else seed,
        requested_by=user,
        size=made,
        fixed=sampling,
    )
    edit = Edit.objects.create(
        set=run.sets.get(), wanted=wanted, reward_model=reward, requested_by=user
    )
    transaction.on_commit(lambda: ring(edit.pk), robust=True)  # beat rings where the broker is away
    return edit


def ring(pk: int) -> None:
    from modeling.jobs import make_edit

    make_edit.delay(pk)


def work(edit: Edit) -> None:
    """Make what is missing of an edit, and rank it. Safe to run twice, and again after a crash."""
    candidates.make(edit.run)
    edit.run.refresh_from_db()
    if edit.run.state == JobState.SUCCEEDED and edit.reward_model is not None:
        _order_ranking(edit)
        rankings.work()


@transaction.atomic
def _order_ranking(edit: Edit) -> None:
    row = (
        Edit.objects.select_for_update(of=("self",)).select_related("reward_model").get(pk=edit.pk)
    )
    if row.ranking_id is not None or row.reward_model is None:
        return
    source = Source.objects.select_related("task", "image", "mask", "project").get(
        pk=row.set.source_id
    )
    pictures = row.set.candidates.select_related("image").order_by("index")
    row.ranking = rankings.order(
        project=source.project,
        source=source,
        pictures=[rankings.Given(one.image, one) for one in pictures if one.image is not None],
        model=row.reward_model,
    )
    row.save(update_fields=["ranking"])


def unranked() -> QuerySet[Edit]:
    """Edits whose pictures are there and whose ranking nobody has ordered yet."""
    made = Edit.objects.filter(reward_model__isnull=False, ranking=None)
    return made.filter(set__run__state=JobState.SUCCEEDED)


class Made(NamedTuple):
    """A picture of an edit; unranked ones stand as they were made."""

    candidate: Candidate
    rank: int | None = None
    score: float | None = None
    margins: Mapping[str, float] | None = None


def pictures(edit: Edit, *, everything: bool = False) -> list[Made]:
    """What is given back, best first; while it is being made, what is there already."""
    rows = edit.set.candidates.filter(image__isnull=False).select_related("image", "policy")
    by_index = {row.index: row for row in rows.order_by("index")}
    ranking = edit.ranking
    if ranking is None or ranking.state != JobState.SUCCEEDED:
        # Nothing is called the best before it is known.
        shown = list(by_index.values()) if everything or edit.reward_model_id is None else []
        return [Made(row) for row in shown[: None if everything else edit.wanted]]
    found = [
        Made(by_index[one["index"]], rank, one["score"], one["dimensions"])
        for rank, one in enumerate(ranking.result, start=1)
    ]
    return found if everything else found[: edit.wanted]


def wait(edit: Edit, seconds: float) -> Edit:
    """The edit once it has ended, or after so many seconds."""
    return rankings.poll(lambda: with_all().get(pk=edit.pk), lambda found: found.is_open, seconds)


def with_all() -> QuerySet[Edit]:
    return Edit.objects.select_related(
        "set__run__policy",
        "set__source__project",
        "set__source__task",
        "set__source__image",
        "set__source__mask",
        "ranking",
        "reward_model",
    )
