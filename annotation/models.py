"""What judges pictures: dimensions, criteria, campaigns, assignments and judgments."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.utils.translation import gettext_lazy as _

from generation.models import (
    Candidate,
    CandidateSet,
    Image,
    Policy,
    Project,
    Source,
    Task,
    Withdrawal,
    default_project,
)
from generation.ownership import Job, JobState


class DimensionQuerySet(models.QuerySet["Dimension"]):
    def active(self) -> DimensionQuerySet:
        return self.filter(active=True)


class Dimension(models.Model):
    """One quality that is judged by itself, e.g. consistency."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    uses_prompt = models.BooleanField(
        default=False, help_text=_("Put the source's prompt into the reward model's query.")
    )
    active = models.BooleanField(default=True)
    tasks: models.ManyToManyField[Task, Criterion] = models.ManyToManyField(
        Task, through="Criterion", related_name="dimensions"
    )

    objects = DimensionQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def wording(self) -> Wording:
        """The newest wording; the admin refuses a dimension without one."""
        return max(self.wordings.all(), key=lambda wording: wording.version)


class Wording(models.Model):
    """What people and the reward model are asked; a change is a new version, never an edit."""

    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="wordings")
    version = models.PositiveIntegerField(default=1)
    question = models.CharField(max_length=300, help_text=_("Asked of annotators."))
    query = models.CharField(
        max_length=500,
        help_text=_(
            "Asked of the reward model as a yes/no question about the first image; "
            "where the dimension uses the prompt, {prompt} stands for it."
        ),
    )
    guideline = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["version"]
        constraints = [
            models.UniqueConstraint(fields=["dimension", "version"], name="wording_version_once")
        ]

    def __str__(self) -> str:
        return f"{self.dimension.slug} v{self.version}"


class Example(models.Model):
    """A picture that shows annotators what is good or bad in a dimension."""

    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="examples")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    good = models.BooleanField(default=True)
    caption = models.CharField(max_length=200, blank=True)
    order = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["-good", "order", "pk"]

    def __str__(self) -> str:
        return f"{'good' if self.good else 'bad'} {self.dimension.slug}"


