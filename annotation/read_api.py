"""What is judged, over the API: dimensions, campaigns, judgments, preferences, ratings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import preferences
from annotation.models import Assignment, Campaign, Dimension, Judgment, Rating, Wording
from annotation.preferences import Preference
from annotation.pseudonyms import pseudonym
from generation.endpoints import Listing, Single
from generation.models import Role, Split
from generation.parameters import between, choice, number, slug, switch


class WordingOut(serializers.ModelSerializer[Wording]):
    class Meta:
        model = Wording
        fields = ["version", "question", "query", "guideline", "created_at"]


class DimensionOut(serializers.ModelSerializer[Dimension]):
    tasks = serializers.SlugRelatedField[Any](slug_field="slug", many=True, read_only=True)
    wordings = WordingOut(many=True)

    class Meta:
        model = Dimension
        fields = ["id", "slug", "name", "uses_prompt", "active", "tasks", "wordings"]


class Dimensions(Listing):
    """The qualities that are judged, with every version of what is asked."""

    queryset = Dimension.objects.prefetch_related("tasks", "wordings")
    serializer_class = DimensionOut
    parameters = {
        "task": slug("criteria__task__slug", "Slug of a task that it belongs to."),
        "active": switch("active", "Whether it is in use."),
    }


class OneDimension(Single):
    """A dimension."""

    lookup_field = "slug"
    queryset = Dimension.objects.prefetch_related("tasks", "wordings")
    serializer_class = DimensionOut


class CampaignOut(serializers.ModelSerializer[Campaign]):
    project = serializers.CharField(source="project.slug")
    tasks = serializers.SlugRelatedField[Any](slug_field="slug", many=True, read_only=True)
    dimensions = serializers.SlugRelatedField[Any](slug_field="slug", many=True, read_only=True)

    class Meta:
        model = Campaign
        fields = [
            *("id", "project", "name", "purpose", "state", "origin", "simulated"),
            *("tasks", "dimensions"),
            *("overlap", "gold_rate", "repeat_rate", "lease_seconds", "daily_limit", "deadline"),
            *("guideline", "one_at_a_time", "editable", "show_gold", "break_minutes"),
            *("practice_sets", "practice_share", "pause_below", "pause_after", "completed_at"),
            "created_at",
        ]


CAMPAIGNS = Campaign.objects.select_related("project").prefetch_related("tasks", "dimensions")


def _of_task(rows: QuerySet[Any], task: str) -> QuerySet[Any]:
    """A campaign without tasks of its own asks about every active one."""
    named = Campaign.tasks.through.objects.filter(campaign=OuterRef("pk"))
    return rows.filter(Exists(named.filter(task__slug=task)) | ~Exists(named))


class OneCampaign(Single):
    """A campaign's settings."""

    project = "project"
    queryset = CAMPAIGNS
    serializer_class = CampaignOut


# Who said what ----------------------------------------------------------------------------------


class Said(serializers.ModelSerializer[Any]):
    """What judgments and ratings have in common."""

    project = serializers.CharField(source="set.source.project.slug")
    campaign = serializers.IntegerField(source="assignment.item.campaign_id")
    source = serializers.IntegerField(source="set.source_id")  # type: ignore[assignment]
    task = serializers.CharField(source="set.source.task.slug")
    split = serializers.CharField(source="set.source.split")
    kind = serializers.CharField(
        source="assignment.kind", help_text="What the turn was for: work, gold, repeat, review …"
    )
    annotator = serializers.SerializerMethodField()
    annotator_name = serializers.SerializerMethodField()
    judged_at = serializers.DateTimeField(source="created_at")
    seconds_spent = serializers.FloatField(
        source="assignment.seconds_spent", allow_null=True, help_text="On the whole turn."
    )

    def get_annotator(self, row: Any) -> str:
        """A pseudonym, the same for a person everywhere."""
        return pseudonym(row.assignment.annotator_id)

    def get_annotator_name(self, row: Any) -> str | None:
        """For those who manage the project; null for others."""
        managed = row.set.source.project_id in self.context["view"].managed
        return row.assignment.annotator.get_username() if managed else None


SAID = [
    *("id", "project", "campaign", "set", "source", "task", "split", "dimension", "wording"),
    *("kind", "annotator", "annotator_name", "revision", "current", "judged_at", "seconds_spent"),
]
CONTEXT = [
    *("assignment__annotator", "assignment__item", "dimension", "wording"),
    *("set__source__project", "set__source__task"),
]
PARAMETERS = {
    "project": slug("set__source__project__slug", "Slug of the project."),
    "task": slug("set__source__task__slug", "Slug of the task."),
    "dimension": slug("dimension__slug", "Slug of the dimension."),
    "campaign": number("assignment__item__campaign", "Number of the campaign."),
    "set": number("set", "Number of the candidate set."),
    "source": number("set__source", "Number of the source."),
    "split": choice(Split.values, "set__source__split", "For training, or held out."),
    "kind": choice(Assignment.Kind.values, "assignment__kind", "What the turn was for."),
    "simulated": switch("assignment__item__campaign__simulated", "By simulated annotators."),
    "imported": switch(
        Q(assignment__item__campaign__origin=Campaign.Origin.IMPORTED), "Said elsewhere."
    ),
    **between("created_at", "Judged"),
}


