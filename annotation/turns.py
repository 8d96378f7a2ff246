"""A turn with everything a page or a submission needs to know of it, read in one query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, F, Max, OuterRef, QuerySet
from django.db.models.functions import JSONObject

from annotation.models import Assignment, Campaign, Judgment, Wording
from generation.models import Candidate


@dataclass(frozen=True)
class Asked:
    """A dimension that is asked about the set, in its newest wording."""

    dimension: int
    wording: int
    slug: str
    name: str
    question: str
    guideline: str
    required: bool


@dataclass(frozen=True)
class Shown:
    """A candidate; `index` is its place in the set, not on the page."""

    pk: int
    index: int
    sha256: str | None
    width: int
    height: int


@dataclass(frozen=True)
class Turn:
    """`shown` is in the order of the page; `revisions` counts earlier answers by dimension."""

    assignment: Assignment
    asked: list[Asked]
    shown: list[Shown]
    revisions: dict[int, int]

    @property
    def campaign(self) -> Campaign:
        return self.assignment.item.campaign


def load(pk: int, *, lock: bool = False) -> Turn:
    """The turn of this number; `lock` keeps others from changing it until the transaction ends."""
    rows = Assignment.objects.select_related(
        "item__campaign", "set__source__task", "set__source__image", "set__source__mask"
    )
    if lock:
        rows = rows.select_for_update(of=("self",), no_key=True)
    found: Any = rows.annotate(
        asked_rows=ArraySubquery(_asked()),
        shown_rows=ArraySubquery(_shown()),
        revision_rows=ArraySubquery(_revisions()),
    ).get(pk=pk)
    by_index = {row["index"]: Shown(**row) for row in found.shown_rows}
    return Turn(
        assignment=found,
        asked=[Asked(**row) for row in found.asked_rows],
        shown=[by_index[index] for index in found.order],
        revisions={row["dimension"]: row["revision"] for row in found.revision_rows},
    )


def _asked() -> QuerySet[Any]:
    """As `campaigns.criteria_for`, with the newest wording."""
    chosen = Campaign.dimensions.through.objects.filter(
        campaign_id=OuterRef(OuterRef("item__campaign"))
    )
    newer = Wording.objects.filter(dimension=OuterRef("dimension"), version__gt=OuterRef("version"))
    return (
        Wording.objects.filter(
            ~Exists(newer),
            dimension__active=True,
            dimension__criteria__task=OuterRef("set__source__task"),
        )
        .filter(
            ~Exists(chosen.values("pk"))
            | Exists(chosen.filter(dimension_id=OuterRef("dimension")).values("pk"))
        )
        .order_by("dimension__criteria__order", "dimension__criteria__pk")
        .values(
            row=JSONObject(
                dimension="dimension",
                wording="pk",
                slug="dimension__slug",
                name="dimension__name",
                question="question",
                guideline="guideline",
                required="dimension__criteria__required",
            )
        )
    )


def _shown() -> QuerySet[Any]:
    return Candidate.objects.filter(set=OuterRef("set")).values(
        row=JSONObject(
            pk="pk",
            index="index",
            sha256="image__sha256",
            width=F("image__width"),
            height=F("image__height"),
        )
    )


def _revisions() -> QuerySet[Any]:
    return (
        Judgment.objects.filter(assignment=OuterRef("pk"))
        .order_by()
        .values("dimension")
        .annotate(newest=Max("revision"))
        .values(row=JSONObject(dimension="dimension", revision="newest"))
    )