class Criterion(models.Model):
    """A dimension that belongs to a task."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="criteria")
    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="criteria")
    weight = models.FloatField(default=1.0, validators=[MinValueValidator(0.0)])
    order = models.PositiveSmallIntegerField(default=0)
    required = models.BooleanField(default=True)

    class Meta:
        ordering = ["task_id", "order", "pk"]
        verbose_name_plural = "criteria"
        constraints = [
            models.UniqueConstraint(fields=["task", "dimension"], name="criterion_once"),
            models.CheckConstraint(
                condition=Q(weight__gte=0), name="criterion_weight_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task.slug} × {self.dimension.slug}"


class CampaignQuerySet(models.QuerySet["Campaign"]):
    def open(self) -> CampaignQuerySet:
        return self.filter(state=Campaign.State.OPEN)


class Campaign(models.Model):
    """Who judges which sets on which dimensions, and how often."""

    class Purpose(models.TextChoices):
        PREFERENCE = "preference", _("best and worst")
        COMPARISON = "comparison", _("good, same, bad")
        RATING = "rating", _("usable and 1–5")

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        OPEN = "open", _("Open")
        PAUSED = "paused", _("Paused")
        CLOSED = "closed", _("Closed")

    class Origin(models.TextChoices):
        PEOPLE = "people", _("asked here")
        IMPORTED = "imported", _("Imported")  # what others' people said; nobody is asked

    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, related_name="campaigns", default=default_project
    )
    name = models.CharField(max_length=120, unique=True)
    purpose = models.CharField(max_length=12, choices=Purpose, default=Purpose.PREFERENCE)
    state = models.CharField(max_length=8, choices=State, default=State.DRAFT)
    tasks = models.ManyToManyField(Task, blank=True, help_text=_("None chosen: every active task."))
    dimensions = models.ManyToManyField(
        Dimension, blank=True, help_text=_("None chosen: every active criterion of the task.")
    )
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        blank=True,
        help_text=_("No member and no group chosen: everyone in the project."),
    )
    groups = models.ManyToManyField("auth.Group", blank=True)
    sets: models.ManyToManyField[CandidateSet, Item] = models.ManyToManyField(
        CandidateSet, through="Item", related_name="campaigns"
    )
    overlap = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(50)]
    )
    gold_rate = models.FloatField(
        default=0.0, help_text=_("Share of turns at sets whose answer is known, 0 to 1.")
    )
    repeat_rate = models.FloatField(
        default=0.0,
        help_text=_("Share of turns at sets the same person has judged before, 0 to 1."),
    )
    lease_seconds = models.PositiveIntegerField(default=1800)
    daily_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("Sets a person may judge in a day; empty: no limit.")
    )
    deadline = models.DateTimeField(null=True, blank=True)
    guideline = models.TextField(blank=True, help_text=_("Markdown."))
    one_at_a_time = models.BooleanField(
        default=False, help_text=_("Show one dimension at a time instead of all of them.")
    )
    editable = models.BooleanField(
        default=True, help_text=_("People may correct their own judgments while it is open.")
    )
    show_gold = models.BooleanField(
        default=False, help_text=_("Show people how often they agree with the known answers.")
    )
    break_minutes = models.PositiveSmallIntegerField(
        default=45, help_text=_("Suggest a break after so many minutes of work; 0: never.")
    )
    practice_sets = models.PositiveSmallIntegerField(
        default=0, help_text=_("Practice sets to be passed before work counts; 0: none.")
    )
    practice_share = models.FloatField(
        default=0.8, help_text=_("Share of the practice answers that must be right, 0 to 1.")
    )
    pause_below = models.FloatField(
        null=True,
        blank=True,
        help_text=_(
            "A person whose accuracy on known answers falls below this is paused; empty: nobody is."
        ),
    )
    pause_after = models.PositiveSmallIntegerField(
        default=10, help_text=_("Known answers a person must have given before that.")
    )
    # When all that was asked had been answered; empty again where sets were added since.
    completed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The simulated annotators' campaigns are kept apart from people's.
    simulated = models.BooleanField(default=False)
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.PEOPLE, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CampaignQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(condition=Q(overlap__gte=1), name="campaign_overlap_positive"),
            models.CheckConstraint(
                condition=Q(gold_rate__range=(0, 1), repeat_rate__range=(0, 1)),
                name="campaign_rates_are_shares",
            ),
            models.CheckConstraint(
                condition=Q(lease_seconds__gte=30), name="campaign_lease_at_least_30"
            ),
            models.CheckConstraint(
                condition=Q(practice_share__range=(0, 1))
                & (Q(pause_below__isnull=True) | Q(pause_below__range=(0, 1))),
                name="campaign_thresholds_are_shares",
            ),
            models.CheckConstraint(
                condition=Q(purpose__in=["preference", "comparison", "rating"]),
                name="campaign_purpose_known",
            ),
            models.CheckConstraint(
                condition=Q(origin="people") | Q(origin="imported", state="closed"),
                name="campaign_imported_is_closed",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Addition(Job):
    """Many sets on their way into a campaign's queue; `about` is the form that chose them."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="additions")
    about = models.JSONField()
    ordered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # The newest item before it began: what came in later can be taken out again.
    newest = models.BigIntegerField(default=0, editable=False)
    added = models.PositiveIntegerField(default=0, editable=False)

    @property
    def is_open(self) -> bool:
        return self.state in {JobState.QUEUED, JobState.RUNNING}

    def __str__(self) -> str:
        return f"addition {self.pk} to {self.campaign}"


class Seat(models.Model):
    """One person's place in one campaign, made with the first claim.

    A claim locks it, so that two tabs of one person get the same turn. `position` is where in the
    queue the last item was found: looking goes on from there, so a claim costs the same however
    much of the queue is done. It only says where to look first.
    """

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="seats")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="seats"
    )
    position = models.FloatField(default=-50.0, editable=False)
    practice_passed_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=300, blank=True)
    # Known answers given before it do not pause the person again.
    resumed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["campaign", "user"], name="seat_once")]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.campaign_id}"


