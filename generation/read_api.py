"""What is made, over the API: projects, tasks, sources, policies, plans, orders, sets, webhooks."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet
from django.urls import reverse
from rest_framework import serializers

from generation.access import projects_of, role_in
from generation.endpoints import Listing, Single
from generation.models import (
    Candidate,
    CandidateSet,
    Delivery,
    Endpoint,
    GenerationRun,
    Image,
    Policy,
    Project,
    Role,
    SamplingPlan,
    Source,
    Split,
    Task,
    Withdrawal,
)
from generation.ownership import JobState
from generation.parameters import between, choice, number, slug, switch, text


class ImageOut(serializers.ModelSerializer[Image]):
    url = serializers.SerializerMethodField()

    class Meta:
        model = Image
        fields = ["sha256", "width", "height", "url"]

    def get_url(self, row: Image) -> str:
        """Where its PNG is, for members."""
        path = reverse("generation:api_image", args=[row.sha256])
        return str(self.context["request"].build_absolute_uri(path))


class ProjectOut(serializers.ModelSerializer[Project]):
    role = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ["id", "slug", "name", "role", "created_at"]

    def get_role(self, row: Project) -> str:
        """What whoever asks is there."""
        return str(role_in(self.context["view"].person, row))


class Projects(Listing):
    """The projects one is in."""

    project = "self"
    queryset = Project.objects.all()
    serializer_class = ProjectOut


class OneProject(Single):
    """A project."""

    project = "self"
    lookup_field = "slug"
    queryset = Project.objects.all()
    serializer_class = ProjectOut


class TaskOut(serializers.ModelSerializer[Task]):
    class Meta:
        model = Task
        fields = [
            *("id", "slug", "name", "wording", "instruction", "fixed_prompt"),
            *("needs_source", "needs_mask", "weight", "active"),
        ]


class Tasks(Listing):
    """The kinds of edits."""

    queryset = Task.objects.all()
    serializer_class = TaskOut
    parameters = {"active": switch("active", "Whether it is in use.")}


class OneTask(Single):
    """A kind of edit."""

    lookup_field = "slug"
    queryset = Task.objects.all()
    serializer_class = TaskOut


# Sources ----------------------------------------------------------------------------------------


class SourceOut(serializers.ModelSerializer[Source]):
    project = serializers.CharField(source="project.slug")
    task = serializers.CharField(source="task.slug")
    image = ImageOut()
    mask = ImageOut()
    tags = serializers.DictField()
    withdrawn = serializers.BooleanField(help_text="Taken out of all work.")

    class Meta:
        model = Source
        fields = [
            *("id", "project", "task", "prompt", "image", "mask", "tags", "split", "origin"),
            *("external_id", "licence", "attribution", "withdrawn", "created_at"),
        ]


def _tagged(rows: QuerySet[Any], value: str) -> QuerySet[Any]:
    name, _, wished = value.partition("=")
    return rows.filter(tags__contains={name: wished})


SOURCES = Source.objects.select_related("project", "task", "image", "mask").annotate(
    withdrawn=Exists(Withdrawal.objects.standing().filter(source=OuterRef("pk")))
)


class Sources(Listing):
    """What edits start from: picture, mask and prompt."""

    project = "project"
    queryset = SOURCES
    serializer_class = SourceOut
    parameters = {
        "project": slug("project__slug", "Slug of the project."),
        "task": slug("task__slug", "Slug of the task."),
        "split": choice(Split.values, "split", "For training, or held out."),
        "origin": choice(Source.Origin.values, "origin", "Added to be learnt from, or to edit."),
        "external_id": text("external_id", "What it is called where it came from."),
        "tag": text(_tagged, "A tag as name=value."),
        "q": text("prompt__icontains", "Part of the prompt."),
        "withdrawn": switch("withdrawn", "Whether it was taken out of all work."),
        **between("created_at", "Added"),
    }


class OneSource(Single):
    """A source."""

    project = "project"
    queryset = SOURCES
    serializer_class = SourceOut


# Policies, plans and orders ---------------------------------------------------------------------


class PolicyOut(serializers.ModelSerializer[Policy]):
    parent = serializers.CharField(  # type: ignore[assignment]
        source="parent.name", default=None, allow_null=True
    )
    card = serializers.DictField(help_text="What was found in its files, or by its training.")

    class Meta:
        model = Policy
        fields = [
            *("id", "name", "kind", "state", "location", "revision", "transformer", "subfolder"),
            *("adapter", "max_pixels", "parent", "card", "created_at", "promoted_at"),
        ]


class Policies(Listing):
    """What makes candidates."""

    queryset = Policy.objects.select_related("parent")
    serializer_class = PolicyOut
    parameters = {
        "kind": choice(Policy.Kind.values, "kind", "Base, trained here, or outside."),
        "state": choice(Policy.State.values, "state", "At most one is active."),
        "name": text("name", "Its name."),
        **between("created_at", "Added"),
    }


class OnePolicy(Single):
    """A policy."""

    queryset = Policy.objects.select_related("parent")
    serializer_class = PolicyOut


class PlanOut(serializers.ModelSerializer[SamplingPlan]):
    task = serializers.CharField(source="task.slug")
    steps = serializers.ListField(child=serializers.IntegerField())
    strength = serializers.ListField(child=serializers.FloatField())
    guidance_scale = serializers.ListField(child=serializers.FloatField())
    true_cfg_scale = serializers.ListField(child=serializers.FloatField())
    negative_prompts = serializers.ListField(child=serializers.CharField(allow_blank=True))
    weights = serializers.DictField(help_text="How likely the values of a list are, by its name.")

    class Meta:
        model = SamplingPlan
        fields = [
            *("id", "task", "version", "current", "candidates_per_set", "steps", "strength"),
            *("guidance_scale", "true_cfg_scale", "negative_prompts", "weights", "made_by"),
            "created_at",
        ]


class Plans(Listing):
    """What a task's candidates are drawn from, version by version."""

    queryset = SamplingPlan.objects.select_related("task")
    serializer_class = PlanOut
    parameters = {
        "task": slug("task__slug", "Slug of the task."),
        "current": switch("current", "Whether it is the newest of its task."),
    }


