"""What learns: snapshots, training runs, reward models, evaluations and rounds."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from annotation.models import Campaign, Judgment
from generation import locations, webhooks
from generation.checkpoints import CheckpointError, check_model, check_weights
from generation.models import HEX64, Policy, Source
from generation.ownership import Job, JobState


class Snapshot(models.Model):
    """An immutable, content-hashed dataset directory and the exact judgments in it."""

    content_hash = models.CharField(max_length=64, unique=True, validators=[HEX64])
    directory = models.CharField(max_length=500)
    judgments = models.ManyToManyField(Judgment, related_name="snapshots")
    counts = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"snapshot {self.content_hash[:12]}"


class RewardModel(models.Model):
    """A vision-language model that says which of two images is better on a dimension."""

    class State(models.TextChoices):
        READY = "ready", _("Ready")
        ACTIVE = "active", _("Active")  # trains the next policy; at most one
        RETIRED = "retired", _("Retired")

    name = models.CharField(max_length=120, unique=True)
    state = models.CharField(max_length=8, choices=State, default=State.READY)
    location = models.CharField(max_length=500)  # hub id or directory of the base (or full) weights
    adapter = models.CharField(max_length=500, blank=True)  # directory of a PEFT LoRA
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT)
    # [[task slug, dimension slug, reason], …] left out of the policy's reward
    excluded = models.JSONField(default=list, blank=True)
    card = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="active"), name="reward_model_one_active"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Its files are looked at before the row is stored, as a policy's are."""
        try:
            for place, look in ((self.location, check_model), (self.adapter, check_weights)):
                locations.check(place)
                if place and locations.is_local(place):
                    look(Path(place).expanduser())
        except (locations.LocationError, CheckpointError) as error:
            raise ValidationError(str(error)) from None


class Annotators(models.TextChoices):
    HUMAN = "human", _("Human")
    SIMULATED = "simulated", _("Simulated")


class RoundRule(models.Model):
    """When a round starts by itself; edited in the admin, looked at every minute."""

    class Kind(models.TextChoices):
        NEW_JUDGMENTS = "new_judgments", _("this many new judgments, or more")
        NEWEST_ACCURACY = "newest_accuracy", _("reward accuracy on the newest labels under this")

    name = models.CharField(max_length=120, unique=True)
    active = models.BooleanField(default=False)
    kind = models.CharField(max_length=16, choices=Kind)
    threshold = models.FloatField(
        help_text=_("A count of judgments, or a share between 0 and 1 such as 0.75.")
    )
    newest = models.PositiveIntegerField(
        default=200, help_text=_("How many of the newest labels the accuracy is measured on.")
    )
    cooldown_hours = models.PositiveIntegerField(
        default=24, help_text=_("It starts no second round before these hours are over.")
    )
    annotators = models.CharField(
        max_length=10,
        choices=[("human", _("Human")), ("simulated", _("Simulated"))],
        default="human",
    )
    config = models.JSONField(
        default=dict, blank=True, help_text=_("Settings of the rounds that it starts, as JSON.")
    )
    last_checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_value = models.FloatField(null=True, blank=True, editable=False)
    last_judgment = models.BigIntegerField(null=True, blank=True, editable=False)  # measured up to
    last_said = models.CharField(max_length=500, blank=True, editable=False)
    last_fired_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="new_judgments", threshold__gte=1)
                | Q(kind="newest_accuracy", threshold__gt=0, threshold__lte=1),
                name="round_rule_threshold_fits",
                violation_error_message=_(
                    "A count of judgments is 1 or more; an accuracy is a share between 0 and 1."
                ),
            ),
            models.CheckConstraint(
                condition=Q(newest__gte=20),
                name="round_rule_newest_enough",
                violation_error_message=_("Fewer than 20 labels say nothing about an accuracy."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Round(models.Model):
    """One turn of the loop: what it started from and what came out; its steps do the work."""

    Annotators = Annotators

    number = models.PositiveIntegerField(unique=True)
    annotators = models.CharField(max_length=10, choices=Annotators, default=Annotators.HUMAN)
    seed = models.BigIntegerField(default=0)
    config = models.JSONField(default=dict)
    parent_policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="+")
    parent_reward = models.ForeignKey(RewardModel, on_delete=models.PROTECT, related_name="+")
    campaign = models.ForeignKey(Campaign, null=True, blank=True, on_delete=models.PROTECT)
    reward_model = models.ForeignKey(
        RewardModel, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds"
    )
    policy = models.ForeignKey(
        Policy, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds"
    )
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    rule = models.ForeignKey(
        RoundRule, null=True, blank=True, on_delete=models.SET_NULL, related_name="rounds"
    )  # that started it; the reason is in its first transition
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=300, blank=True)  # one sentence, once finished

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                models.Value(1), condition=Q(finished_at__isnull=True), name="round_one_open"
            )
        ]

    def __str__(self) -> str:
        return f"round {self.number}"


class RoundStep(Job):
    """One step of a round. `result` holds its figures; a gate's has "passed" and "reason"."""

    class Name(models.TextChoices):
        GENERATE = "generate", _("Generate")
        LABEL = "label", _("Label")
        TRAIN_REWARD = "train_reward", _("Train reward")
        GATE_REWARD = "gate_reward", _("Reward gate")
        TRAIN_POLICY = "train_policy", _("Train policy")
        EVALUATE = "evaluate", _("Evaluate")
        GATE_POLICY = "gate_policy", _("Policy gate")
        HUMAN_CHECK = "human_check", _("Human check")
        PROMOTE = "promote", _("Promote")

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="steps")
    name = models.CharField(max_length=14, choices=Name)
    position = models.PositiveSmallIntegerField()
    result = models.JSONField(default=dict, blank=True)

    class Meta(Job.Meta):
        abstract = False
        ordering = ["round_id", "position"]
        constraints = [
            *Job.Meta.constraints,
            models.UniqueConstraint(fields=["round", "name"], name="round_step_once"),
        ]

    def __str__(self) -> str:
        return f"{self.round} {self.name}"

    @property
    def is_waiting(self) -> bool:
        """It did its part and was given back until people have done theirs."""
        waits = (self.Name.LABEL, self.Name.HUMAN_CHECK, self.Name.PROMOTE)
        given_back = self.state == JobState.QUEUED and bool(self.message)
        return given_back and self.name in waits


