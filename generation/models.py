"""What makes pictures: tasks, sources, policies, sampling plans, candidate sets and candidates."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext_lazy as _

from generation.ownership import Job

HEX64 = RegexValidator(r"^[0-9a-f]{64}$", _("A sha256 in hexadecimal has 64 characters 0-9a-f."))


class Split(models.TextChoices):
    TRAIN = "train", _("Train")
    HOLDOUT = "holdout", _("Holdout")


class Role(models.TextChoices):
    """What a member of a project may do; each role includes those before it."""

    VIEWER = "viewer", _("Viewer")  # sees pictures, figures and pages
    ANNOTATOR = "annotator", _("Annotator")  # judges
    REVIEWER = "reviewer", _("Reviewer")  # decides where annotators disagree
    MANAGER = "manager", _("Manager")  # runs campaigns and rounds
    ADMIN = "admin", _("Admin")  # names the members


class Project(models.Model):
    """Whose pictures and judgments these are; nobody outside sees them."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    members: models.ManyToManyField[Any, Membership] = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="projects"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.name


def default_project() -> int:
    """The project of whatever names none."""
    project, _ = Project.objects.get_or_create(slug="main", defaults={"name": "Main"})
    return project.pk


class Membership(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role, default=Role.ANNOTATOR)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} is {self.role} of {self.project_id}"


class TaskQuerySet(models.QuerySet["Task"]):
    def active(self) -> TaskQuerySet:
        return self.filter(active=True)


class Task(models.Model):
    """One kind of edit: what is asked of the policy, and how the reward model's query names it."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    wording = models.CharField(
        max_length=200,
        help_text=_("How the reward model's query names the task, e.g. “image fill”."),
    )
    instruction = models.TextField(
        blank=True, help_text=_("Shown to annotators above the pictures.")
    )
    fixed_prompt = models.CharField(
        max_length=500,
        blank=True,
        help_text=_("Used for every source of this task instead of its own."),
    )
    needs_source = models.BooleanField(
        default=True,
        help_text=_("Off: the picture is made from the prompt alone, as in text to image."),
    )
    needs_mask = models.BooleanField(default=True)
    weight = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(0.0)],
        help_text=_("Relative share of the task in policy training."),
    )
    active = models.BooleanField(default=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=Q(weight__gte=0), name="task_weight_not_negative"),
            models.CheckConstraint(
                condition=Q(needs_source=True) | Q(needs_mask=False),
                name="task_mask_needs_a_source",
                violation_error_message=_("Only a task with a source picture can need a mask."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Image(models.Model):
    """A picture, addressed by the hash of its bytes; everything that is a picture points here."""

    sha256 = models.CharField(max_length=64, unique=True, validators=[HEX64])
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    format = models.CharField(max_length=8)  # "png"
    byte_size = models.PositiveBigIntegerField()
    storage_key = models.CharField(max_length=200)  # ab/<sha256>.png below MEDIA_ROOT/images
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(width__gt=0, height__gt=0), name="image_has_an_area")
        ]

    def __str__(self) -> str:
        return self.sha256[:12]


class SourceQuerySet(models.QuerySet["Source"]):
    def usable(self) -> SourceQuerySet:
        """Those to learn from: not withdrawn, and not what somebody only wanted edited."""
        return self.library().not_withdrawn()

    def not_withdrawn(self) -> SourceQuerySet:
        return self.exclude(Exists(Withdrawal.objects.standing().filter(source=OuterRef("pk"))))

    def train(self) -> SourceQuerySet:
        return self.filter(split=Split.TRAIN)

    def holdout(self) -> SourceQuerySet:
        return self.filter(split=Split.HOLDOUT)

    def library(self) -> SourceQuerySet:
        return self.filter(origin=Source.Origin.LIBRARY)


class Source(models.Model):
    """What an edit starts from: a picture, the area to edit, and what is asked."""

    class Origin(models.TextChoices):
        LIBRARY = "library", _("Library")  # added to be learnt from
        EDIT = "edit", _("Edit")  # somebody wanted it edited; nothing draws from it by itself
        IMPORTED = "imported", _("Imported")  # others judged it elsewhere; the same holds

    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, related_name="sources", default=default_project
    )
    task = models.ForeignKey(Task, on_delete=models.PROTECT, related_name="sources")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    mask = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    prompt = models.TextField(blank=True)
    tags = models.JSONField(default=dict, blank=True)  # style, scene, subject … for audits
    split = models.CharField(
        max_length=8, choices=Split, help_text=_("Drawn from the picture's hash.")
    )
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.LIBRARY)
    external_id = models.CharField(max_length=200, blank=True)
    licence = models.CharField(max_length=120, blank=True)
    attribution = models.CharField(max_length=300, blank=True)
    # The ground truth of a picture from a known world: simulated annotators read it.
    scene = models.JSONField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SourceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "task", "image", "mask", "prompt"], name="source_not_twice"
            ),
            models.CheckConstraint(condition=Q(split__in=Split.values), name="source_split_known"),
            models.CheckConstraint(
                condition=Q(origin__in=["library", "edit", "imported"]), name="source_origin_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task.slug} {self.pk}"

    @property
    def effective_prompt(self) -> str:
        """The prompt given to the policy: the task's fixed one where it has one."""
        return self.task.fixed_prompt or self.prompt