class OnePlan(Single):
    """A version of a sampling plan."""

    queryset = SamplingPlan.objects.select_related("task")
    serializer_class = PlanOut


JOB = ["state", "progress", "total", "message", "error", "created_at", "started_at", "finished_at"]


class GenerationOut(serializers.ModelSerializer[GenerationRun]):
    policy = serializers.CharField(source="policy.name")
    sets = serializers.IntegerField(source="all_sets")
    ready = serializers.IntegerField(source="ready_sets", help_text="Sets that can be judged.")

    class Meta:
        model = GenerationRun
        fields = ["id", "policy", "seed", "sets", "ready", *JOB]


def orders() -> QuerySet[GenerationRun]:
    ready = Q(sets__state=CandidateSet.State.READY)
    return GenerationRun.objects.select_related("policy").annotate(
        all_sets=Count("sets"), ready_sets=Count("sets", filter=ready)
    )


class Generations(Listing):
    """Orders of candidate sets, and how far they are."""

    queryset = orders()
    serializer_class = GenerationOut
    parameters = {
        "state": choice(JobState.values, "state", "How far it is."),
        "policy": text("policy__name", "Name of the policy."),
        **between("created_at", "Ordered"),
    }


class OneGeneration(Single):
    """An order of candidate sets."""

    queryset = orders()
    serializer_class = GenerationOut


class CandidateOut(serializers.ModelSerializer[Candidate]):
    policy = serializers.CharField(source="policy.name")
    image = ImageOut(allow_null=True)

    class Meta:
        model = Candidate
        fields = [
            *("id", "index", "policy", "image", "seed", "num_inference_steps", "strength"),
            *("guidance_scale", "true_cfg_scale", "negative_prompt", "prompt", "width", "height"),
            *("latency_ms", "device"),
        ]


class SetOut(serializers.ModelSerializer[CandidateSet]):
    project = serializers.CharField(source="source.project.slug")
    task = serializers.CharField(source="source.task.slug")
    split = serializers.CharField(source="source.split")
    candidates = CandidateOut(many=True)

    class Meta:
        model = CandidateSet
        fields = [
            *("id", "project", "source", "task", "split", "plan", "run", "state", "size"),
            *("error", "candidates", "created_at"),
        ]