class RoundTransition(models.Model):
    """One change of state of a round or of one of its steps, and why; written, never changed."""

    class State(models.TextChoices):
        OPEN = "open", _("open")
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        WAITING = "waiting", _("waiting")
        DONE = "done", _("done")
        PASSED = "passed", _("passed")
        SHUT = "shut", _("stayed shut")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")
        CANCELLED = "cancelled", _("cancelled")
        PROMOTED = "promoted", _("promoted")
        ENDED = "ended", _("ended")  # over, and its policy was not promoted
        UNDONE = "undone", _("promotion undone")

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="transitions")
    step = models.CharField(max_length=14, choices=RoundStep.Name, blank=True)  # "": the round's
    from_state = models.CharField(max_length=10, choices=State, blank=True)
    to_state = models.CharField(max_length=10, choices=State)
    reason = models.TextField(blank=True)
    # Nobody where the program went on by itself.
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    to_state__in=[
                        *("open", "queued", "running", "waiting", "done", "passed", "shut"),
                        *("failed", "skipped", "cancelled", "promoted", "ended", "undone"),
                    ]
                ),
                name="round_transition_state_known",
            ),
            models.CheckConstraint(
                condition=~Q(to_state__in=["skipped", "undone"]) | ~Q(reason=""),
                name="round_transition_has_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.round} {self.step or 'itself'}: {self.to_state}"


class TrainingRun(Job):
    """A training in a subprocess; the run directory is the only interface to it."""

    class Kind(models.TextChoices):
        REWARD = "reward", _("Reward")
        POLICY = "policy", _("Policy")

    kind = models.CharField(max_length=8, choices=Kind)
    config = models.JSONField(default=dict)
    directory = models.CharField(max_length=500)
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT)
    parent_reward = models.ForeignKey(
        RewardModel, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )  # what a reward run starts from, and what a policy run is rewarded by
    parent_policy = models.ForeignKey(
        Policy, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    reward_model = models.OneToOneField(
        RewardModel, null=True, blank=True, on_delete=models.PROTECT, related_name="run"
    )  # what came out
    policy = models.OneToOneField(
        Policy, null=True, blank=True, on_delete=models.PROTECT, related_name="run"
    )
    result = models.JSONField(default=dict, blank=True)
    # What a policy run makes pictures of and is rewarded for; held-out ones are only watched.
    sources = models.ManyToManyField(Source, related_name="training_runs", blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta(Job.Meta):
        abstract = False
        ordering = ["-pk"]
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(
                condition=Q(kind="reward", parent_policy__isnull=True, policy__isnull=True)
                | Q(kind="policy", parent_policy__isnull=False, reward_model__isnull=True),
                name="training_run_kind_fits",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} run {self.pk}"

    def ended(self) -> None:
        made = self.reward_model or self.policy
        webhooks.send_run(self, f"{self.kind} training", {"made": made.name if made else None})


class Evaluation(models.Model):
    """Held-out figures with intervals, of a reward model or of a policy against its parent."""

    class Kind(models.TextChoices):
        REWARD = "reward", _("Reward")
        POLICY = "policy", _("Policy")

    kind = models.CharField(max_length=8, choices=Kind)
    reward_model = models.ForeignKey(
        RewardModel, null=True, blank=True, on_delete=models.CASCADE, related_name="evaluations"
    )
    policy = models.ForeignKey(
        Policy, null=True, blank=True, on_delete=models.CASCADE, related_name="evaluations"
    )
    parent_policy = models.ForeignKey(
        Policy, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT)
    figures = models.JSONField(default=dict)
    config = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="reward", reward_model__isnull=False, policy__isnull=True)
                | Q(kind="policy", policy__isnull=False, reward_model__isnull=True),
                name="evaluation_has_one_subject",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} evaluation {self.pk}"


class EvaluationPair(models.Model):
    """The same source and noise under two policies: a row of the filmstrip."""

    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="pairs")
    source = models.ForeignKey("generation.Source", on_delete=models.PROTECT, related_name="+")
    seed = models.BigIntegerField()
    parent_image = models.ForeignKey("generation.Image", on_delete=models.PROTECT, related_name="+")
    image = models.ForeignKey("generation.Image", on_delete=models.PROTECT, related_name="+")
    scores = models.JSONField(
        default=dict
    )  # {"parent": {dimension: x}, "new": {dimension: x}, "margin": {…}}

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "source", "seed"], name="evaluation_pair_once"
            )
        ]

    def __str__(self) -> str:
        return f"source {self.source_id} in evaluation {self.evaluation_id}"


# Django finds an app's models here; these have a module of their own.
from modeling.governance_models import Review, ReviewPlan  # noqa: E402
from modeling.score_models import SetScore  # noqa: E402
from modeling.serving import Edit, RankedPicture, Ranking  # noqa: E402
from modeling.study_models import LeaderboardLink, PublishedFigure, Study  # noqa: E402

__all__ = [
    "Edit",
    "LeaderboardLink",
    "PublishedFigure",
    "RankedPicture",
    "Ranking",
    "Review",
    "ReviewPlan",
    "SetScore",
    "Study",
]