class Invitation(models.Model):
    """A link that makes whoever opens it a member of a campaign. Only its digest is stored."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="invitations")
    digest = models.CharField(max_length=64, unique=True)  # sha256 of the link's secret
    note = models.CharField(max_length=120, blank=True)
    uses_left = models.PositiveIntegerField(default=1)
    expires_at = models.DateTimeField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"invitation to {self.campaign}"


class Item(models.Model):
    """What a campaign asks about: a candidate set, or some of its candidates.

    Items are handed out by `position`, lowest first: a draw from [0, 1) less the item's priority.
    Work that was given back goes in front. `full` says that all slots are held or done; a trigger
    on assignments keeps it, so no code can let it drift.
    """

    RETURNED = 100  # the priority of work that was given back
    START = -50.0  # where work begins that was not: priorities are less than this

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="items")
    set = models.ForeignKey(CandidateSet, on_delete=models.PROTECT, related_name="items")
    shown = models.JSONField(default=list, blank=True)  # candidate indexes; empty: all of the set
    position = models.FloatField()
    full = models.BooleanField(default=False, editable=False)

    class Meta:
        indexes = [
            models.Index(
                fields=["campaign", "position", "id"],
                condition=Q(full=False),
                name="item_queue",
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "set", "shown"], name="item_once"),
            models.UniqueConstraint(fields=["id", "set"], name="item_id_set"),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id}/{self.set_id}"


class Assignment(models.Model):
    """One person's turn at one item: a slot, a lease, and the order the candidates are shown in.

    Work that is stored without a slot gets the lowest free one from the database; where none is
    free, nothing is stored.
    """

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        SUBMITTED = "submitted", _("Submitted")
        SKIPPED = "skipped", _("Skipped")
        EXPIRED = "expired", _("Expired")
        LATE = (
            "late",
            _("Late"),
        )  # answered after the slot had gone to somebody else; kept, not counted

    class Kind(models.TextChoices):
        WORK = "work", _("Work")  # counts toward the item's overlap
        GOLD = "gold", _("Gold")  # the answer is known
        REPEAT = "repeat", _("Repeat")  # the same person has judged it before
        PRACTICE = "practice", _("Practice")
        REVIEW = "review", _("Review")  # a reviewer decides what annotators disagree about

    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="assignments")
    set = models.ForeignKey(CandidateSet, on_delete=models.PROTECT, related_name="assignments")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="assignments"
    )
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.WORK)
    slot = models.PositiveSmallIntegerField()
    order = models.JSONField()  # candidate indexes from left to right
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    lease_until = models.DateTimeField()
    skip_reason = models.CharField(max_length=300, blank=True)
    submission = models.UUIDField(
        null=True, blank=True, unique=True
    )  # the client's id of a submission
    seconds_spent = models.FloatField(null=True, blank=True)
    comment = models.TextField(blank=True)  # a reviewer's reasons
    # Its name, where it came from another installation; see `annotation.portable`.
    uid = models.UUIDField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    submitted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["annotator", "state"], name="assignment_annotator"),
            models.Index(fields=["annotator", "-submitted_at"], name="assignment_history"),
            models.Index(
                fields=["lease_until"], condition=Q(state="open"), name="assignment_leases"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["open", "submitted", "skipped", "expired", "late"]),
                name="assignment_state_known",
            ),
            models.UniqueConstraint(
                fields=["item", "slot"],
                condition=Q(state__in=["open", "submitted"], kind="work"),
                name="assignment_one_live_lease_per_slot",
            ),
            models.UniqueConstraint(
                fields=["item", "annotator", "kind"],
                condition=~Q(state="expired") & ~Q(kind="practice"),
                name="assignment_once_per_annotator",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["work", "gold", "repeat", "practice", "review"]),
                name="assignment_kind_known",
            ),
            models.UniqueConstraint(fields=["id", "set"], name="assignment_id_set"),
            models.UniqueConstraint(
                fields=["uid"], condition=Q(uid__isnull=False), name="assignment_uid_once"
            ),
            models.CheckConstraint(
                condition=Q(state="submitted", submitted_at__isnull=False) | ~Q(state="submitted"),
                name="assignment_submitted_has_time",
            ),
        ]

    def __str__(self) -> str:
        return f"assignment {self.pk}"


ASKED_HERE = {"assignment__item__campaign__origin": Campaign.Origin.PEOPLE}


def _withdrawn() -> Exists:
    """Whether the source of a judgment or a rating is withdrawn, or whoever gave it."""
    of = Q(source=OuterRef("set__source")) | Q(person=OuterRef("assignment__annotator"))
    return Exists(Withdrawal.objects.standing().filter(of))


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def current(self) -> JudgmentQuerySet:
        return self.filter(current=True)

    def withdrawn(self) -> JudgmentQuerySet:
        """Those of a withdrawn source or person."""
        return self.filter(_withdrawn())

    def counted(self, *, imported: bool = False) -> JudgmentQuerySet:
        """What stands and says something about the candidates.

        What others' people said elsewhere is there only where it is asked for: with `imported`.

        Late answers would go beyond the overlap. Answers at known sets, repeats and practice say
        something about people instead. Where a reviewer decided, the decision stands in the
        annotators' place. What is withdrawn counts nowhere.
        """
        decisions = Judgment.objects.filter(
            current=True,
            assignment__kind=Assignment.Kind.REVIEW,
            assignment__item=OuterRef("assignment__item"),
            dimension=OuterRef("dimension"),
        )
        asked = {} if imported else ASKED_HERE
        return self.current().filter(
            ~_withdrawn(),
            Q(assignment__kind=Assignment.Kind.REVIEW)
            | Q(
                Q(assignment__kind=Assignment.Kind.WORK)
                & ~Q(assignment__state=Assignment.State.LATE)
                & ~Exists(decisions)
            ),
            **asked,
        )


class Judgment(models.Model):
    """What one person said about one set on one dimension; a correction is a new row.

    Composite foreign keys keep `set` equal to the assignment's set and both candidates inside it.
    """

    class Outcome(models.TextChoices):
        PICKED = "picked", _("Picked")
        NO_DIFFERENCE = "no_difference", _("No Difference")
        CANNOT_JUDGE = "cannot_judge", _("Cannot Judge")

    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="judgments")
    set = models.ForeignKey(CandidateSet, on_delete=models.PROTECT, related_name="judgments")
    dimension = models.ForeignKey(Dimension, on_delete=models.PROTECT, related_name="judgments")
    wording = models.ForeignKey(Wording, on_delete=models.PROTECT, related_name="+")
    outcome = models.CharField(max_length=14, choices=Outcome)
    best = models.ForeignKey(
        Candidate, null=True, blank=True, on_delete=models.PROTECT, related_name="judged_best"
    )
    worst = models.ForeignKey(
        Candidate, null=True, blank=True, on_delete=models.PROTECT, related_name="judged_worst"
    )
    revision = models.PositiveIntegerField(default=1)
    current = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    objects = JudgmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["assignment", "dimension"],
                condition=Q(current=True),
                name="judgment_one_current",
            ),
            models.UniqueConstraint(
                fields=["assignment", "dimension", "revision"], name="judgment_revision_once"
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=["picked", "no_difference", "cannot_judge"]),
                name="judgment_outcome_known",
            ),
            models.CheckConstraint(
                condition=Q(outcome="picked", best__isnull=False, worst__isnull=False)
                | (~Q(outcome="picked") & Q(best__isnull=True, worst__isnull=True)),
                name="judgment_picked_has_both",
            ),
            models.CheckConstraint(
                condition=Q(best__isnull=True) | ~Q(best=F("worst")),
                name="judgment_best_is_not_worst",
            ),
        ]

    def __str__(self) -> str:
        return f"judgment {self.pk}"


class RatingQuerySet(models.QuerySet["Rating"]):
    def current(self) -> RatingQuerySet:
        return self.filter(current=True)

    def counted(self, *, imported: bool = False) -> RatingQuerySet:
        """What stands and says something about the candidates; see `Judgment.objects.counted`."""
        asked = {} if imported else ASKED_HERE
        return (
            self.current()
            .filter(~_withdrawn(), assignment__kind=Assignment.Kind.WORK, **asked)
            .exclude(assignment__state=Assignment.State.LATE)
        )


class Rating(models.Model):
    """A score of a single candidate: usable yes/no (no dimension) or 1–5 on a dimension.

    A correction is a new row. Composite foreign keys keep the candidate inside the turn's set.
    """

    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="ratings")
    set = models.ForeignKey(CandidateSet, on_delete=models.PROTECT, related_name="ratings")
    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="ratings")
    dimension = models.ForeignKey(Dimension, null=True, blank=True, on_delete=models.PROTECT)
    wording = models.ForeignKey(
        Wording, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    value = models.PositiveSmallIntegerField()  # usable: 0 or 1; dimension: 1–5
    revision = models.PositiveIntegerField(default=1)
    current = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    objects = RatingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["assignment", "candidate", "dimension"],
                condition=Q(current=True, dimension__isnull=False),
                name="rating_one_current",
            ),
            models.UniqueConstraint(
                fields=["assignment", "candidate"],
                condition=Q(current=True, dimension__isnull=True),
                name="rating_one_usable",
            ),
            models.CheckConstraint(
                condition=Q(dimension__isnull=True, wording__isnull=True, value__range=(0, 1))
                | Q(dimension__isnull=False, wording__isnull=False, value__range=(1, 5)),
                name="rating_value_in_range",
            ),
        ]

    def __str__(self) -> str:
        return f"rating {self.pk}"


class Flag(models.Model):
    """A problem somebody reported about a set."""

    assignment = models.ForeignKey(Assignment, on_delete=models.CASCADE, related_name="flags")
    reason = models.CharField(max_length=300)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    note = models.CharField(max_length=300, blank=True)  # what was done about it
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.reason


class Gold(models.Model):
    """A known answer, mixed in among the others to see how well people judge."""

    class Origin(models.TextChoices):
        HAND = "hand", _("set by hand")
        CONSENSUS = "consensus", _("Consensus")
        TRUTH = "truth", _("ground truth")

    set = models.ForeignKey(CandidateSet, on_delete=models.CASCADE, related_name="golds")
    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="golds")
    best = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    worst = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="+")
    explanation = models.TextField(blank=True)
    origin = models.CharField(max_length=10, choices=Origin, default=Origin.HAND)
    attention = models.BooleanField(
        default=False, help_text=_("So plain that only somebody who does not look gets it wrong.")
    )
    practice = models.BooleanField(
        default=False, help_text=_("Used for practice, not for checking.")
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["set", "dimension"], name="gold_once"),
            models.CheckConstraint(
                condition=Q(origin__in=["hand", "consensus", "truth"]), name="gold_origin_known"
            ),
            models.CheckConstraint(condition=~Q(best=F("worst")), name="gold_best_is_not_worst"),
        ]

    def __str__(self) -> str:
        return f"gold of set {self.set_id}"


class Aggregation(models.Model):
    """What a campaign's judgments add up to when people count by their estimated reliability."""

    campaign = models.OneToOneField(Campaign, on_delete=models.CASCADE, related_name="aggregation")
    requested_at = models.DateTimeField(null=True, blank=True)
    made_at = models.DateTimeField(null=True, blank=True)
    judgments = models.PositiveIntegerField(default=0)  # it was made from
    seconds = models.FloatField(null=True, blank=True)  # it took
    # A list of {"user", "dimension", "n", "accuracy", "attentive"}.
    reliability = models.JSONField(default=list, blank=True)

    def __str__(self) -> str:
        return f"aggregation of {self.campaign_id}"


