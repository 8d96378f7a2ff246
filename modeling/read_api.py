"""What learns and what was measured, over the API: models, trainings, rounds, boards, studies."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.models import Campaign, Dimension
from generation.access import projects_of
from generation.endpoints import Endpoint, Listing, Single
from generation.models import Task
from generation.ownership import JobState
from generation.parameters import between, choice, documented, number, read, slug, switch, text
from generation.read_api import JOB
from modeling import kept_boards, leaderboard, studies
from modeling.feedback_report import report
from modeling.models import (
    Evaluation,
    RewardModel,
    Round,
    RoundStep,
    RoundTransition,
    Snapshot,
    Study,
    TrainingRun,
)


class RewardModelOut(serializers.ModelSerializer[RewardModel]):
    parent = serializers.CharField(  # type: ignore[assignment]
        source="parent.name", default=None, allow_null=True
    )
    snapshot = serializers.CharField(
        source="snapshot.content_hash",
        default=None,
        allow_null=True,
        help_text="Content hash of the labels that it learnt from.",
    )
    excluded = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="[task, dimension, reason] left out of the policy's reward.",
    )
    card = serializers.DictField()

    class Meta:
        model = RewardModel
        fields = [
            *("id", "name", "state", "location", "adapter", "parent", "snapshot", "excluded"),
            *("card", "created_at"),
        ]


REWARDS = RewardModel.objects.select_related("parent", "snapshot")


class RewardModels(Listing):
    """What says which of two pictures is better."""

    queryset = REWARDS
    serializer_class = RewardModelOut
    parameters = {
        "state": choice(RewardModel.State.values, "state", "At most one is active."),
        "name": text("name", "Its name."),
        **between("created_at", "Made"),
    }


class OneRewardModel(Single):
    """A reward model."""

    queryset = REWARDS
    serializer_class = RewardModelOut


class SnapshotOut(serializers.ModelSerializer[Snapshot]):
    counts = serializers.DictField()

    class Meta:
        model = Snapshot
        fields = ["id", "content_hash", "counts", "created_at"]


class Snapshots(Listing):
    """The labels that models learnt from, each set of them frozen."""

    queryset = Snapshot.objects.all()
    serializer_class = SnapshotOut
    parameters = {
        "content_hash": text("content_hash", "Its content hash.", 64),
        **between("created_at", "Made"),
    }


class OneSnapshot(Single):
    """A snapshot of labels."""

    queryset = Snapshot.objects.all()
    serializer_class = SnapshotOut


class TrainingOut(serializers.ModelSerializer[TrainingRun]):
    config = serializers.DictField()
    result = serializers.DictField()
    snapshot = serializers.CharField(source="snapshot.content_hash", default=None, allow_null=True)
    parent_reward = serializers.CharField(
        source="parent_reward.name",
        default=None,
        allow_null=True,
        help_text="What a reward training starts from, and what rewards a policy training.",
    )
    parent_policy = serializers.CharField(
        source="parent_policy.name", default=None, allow_null=True
    )
    reward_model = serializers.CharField(
        source="reward_model.name", default=None, allow_null=True, help_text="What came out."
    )
    policy = serializers.CharField(
        source="policy.name", default=None, allow_null=True, help_text="What came out."
    )

    class Meta:
        model = TrainingRun
        fields = [
            *("id", "kind", "config", "result", "snapshot", "parent_reward", "parent_policy"),
            *("reward_model", "policy", *JOB),
        ]


TRAININGS = TrainingRun.objects.select_related(
    "snapshot", "parent_reward", "parent_policy", "reward_model", "policy"
)


class Trainings(Listing):
    """Trainings of reward models and of policies, and how far they are."""

    queryset = TRAININGS
    serializer_class = TrainingOut
    parameters = {
        "kind": choice(TrainingRun.Kind.values, "kind", "What is trained."),
        "state": choice(JobState.values, "state", "How far it is."),
        **between("created_at", "Ordered"),
    }


class OneTraining(Single):
    """A training."""

    queryset = TRAININGS
    serializer_class = TrainingOut


class EvaluationOut(serializers.ModelSerializer[Evaluation]):
    reward_model = serializers.CharField(source="reward_model.name", default=None, allow_null=True)
    policy = serializers.CharField(source="policy.name", default=None, allow_null=True)
    parent_policy = serializers.CharField(
        source="parent_policy.name", default=None, allow_null=True
    )
    figures = serializers.DictField()
    config = serializers.DictField()

    class Meta:
        model = Evaluation
        fields = [
            *("id", "kind", "reward_model", "policy", "parent_policy", "figures", "config"),
            "created_at",
        ]


EVALUATIONS = Evaluation.objects.select_related("reward_model", "policy", "parent_policy")


class Evaluations(Listing):
    """Held-out figures of reward models and policies."""

    queryset = EVALUATIONS
    serializer_class = EvaluationOut
    parameters = {
        "kind": choice(Evaluation.Kind.values, "kind", "What was measured."),
        "policy": text("policy__name", "Name of the policy."),
        "reward_model": text("reward_model__name", "Name of the reward model."),
        **between("created_at", "Measured"),
    }


class OneEvaluation(Single):
    """Held-out figures."""

    queryset = EVALUATIONS
    serializer_class = EvaluationOut


# Rounds -----------------------------------------------------------------------------------------


class StepOut(serializers.ModelSerializer[RoundStep]):
    result = serializers.DictField(help_text="Its figures; a gate's has “passed” and “reason”.")

    class Meta:
        model = RoundStep
        fields = ["id", "name", "position", "result", "attempt", *JOB]


class TransitionOut(serializers.ModelSerializer[RoundTransition]):
    class Meta:
        model = RoundTransition
        fields = ["step", "from_state", "to_state", "reason", "created_at"]


class RoundOut(serializers.ModelSerializer[Round]):
    config = serializers.DictField()
    parent_policy = serializers.CharField(source="parent_policy.name")
    parent_reward = serializers.CharField(source="parent_reward.name")
    policy = serializers.CharField(source="policy.name", default=None, allow_null=True)
    reward_model = serializers.CharField(source="reward_model.name", default=None, allow_null=True)
    steps = StepOut(many=True)
    transitions = TransitionOut(many=True)

    class Meta:
        model = Round
        fields = [
            *("id", "number", "annotators", "seed", "config", "parent_policy", "parent_reward"),
            *("campaign", "reward_model", "policy", "outcome", "steps", "transitions"),
            *("created_at", "finished_at"),
        ]


ROUNDS = Round.objects.select_related(
    "parent_policy", "parent_reward", "policy", "reward_model"
).prefetch_related(
    Prefetch("steps", RoundStep.objects.order_by("position")),
    Prefetch("transitions", RoundTransition.objects.order_by("pk")),
)


class Rounds(Listing):
    """Turns of the loop, with their steps."""

    queryset = ROUNDS
    serializer_class = RoundOut
    parameters = {
        "open": switch("finished_at__isnull", "Whether it goes on."),
        "campaign": number("campaign", "Number of its campaign."),
        **between("created_at", "Started"),
    }


class OneRound(Single):
    """A round, by its number."""

    lookup_field = "number"
    queryset = ROUNDS
    serializer_class = RoundOut


# Figures ----------------------------------------------------------------------------------------


class PlaceOut(serializers.Serializer[Any]):
    policy = serializers.CharField()
    kind = serializers.CharField()
    rank = serializers.IntegerField(allow_null=True)
    group = serializers.IntegerField(allow_null=True)
    strength = serializers.FloatField(allow_null=True, help_text="On Elo's scale.")
    strength_low = serializers.FloatField(allow_null=True)
    strength_high = serializers.FloatField(allow_null=True)
    comparisons = serializers.IntegerField(allow_null=True)
    won = serializers.IntegerField()
    tied = serializers.IntegerField()
    lost = serializers.IntegerField()
    usable = serializers.FloatField(allow_null=True)
    usable_low = serializers.FloatField(allow_null=True)
    usable_high = serializers.FloatField(allow_null=True)
    usable_n = serializers.IntegerField(allow_null=True)
    score = serializers.FloatField(allow_null=True)
    score_low = serializers.FloatField(allow_null=True)
    score_high = serializers.FloatField(allow_null=True)
    score_n = serializers.IntegerField(allow_null=True)
    seconds_per_image = serializers.FloatField(allow_null=True)
    images = serializers.IntegerField(allow_null=True)
    device = serializers.CharField(allow_null=True, allow_blank=True)


class DuelOut(serializers.Serializer[Any]):
    policy = serializers.CharField()
    against = serializers.CharField()
    share = serializers.FloatField(allow_null=True, help_text="Of wins; ties are half.")
    share_low = serializers.FloatField(allow_null=True)
    share_high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(allow_null=True)
    p_holm = serializers.FloatField(allow_null=True)


class BoardOut(serializers.Serializer[Any]):
    comparisons = serializers.IntegerField()
    ratings = serializers.IntegerField()
    people = serializers.IntegerField()
    groups = serializers.IntegerField()
    policies = PlaceOut(many=True)
    head_to_head = DuelOut(many=True)


def _unused(rows: Any, value: Any) -> Any:
    return rows


class Leaderboard(Endpoint):
    """Which policy is best, by every blind comparison and rating in a project."""

    serializer_class = BoardOut
    parameters = {
        "project": slug(_unused, "Slug of the project; your first one where none is given."),
        "task": slug(_unused, "Slug of the task."),
        "dimension": slug(_unused, "Slug of the dimension."),
        "campaign": number(_unused, "Number of a campaign."),
        "annotators": choice(["human", "simulated"], _unused, "Whose answers; people's."),
    }

    @extend_schema(
        operation_id="leaderboard", parameters=documented(parameters), responses=BoardOut
    )
    def get(self, request: Request) -> Response:
        """Which policy is best, by every blind comparison and rating in a project."""
        return Response(BoardOut(leaderboard.as_json(kept_boards.board(self._scope())[0])).data)

    def _scope(self) -> leaderboard.Scope:
        parameters = self.parameters.items()
        said = {
            name: value for name, one in parameters for _, value in read(self.request, {name: one})
        }
        mine = projects_of(self.person, self.role).order_by("pk")
        campaign = self._named(Campaign.objects.filter(project__in=mine), said, "campaign", "pk")
        project = self._named(mine, said, "project", "slug") if "project" in said else None
        project = project or (campaign.project if campaign else mine.first())
        if project is None:
            raise Http404("There is no project yet.")
        if campaign is not None and campaign.project_id != project.pk:
            raise Http404("That campaign is of another project.")
        return leaderboard.Scope(
            project=project,
            task=self._named(Task.objects.all(), said, "task", "slug"),
            dimension=self._named(Dimension.objects.all(), said, "dimension", "slug"),
            campaigns=(campaign,) if campaign else (),
            simulated=campaign.simulated if campaign else said.get("annotators") == "simulated",
        )

    def _named(self, rows: Any, said: dict[str, Any], name: str, key: str) -> Any:
        if name not in said:
            return None
        found = rows.filter(**{key: said[name]}).first()
        if found is None:
            raise Http404(f"There is no {name} “{said[name]}” here.")
        return found


class FigureOut(serializers.Serializer[Any]):
    table = serializers.CharField()
    task = serializers.CharField(allow_blank=True)
    dimension = serializers.CharField(allow_blank=True)
    system = serializers.CharField()
    versus = serializers.CharField(allow_blank=True)
    published = serializers.BooleanField()
    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(allow_null=True)
    p_holm = serializers.FloatField(allow_null=True)


class StudyOut(serializers.ModelSerializer[Study]):
    project = serializers.CharField(source="project.slug")
    systems = serializers.SlugRelatedField[Any](slug_field="name", many=True, read_only=True)
    campaigns = serializers.PrimaryKeyRelatedField[Any](many=True, read_only=True)
    tasks = serializers.SlugRelatedField[Any](slug_field="slug", many=True, read_only=True)

    class Meta:
        model = Study
        fields = [
            *("id", "project", "name", "question", "systems", "campaigns", "tasks"),
            "created_at",
        ]


class StudyFiguresOut(StudyOut):
    figures = serializers.SerializerMethodField()

    class Meta:
        model = Study
        fields = [*StudyOut.Meta.fields, "figures"]

    @extend_schema_field(FigureOut(many=True))
    def get_figures(self, row: Study) -> list[dict[str, Any]]:
        return [dict(FigureOut(one).data) for one in studies.records(row)]


STUDIES = Study.objects.select_related("project").prefetch_related("systems", "campaigns", "tasks")


class Studies(Listing):
    """Tables for papers: which systems are compared."""

    project = "project"
    queryset = STUDIES
    serializer_class = StudyOut
    parameters = {
        "project": slug("project__slug", "Slug of the project."),
        "name": text("name", "Its name."),
        **between("created_at", "Made"),
    }


class OneStudy(Single):
    """A study with its figures, measured and published."""

    project = "project"
    queryset = STUDIES
    serializer_class = StudyFiguresOut


class IntervalOut(serializers.Serializer[Any]):
    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField()


class FeedbackOfPolicyOut(serializers.Serializer[Any]):
    policy = serializers.CharField()
    events = serializers.IntegerField()
    accepted = IntervalOut(help_text="Share of the sets of which a picture was taken.")
    completion = IntervalOut(allow_null=True, help_text="Seconds to the first picture taken.")
    value = serializers.FloatField()


class FeedbackAgreementOut(serializers.Serializer[Any]):
    dimension = serializers.CharField()
    agreed = IntervalOut()


class FeedbackReportOut(serializers.Serializer[Any]):
    events = serializers.IntegerField()
    kinds = serializers.DictField(child=serializers.IntegerField())
    preferences = serializers.IntegerField()
    policies = FeedbackOfPolicyOut(many=True)
    agreement = FeedbackAgreementOut(many=True)


class FeedbackReport(Endpoint):
    serializer_class = FeedbackReportOut

    @extend_schema(operation_id="feedback_report", responses=FeedbackReportOut)
    def get(self, request: Request) -> Response:
        """What production says of the policies, and how far it agrees with people."""
        found = report(projects_of(self.person, self.role))
        return Response(FeedbackReportOut(found).data)
