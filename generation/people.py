"""What people leave beside pictures: their API tokens, and the log of administrative acts."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

LONGEST = timedelta(days=365)


class Scope(models.TextChoices):
    """What a token may be used for; what its owner may do limits it further."""

    READ = "read", _("read what its owner may see")
    LABEL = "label", _("take turns and submit judgments")
    MANAGE = "manage", _("run campaigns and rounds")
    EXPORT = "export", _("download labels")
    SERVE = "serve", _("make and rank pictures")
    FEEDBACK = "feedback", _("report what became of pictures")


class TokenQuerySet(models.QuerySet["Token"]):
    def usable(self) -> TokenQuerySet:
        return self.filter(revoked_at__isnull=True, expires_at__gt=timezone.now())


class Token(models.Model):
    """A person's key to the API. Only the digest of its secret is stored."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens"
    )
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)  # sha256 of the secret
    prefix = models.CharField(max_length=12)  # the secret's beginning, to tell tokens apart
    scopes = ArrayField(models.CharField(max_length=12, choices=Scope))
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=Scope.values) & Q(scopes__len__gt=0),
                name="token_scopes_known",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__lte=F("created_at") + LONGEST),
                name="token_at_most_a_year",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "active"

    def admits(self, scope: str) -> bool:
        return scope in self.scopes

    def is_digest(self, digest: str) -> bool:
        return secrets.compare_digest(self.digest, digest)