SETS = CandidateSet.objects.select_related("source__project", "source__task").prefetch_related(
    Prefetch(
        "candidates",
        Candidate.objects.select_related("policy", "image").order_by("index"),
    )
)


def _asked_by(rows: QuerySet[Any], campaign: int) -> QuerySet[Any]:
    # Not by a join: a rating campaign asks about a set as often as it has candidates.
    return rows.filter(
        Exists(CandidateSet.objects.filter(pk=OuterRef("pk"), items__campaign=campaign))
    )


class Sets(Listing):
    """Candidate sets with their candidates, for reviewers: they say who made which picture."""

    role = Role.REVIEWER  # to annotators, who judge blind, nothing says it
    project = "source__project"
    queryset = SETS
    serializer_class = SetOut
    parameters = {
        "project": slug("source__project__slug", "Slug of the project."),
        "task": slug("source__task__slug", "Slug of the task."),
        "source": number("source", "Number of the source."),
        "run": number("run", "Number of the generation that made it."),
        "campaign": number(_asked_by, "Number of a campaign that asks about it."),
        "split": choice(Split.values, "source__split", "For training, or held out."),
        "state": choice(CandidateSet.State.values, "state", "Whether it can be judged."),
        **between("created_at", "Drawn"),
    }


class OneSet(Single):
    """A candidate set."""

    role = Role.REVIEWER
    project = "source__project"
    queryset = SETS
    serializer_class = SetOut


# Webhooks and withdrawals -----------------------------------------------------------------------


class WebhookOut(serializers.ModelSerializer[Endpoint]):
    project = serializers.CharField(source="project.slug")

    class Meta:
        model = Endpoint
        fields = ["id", "project", "url", "topics", "active", "created_at"]


class Webhooks(Listing):
    """Who is told of events."""

    role = Role.MANAGER
    project = "project"
    queryset = Endpoint.objects.select_related("project")
    serializer_class = WebhookOut
    parameters = {
        "project": slug("project__slug", "Slug of the project."),
        "active": switch("active", "Whether it is told anything."),
    }


class OneWebhook(Single):
    """A webhook."""

    role = Role.MANAGER
    project = "project"
    queryset = Endpoint.objects.select_related("project")
    serializer_class = WebhookOut


class DeliveryOut(serializers.ModelSerializer[Delivery]):
    webhook = serializers.IntegerField(source="endpoint_id")

    class Meta:
        model = Delivery
        fields = [
            *("id", "webhook", "key", "event", "state", "attempts", "due_at", "response_code"),
            *("error", "body", "created_at", "ended_at"),
        ]


class Deliveries(Listing):
    """Messages to webhooks: what was said, and what came back."""

    role = Role.MANAGER
    project = "endpoint__project"
    queryset = Delivery.objects.all()
    serializer_class = DeliveryOut
    parameters = {
        "project": slug("endpoint__project__slug", "Slug of the project."),
        "webhook": number("endpoint", "Number of the webhook."),
        "event": text("event", "Name of the event, for example campaign.opened."),
        "state": choice(Delivery.State.values, "state", "Whether it arrived."),
        **between("created_at", "Written"),
    }


class WithdrawalOut(serializers.ModelSerializer[Withdrawal]):
    person = serializers.CharField(
        source="person.username", default=None, allow_null=True, help_text="For staff alone."
    )

    class Meta:
        model = Withdrawal
        fields = ["id", "source", "person", "reason", "created_at", "lifted_at"]


class Withdrawals(Listing):
    """Sources that are out of all work, and why; for staff the people, too."""

    queryset = Withdrawal.objects.select_related("person")
    serializer_class = WithdrawalOut
    parameters = {
        "project": slug("source__project__slug", "Slug of the project."),
        "source": number("source", "Number of the source."),
        "standing": switch(Q(lifted_at__isnull=True), "Whether it was not lifted."),
        **between("created_at", "Withdrawn"),
    }

    def get_queryset(self) -> QuerySet[Any]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        seen = Q(source__project__in=projects_of(self.person, self.role))
        return rows.filter(seen | Q(person__isnull=False)) if self._staff else rows.filter(seen)

    @property
    def _staff(self) -> bool:
        return self.person.is_staff or self.person.is_superuser
