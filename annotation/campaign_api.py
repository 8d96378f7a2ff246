"""Campaigns over the API: how far they are, item by item and in sum."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import additions, counts, progress
from annotation.models import Assignment, Campaign, Item
from annotation.pseudonyms import pseudonym
from annotation.read_api import CAMPAIGNS, CampaignOut, _of_task
from generation.access import require
from generation.endpoints import Endpoint, Listing
from generation.parameters import between, choice, number, slug, switch, text

State = Assignment.State


class Campaigns(Listing):
    """Who judges which sets on which dimensions, and how often."""

    project = "project"
    queryset = CAMPAIGNS
    serializer_class = CampaignOut
    parameters = {
        "project": slug("project__slug", "Slug of the project."),
        "task": slug(_of_task, "Slug of a task that it asks about."),
        "name": text("name", "Its name."),
        "purpose": choice(Campaign.Purpose.values, "purpose", "How it asks."),
        "state": choice(Campaign.State.values, "state", "Whether people work on it."),
        "origin": choice(Campaign.Origin.values, "origin", "Asked here, or said elsewhere."),
        "simulated": switch("simulated", "By simulated annotators."),
        **between("created_at", "Made"),
    }


class CellOut(serializers.Serializer[Any]):
    dimension = serializers.CharField()
    wanted = serializers.IntegerField()
    judged = serializers.IntegerField()
    picked = serializers.IntegerField()
    no_difference = serializers.IntegerField()
    cannot_judge = serializers.IntegerField()


class CoverageOut(serializers.Serializer[Any]):
    task = serializers.CharField()
    sets = serializers.IntegerField()
    dimensions = CellOut(many=True)


class PersonOut(serializers.Serializer[Any]):
    annotator = serializers.CharField(help_text="A pseudonym.")
    annotator_name = serializers.CharField(allow_null=True, help_text="For managers alone.")
    submitted = serializers.IntegerField()
    skipped = serializers.IntegerField()


class AddingOut(serializers.Serializer[Any]):
    state = serializers.CharField()
    progress = serializers.IntegerField(help_text="Sets looked at.")
    total = serializers.IntegerField()
    added = serializers.IntegerField()
    error = serializers.CharField(allow_blank=True)


class ProgressOut(serializers.Serializer[Any]):
    campaign = serializers.IntegerField()
    state = serializers.CharField()
    judged = serializers.IntegerField(help_text="Turns that were submitted.")
    wanted = serializers.IntegerField(help_text="Turns that it asks for in all.")
    share = serializers.FloatField(help_text="Of the two, 0 to 1.")
    items = serializers.IntegerField(help_text="Sets, pairs or pictures in its queue.")
    completed_at = serializers.DateTimeField(allow_null=True)
    coverage = CoverageOut(many=True)
    people = PersonOut(many=True)
    adding = AddingOut(allow_null=True, help_text="Sets on their way into the queue.")


class OfCampaign(Endpoint):
    """A view of something of one campaign."""

    queryset = CAMPAIGNS

    def campaign(self) -> Campaign:
        found = get_object_or_404(CAMPAIGNS, pk=self.kwargs["pk"])
        writes = self.request.method == "POST"
        require(self.person, found.project, self.write_role if writes else self.role)
        return found


class Progress(OfCampaign):
    serializer_class = ProgressOut

    @extend_schema(operation_id="campaigns_progress", responses=ProgressOut)
    def get(self, request: Request, pk: int) -> Response:
        """How far a campaign is: in all, by task and dimension, and by person."""
        found = self.campaign()
        judged, wanted = counts.judged_share(found)
        named = found.project_id in self.managed
        body = {
            "campaign": found.pk,
            "state": found.state,
            "judged": judged,
            "wanted": wanted,
            "share": judged / wanted if wanted else 0.0,
            "items": found.items.count(),
            "completed_at": found.completed_at,
            "coverage": _coverage(found),
            "people": [_person(row, named) for row in _people(found)],
            "adding": additions.latest(found),
        }
        return Response(ProgressOut(body).data)


def _coverage(found: Campaign) -> list[dict[str, Any]]:
    table = progress.coverage(found)
    return [
        {
            "task": row.task.slug,
            "sets": row.sets,
            "dimensions": [
                {
                    "dimension": dimension.slug,
                    **{name: getattr(cell, name) for name in ("wanted", "judged", "picked")},
                    "no_difference": cell.no_difference,
                    "cannot_judge": cell.cannot_judge,
                }
                for dimension, cell in zip(table.dimensions, row.cells, strict=True)
                if cell is not None
            ],
        }
        for row in table.rows
    ]


def _people(found: Campaign) -> QuerySet[Assignment, dict[str, Any]]:
    turns = Assignment.objects.filter(
        item__campaign=found, state__in=[State.SUBMITTED, State.SKIPPED]
    )
    rows = turns.order_by().values("annotator_id", "annotator__username")
    return rows.annotate(
        submitted=Count("pk", filter=Q(state=State.SUBMITTED)),
        skipped=Count("pk", filter=Q(state=State.SKIPPED)),
    ).order_by("-submitted", "annotator_id")


def _person(row: dict[str, Any], named: bool) -> dict[str, Any]:
    return {
        "annotator": pseudonym(row["annotator_id"]),
        "annotator_name": row["annotator__username"] if named else None,
        "submitted": row["submitted"],
        "skipped": row["skipped"],
    }


class ItemOut(serializers.ModelSerializer[Item]):
    source = serializers.IntegerField(source="set.source_id")  # type: ignore[assignment]
    task = serializers.CharField(source="set.source.task.slug")
    shown = serializers.ListField(
        child=serializers.IntegerField(), help_text="Indexes of candidates; empty: all of the set."
    )
    judged = serializers.IntegerField(help_text="Turns that were submitted.")
    open = serializers.IntegerField(help_text="Turns that people hold.")
    skipped = serializers.IntegerField()
    wanted = serializers.IntegerField(source="campaign.overlap")

    class Meta:
        model = Item
        fields = [
            *("id", "set", "source", "task", "shown", "full", "judged", "open", "skipped"),
            "wanted",
        ]


def _work(state: str) -> Count:
    work = Q(assignments__kind=Assignment.Kind.WORK)
    return Count("assignments", filter=work & Q(assignments__state=state))


class Items(OfCampaign, Listing):
    """What a campaign asks about, and how often it was answered."""

    queryset = Item.objects.select_related("campaign", "set__source__task").annotate(
        judged=_work(State.SUBMITTED), open=_work(State.OPEN), skipped=_work(State.SKIPPED)
    )  # type: ignore[assignment]
    serializer_class = ItemOut
    parameters = {
        "task": slug("set__source__task__slug", "Slug of the task."),
        "set": number("set", "Number of the candidate set."),
        "full": switch("full", "Whether all turns are held or done."),
    }

    @extend_schema(operation_id="campaigns_items")
    def get(self, request: Request, pk: int) -> Response:
        """What a campaign asks about, and how often it was answered."""
        return self.list(request)

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return Item.objects.none()
        return Items.queryset.filter(campaign=self.campaign())