class Consensus(models.Model):
    """The weighted answer about an item on a dimension, beside the plain majority's."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="consensus")
    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="+")
    # None stands for "no difference".
    best = models.ForeignKey(Candidate, null=True, on_delete=models.CASCADE, related_name="+")
    worst = models.ForeignKey(Candidate, null=True, on_delete=models.CASCADE, related_name="+")
    confidence = models.FloatField()  # probability of the best
    people = models.PositiveSmallIntegerField()
    majority = models.ForeignKey(Candidate, null=True, on_delete=models.CASCADE, related_name="+")
    majority_share = models.FloatField()
    scores = models.JSONField(default=dict)  # candidate index → noisy Bradley–Terry score, 0 to 1

    class Meta:
        verbose_name_plural = "consensus"
        constraints = [
            models.UniqueConstraint(fields=["item", "dimension"], name="consensus_once"),
            models.CheckConstraint(
                condition=Q(confidence__range=(0, 1), majority_share__range=(0, 1)),
                name="consensus_shares",
            ),
            models.CheckConstraint(
                condition=Q(best__isnull=True, worst__isnull=True)
                | Q(best__isnull=False, worst__isnull=False) & ~Q(best=F("worst")),
                name="consensus_best_is_not_worst",
            ),
        ]

    def __str__(self) -> str:
        return f"consensus of item {self.item_id}"


class FeedbackQuerySet(models.QuerySet["Feedback"]):
    def counted(self) -> FeedbackQuerySet:
        """Without what is about withdrawn sources."""
        usable = Source.objects.not_withdrawn().filter(pk=OuterRef("candidate__set__source"))
        return self.filter(Exists(usable))


class Feedback(models.Model):
    """What became of a candidate in production: an event, written once and never changed."""

    class Kind(models.TextChoices):
        ACCEPTED = "accepted", _("Accepted")
        PUBLISHED = "published", _("Published")
        EDITED = "edited", _("Edited")  # again, since it was not good enough as it was
        DISCARDED = "discarded", _("Discarded")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="feedback")
    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="feedback")
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="feedback")
    kind = models.CharField(max_length=10, choices=Kind)
    happened_at = models.DateTimeField()
    value = models.FloatField(null=True, blank=True)  # to the business, in a unit of its own
    # Digest of the name that the other system has for whoever did it: told apart, not named.
    user = models.CharField(max_length=16)
    client_id = models.CharField(max_length=80)  # sent again it is stored once
    reported_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = FeedbackQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["project", "happened_at"], name="feedback_by_time")]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["accepted", "published", "edited", "discarded"]),
                name="feedback_kind_known",
            ),
            models.UniqueConstraint(fields=["project", "client_id"], name="feedback_once"),
            models.CheckConstraint(
                condition=Q(value__isnull=True) | Q(value__gte=0), name="feedback_value_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.candidate_id}"


# Django finds an app's models here; these have a module of their own.
from annotation.export_rows import Export  # noqa: E402

__all__ = ["Export"]