class Policy(models.Model):
    """Weights that make candidates: a base, a trained descendant, or an external system."""

    class Kind(models.TextChoices):
        BASE = "base", _("Base")
        TRAINED = "trained", _("Trained")
        EXTERNAL = "external", _("External")

    class State(models.TextChoices):
        READY = "ready", _("Ready")
        ACTIVE = "active", _("Active")  # makes the next candidates; at most one
        RETIRED = "retired", _("Retired")

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=8, choices=Kind)
    state = models.CharField(max_length=8, choices=State, default=State.READY)
    location = models.CharField(
        max_length=500,
        blank=True,
        help_text=_("Hub id, or directory in diffusers' pipeline layout."),
    )
    revision = models.CharField(max_length=120, blank=True)
    transformer = models.CharField(
        max_length=500,
        blank=True,
        help_text=_("Hub id or directory of the transformer, if elsewhere."),
    )
    subfolder = models.CharField(max_length=200, blank=True)
    adapter = models.CharField(
        max_length=500, blank=True, help_text=_("Directory of a LoRA in diffusers' layout.")
    )
    max_pixels = models.PositiveIntegerField(
        default=1024 * 1024,
        help_text=_("Sources are scaled down to at most this area (width × height)."),
    )
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    card = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    promoted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "policies"
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="active"), name="policy_one_active"
            ),
            models.CheckConstraint(
                condition=Q(kind="external") | ~Q(location=""), name="policy_has_a_location"
            ),
            models.CheckConstraint(
                condition=Q(kind="trained", parent__isnull=False) | ~Q(kind="trained"),
                name="policy_trained_has_a_parent",
            ),
            models.CheckConstraint(
                condition=~Q(kind="external", state="active"), name="policy_external_not_active"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def spec(self) -> dict[str, Any]:
        """The keyword arguments of `generation.diffusion.loading.PolicySpec`."""
        return {
            "location": self.location,
            "revision": self.revision or None,
            "transformer": self.transformer,
            "subfolder": self.subfolder,
            "adapter": self.adapter,
        }


class SamplingPlan(models.Model):
    """What a task's candidates are drawn from; a changed plan is a new version, never an edit.

    `steps`, `strength`, `guidance_scale` and `true_cfg_scale` hold lists of values;
    `negative_prompts` a list of strings (the empty string stands for none). `weights` says by a
    list's name how likely its values are, in their order; a list without weights is drawn from
    equally.
    """

    task = models.ForeignKey(Task, on_delete=models.PROTECT, related_name="plans")
    version = models.PositiveIntegerField(default=1)
    candidates_per_set = models.PositiveSmallIntegerField(
        default=4, validators=[MinValueValidator(2), MaxValueValidator(8)]
    )
    steps = models.JSONField(default=list)
    strength = models.JSONField(default=list)
    guidance_scale = models.JSONField(default=list)
    true_cfg_scale = models.JSONField(default=list)
    negative_prompts = models.JSONField(default=list)
    weights = models.JSONField(default=dict, blank=True, editable=False)
    made_by = models.CharField(max_length=120, blank=True)
    current = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "version"], name="plan_version_once"),
            models.UniqueConstraint(
                fields=["task"], condition=Q(current=True), name="plan_one_current"
            ),
            models.CheckConstraint(
                condition=Q(candidates_per_set__range=(2, 8)), name="plan_two_to_eight_candidates"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task.slug} plan {self.version}"


class GenerationRun(Job):
    """An order of candidate sets, owned by a worker while it is made."""

    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="generation_runs")
    seed = models.BigIntegerField(default=0)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    def __str__(self) -> str:
        return f"generation {self.pk}"

    def ended(self) -> None:
        from generation import webhooks

        webhooks.send_run(self, "generation", {"policy": self.policy.name})


class CandidateSetQuerySet(models.QuerySet["CandidateSet"]):
    def ready(self) -> CandidateSetQuerySet:
        return self.filter(state=CandidateSet.State.READY)