class Verb(models.TextChoices):
    """The acts of the log; a new kind of act is a new line here, and no migration."""

    LOGIN = "logged in", _("logged in")
    LOGOUT = "logged out", _("logged out")
    LOGIN_FAILED = "failed to log in", _("failed to log in")
    LOGIN_THROTTLED = "tried to log in too often", _("tried to log in too often")
    CODE_FAILED = "gave a wrong code", _("gave a wrong code")
    SECOND_FACTOR_ON = "set up a second factor", _("set up a second factor")
    SECOND_FACTOR_OFF = "turned a second factor off", _("turned a second factor off")
    RECOVERY_CODES_MADE = "made recovery codes", _("made recovery codes")
    RECOVERY_CODE_USED = "used a recovery code", _("used a recovery code")
    SESSIONS_ENDED = "ended sessions", _("ended sessions")
    DATA_TAKEN = "downloaded their data", _("downloaded their data")
    ERASED = "erased a person", _("erased a person")
    SIGN_UP = "signed up", _("signed up")
    CONNECT = "connected a sign-in", _("connected a sign-in")
    PROFILE = "changed the profile", _("changed the profile")
    PASSWORD = "changed the password", _("changed the password")
    TOKEN_MADE = "made a token", _("made a token")
    TOKEN_REVOKED = "revoked a token", _("revoked a token")
    PROJECT_MADE = "made a project", _("made a project")
    MEMBER_ADDED = "added a member", _("added a member")
    ROLE_CHANGED = "changed a role", _("changed a role")
    MEMBER_REMOVED = "removed a member", _("removed a member")
    SOURCE_ADDED = "added a source", _("added a source")
    SETS_ORDERED = "ordered candidate sets", _("ordered candidate sets")
    REVIEWED = "reviewed the installation", _("reviewed the installation")
    WITHDRAWN = "withdrew", _("withdrew")
    WITHDRAWAL_LIFTED = "lifted a withdrawal", _("lifted a withdrawal")
    CAMPAIGN_MADE = "made a campaign", _("made a campaign")
    CAMPAIGN_STATE = "changed a campaign's state", _("changed a campaign's state")
    SETS_ADDED = "added sets to a campaign", _("added sets to a campaign")
    SETS_TAKEN_OUT = "took sets out of a campaign", _("took sets out of a campaign")
    PRIORITY_SET = (
        "changed the order of a campaign's sets",
        _("changed the order of a campaign's sets"),
    )
    CAMPAIGN_EDITED = "changed a campaign's settings", _("changed a campaign's settings")
    CAMPAIGN_PEOPLE = "changed who judges in a campaign", _("changed who judges in a campaign")
    INVITED = "made an invitation link", _("made an invitation link")
    INVITATION_REVOKED = "took an invitation link back", _("took an invitation link back")
    JOINED = "joined by an invitation link", _("joined by an invitation link")
    GOLD_CHANGED = "changed a known answer", _("changed a known answer")
    PERSON_PAUSED = "paused a person in a campaign", _("paused a person in a campaign")
    PERSON_RESUMED = "let a person go on in a campaign", _("let a person go on in a campaign")
    WORK_REQUEUED = (
        "put a person's work back into the queue",
        _("put a person's work back into the queue"),
    )
    REQUEUE_UNDONE = "took a requeue back", _("took a requeue back")
    ROUND_STARTED = "started a round", _("started a round")
    ROUND_LABELLED = "ended a round's labelling", _("ended a round's labelling")
    ROUND_CANCELLED = "cancelled a round", _("cancelled a round")
    STEP_RETRIED = "ran a step again", _("ran a step again")
    STEP_SKIPPED = "skipped a step", _("skipped a step")
    ROUND_ROLLED_BACK = "rolled a round back to a step", _("rolled a round back to a step")
    ROUND_APPROVED = "approved a promotion", _("approved a promotion")
    PROMOTION_UNDONE = "undid a promotion", _("undid a promotion")
    STUDY_MADE = "made a study", _("made a study")
    EXPORTED = "exported labels", _("exported labels")
    EXPORT_DELETED = "deleted an export's file", _("deleted an export's file")
    BOARD_SHARED = "shared a leaderboard", _("shared a leaderboard")
    BOARD_HIDDEN = "took a leaderboard's link back", _("took a leaderboard's link back")
    POLICY_ACTIVE = "made a policy active", _("made a policy active")
    REWARD_ACTIVE = "made a reward model active", _("made a reward model active")
    RUN_CANCELLED = "cancelled a generation", _("cancelled a generation")
    RUN_RETRIED = "ran a generation again", _("ran a generation again")
    WEBHOOK_MADE = "made a webhook", _("made a webhook")
    WEBHOOK_CHANGED = "changed a webhook", _("changed a webhook")
    ADMIN_ADDED = "added in the admin", _("added in the admin")
    ADMIN_CHANGED = "changed in the admin", _("changed in the admin")
    ADMIN_DELETED = "deleted in the admin", _("deleted in the admin")


class AuditEntry(models.Model):
    """One administrative act. A trigger lets nobody change or delete an entry; whoever is erased
    loses name and address in it (`audit.erasing`).

    The keys have no constraint in the database: whoever and whatever an entry names may go, and
    the entry stays as it was written.
    """

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
    )  # null: the program itself, or somebody not logged in
    actor_name = models.CharField(max_length=150, blank=True)
    verb = models.CharField(max_length=40)
    kind = models.CharField(max_length=40)  # "campaign", "user", "token" …
    object_id = models.CharField(max_length=40, blank=True)
    name = models.CharField(max_length=200, blank=True)
    project = models.ForeignKey(
        "generation.Project",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
    )
    detail = models.JSONField(default=dict)  # {"before": …, "after": …}
    address = models.GenericIPAddressField(null=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["project", "-id"], name="audit_of_project"),
            models.Index(fields=["actor", "-id"], name="audit_of_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name or 'OneLoop'} {self.verb}"

    @property
    def act(self) -> str:
        return str(dict(Verb.choices).get(self.verb, self.verb))

    @property
    def before(self) -> list[str]:
        return self._lines("before")

    @property
    def after(self) -> list[str]:
        return self._lines("after")

    def _lines(self, side: str) -> list[str]:
        values = self.detail.get(side, {})
        return [
            f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in values.items()
        ]