class JudgmentOut(Said):
    dimension = serializers.CharField(source="dimension.slug")
    wording = serializers.IntegerField(source="wording.version")
    best = serializers.IntegerField(
        source="best.index", default=None, allow_null=True, help_text="Index of the candidate."
    )
    worst = serializers.IntegerField(source="worst.index", default=None, allow_null=True)

    class Meta:
        model = Judgment
        fields = [*SAID, "outcome", "best", "worst"]


class Judgments(Listing):
    """Best and worst of sets, dimension by dimension, as people said it."""

    role = Role.REVIEWER
    project = "set__source__project"
    queryset = Judgment.objects.select_related(*CONTEXT, "best", "worst")
    serializer_class = JudgmentOut
    parameters = PARAMETERS | {
        "outcome": choice(Judgment.Outcome.values, "outcome", "What was said."),
        "current": switch("current", "Whether it was not corrected since."),
        "counted": switch(
            Q(pk__in=Judgment.objects.counted().values("pk")),
            "Whether it counts: current, of work, and not withdrawn.",
        ),
    }


class OneJudgment(Single):
    """A judgment."""

    role = Role.REVIEWER
    project = "set__source__project"
    queryset = Judgment.objects.select_related(*CONTEXT, "best", "worst")
    serializer_class = JudgmentOut


class RatingOut(Said):
    candidate = serializers.IntegerField(source="candidate.index", help_text="Its index.")
    dimension = serializers.CharField(
        source="dimension.slug", default=None, allow_null=True, help_text="Null: usable or not."
    )
    wording = serializers.IntegerField(source="wording.version", default=None, allow_null=True)
    value = serializers.IntegerField(help_text="1–5 on a dimension; usable: 0 or 1.")

    class Meta:
        model = Rating
        fields = [*SAID, "candidate", "value"]


class Ratings(Listing):
    """Scores of single candidates: usable or not, and 1–5."""

    role = Role.REVIEWER
    project = "set__source__project"
    queryset = Rating.objects.select_related(*CONTEXT, "candidate")
    serializer_class = RatingOut
    parameters = PARAMETERS | {
        "current": switch("current", "Whether it was not corrected since."),
        "counted": switch(
            Q(pk__in=Rating.objects.counted().values("pk")),
            "Whether it counts: current, of work, and not withdrawn.",
        ),
    }


class OneRating(Single):
    """A rating."""

    role = Role.REVIEWER
    project = "set__source__project"
    queryset = Rating.objects.select_related(*CONTEXT, "candidate")
    serializer_class = RatingOut


class PreferenceOut(serializers.Serializer[Any]):
    judgment = serializers.IntegerField()
    set = serializers.IntegerField()
    task = serializers.CharField()
    dimension = serializers.CharField()
    prompt = serializers.CharField(allow_blank=True)
    source = serializers.CharField(help_text="sha256 of the picture.")  # type: ignore[assignment]
    mask = serializers.CharField(help_text="sha256 of the mask.")
    chosen = serializers.CharField(help_text="sha256 of the better picture.")
    rejected = serializers.CharField(help_text="sha256 of the other.")
    relation = serializers.ChoiceField(choices=["direct", "implied"])
    weight = serializers.FloatField()
    split = serializers.CharField()
    annotator = serializers.CharField(help_text="A pseudonym, the same for a person everywhere.")


class Preferences(Listing):
    """Pairs of candidates that the counted judgments say something about, derived as they are read.

    `page_size` counts judgments: a best and a worst of four say something about five pairs.
    """

    role = Role.REVIEWER
    project = "set__source__project"
    queryset = preferences.with_context(
        Judgment.objects.counted().filter(outcome=Judgment.Outcome.PICKED)
    )
    serializer_class = PreferenceOut
    parameters = {name: one for name, one in PARAMETERS.items() if name != "kind"}

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        rows = [self.get_serializer(one).data for one in _pairs(list(page))]
        return self.get_paginated_response(rows)


def _pairs(judged: list[Judgment]) -> Iterator[dict[str, Any]]:
    shown = preferences.candidates_of({row.set_id for row in judged})
    for row in judged:
        for one in preferences.of_judgment(row, shown.get(row.set_id, [])):
            yield _plain(row, one)


def _plain(row: Judgment, one: Preference) -> dict[str, Any]:
    return {
        "judgment": row.pk,
        **{name: getattr(one, name) for name in Preference.__dataclass_fields__},
        "annotator": pseudonym(one.annotator),
    }