class CandidateSet(models.Model):
    """N candidates for one source, drawn before they are made."""

    class State(models.TextChoices):
        DRAWN = "drawn", _("Drawn")
        READY = "ready", _("Ready")
        FAILED = "failed", _("Failed")
        WITHDRAWN = "withdrawn", _("Withdrawn")  # as its source

    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="sets")
    plan = models.ForeignKey(SamplingPlan, null=True, blank=True, on_delete=models.PROTECT)
    run = models.ForeignKey(
        GenerationRun, null=True, blank=True, on_delete=models.PROTECT, related_name="sets"
    )
    state = models.CharField(max_length=9, choices=State, default=State.DRAWN)
    size = models.PositiveSmallIntegerField()  # N
    error = models.CharField(max_length=500, blank=True)
    # Its name, where it came from another installation; see `annotation.portable`.
    uid = models.UUIDField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CandidateSetQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["drawn", "ready", "failed", "withdrawn"]),
                name="set_state_known",
            ),
            # An outside system may give a single picture: it is rated, or paired with others.
            models.CheckConstraint(condition=Q(size__range=(1, 8)), name="set_one_to_eight"),
            models.UniqueConstraint(
                fields=["uid"], condition=Q(uid__isnull=False), name="set_uid_once"
            ),
        ]

    def __str__(self) -> str:
        return f"set {self.pk}"


DRAWN = ("seed", "num_inference_steps", "strength", "guidance_scale", "true_cfg_scale")


class Candidate(models.Model):
    """One picture of a set with everything that was drawn for it.

    `batch` names the batch the picture was computed in and `batch_index` its place there: results
    depend on the batch's composition in their last bits, so making a picture again bit for bit
    means running its batch again. Of a picture from outside nothing was drawn here: its seed and
    the sampler's values are empty.
    """

    set = models.ForeignKey(CandidateSet, on_delete=models.CASCADE, related_name="candidates")
    index = models.PositiveSmallIntegerField()
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="candidates")
    image = models.ForeignKey(
        Image, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    seed = models.BigIntegerField(null=True, blank=True)
    num_inference_steps = models.PositiveSmallIntegerField(null=True, blank=True)
    strength = models.FloatField(null=True, blank=True)
    guidance_scale = models.FloatField(null=True, blank=True)
    true_cfg_scale = models.FloatField(null=True, blank=True)
    negative_prompt = models.TextField(blank=True)
    prompt = models.TextField(blank=True)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    batch = models.UUIDField(null=True, blank=True)
    batch_index = models.PositiveSmallIntegerField(null=True, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    device = models.CharField(max_length=80, blank=True)
    versions = models.JSONField(default=dict, blank=True)  # torch, diffusers, threads, dtype
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["batch", "batch_index"], name="candidate_batch")]
        constraints = [
            models.UniqueConstraint(fields=["set", "index"], name="candidate_index_once"),
            # What a judgment's composite foreign key refers to.
            models.UniqueConstraint(fields=["id", "set"], name="candidate_id_set"),
            models.CheckConstraint(
                condition=Q(strength__gt=0, strength__lte=1), name="candidate_strength_range"
            ),
            models.CheckConstraint(
                condition=Q(num_inference_steps__gt=0), name="candidate_steps_positive"
            ),
            models.CheckConstraint(
                condition=Q(true_cfg_scale__gte=1), name="candidate_true_cfg_at_least_one"
            ),
            models.CheckConstraint(
                condition=Q(**{f"{name}__isnull": True for name in DRAWN})
                | Q(**{f"{name}__isnull": False for name in DRAWN}),
                name="candidate_drawn_whole",
            ),
            models.CheckConstraint(
                condition=Q(batch__isnull=True, batch_index__isnull=True)
                | Q(batch__isnull=False, batch_index__isnull=False),
                name="candidate_batch_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"candidate {self.set_id}/{self.index}"


# Django finds an app's models here; these have a module of their own.
from generation.idempotency_rows import IdempotencyKey  # noqa: E402
from generation.installation import Installation  # noqa: E402
from generation.people import AuditEntry, Scope, Token, Verb  # noqa: E402
from generation.throttle import Attempts  # noqa: E402
from generation.webhook_rows import Delivery, Endpoint  # noqa: E402
from generation.withdrawals import Withdrawal  # noqa: E402

__all__ = [
    "Attempts",
    "AuditEntry",
    "Delivery",
    "Endpoint",
    "IdempotencyKey",
    "Installation",
    "Scope",
    "Token",
    "Verb",
    "Withdrawal",
]
