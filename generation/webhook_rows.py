"""Who is told of events in a project, and every message that was or is to be sent."""

from __future__ import annotations

import secrets
import uuid
from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from generation.models import Project

MARK = "whsec_"  # what scanners for leaked secrets can look for


def new_secret() -> str:
    return MARK + secrets.token_urlsafe(32)


class Topic(models.TextChoices):
    """The first word of an event's name, e.g. of "campaign.opened"."""

    ROUND = "round", _("a round goes a step on, waits or ends")
    GATE = "gate", _("a gate opens or stays shut")
    CAMPAIGN = "campaign", _("a campaign is opened, paused, closed or completed")
    RUN = "run", _("a training or a generation ends")


class Endpoint(models.Model):
    """An address outside that is told of a project's events."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="endpoints")
    url = models.URLField(max_length=500)
    secret = models.CharField(max_length=80, default=new_secret, editable=False)
    topics = ArrayField(models.CharField(max_length=10, choices=Topic))
    active = models.BooleanField(default=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["project", "url"], name="endpoint_once"),
            models.CheckConstraint(
                condition=Q(topics__contained_by=Topic.values) & Q(topics__len__gt=0),
                name="endpoint_topics_known",
            ),
        ]

    def __str__(self) -> str:
        return self.url


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self) -> DeliveryQuerySet:
        waiting = self.filter(state=Delivery.State.WAITING, endpoint__active=True)
        return waiting.filter(due_at__lte=timezone.now())


class Delivery(models.Model):
    """One message to one endpoint. Whoever sends it moves `due_at` on first: that is the lease."""

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="deliveries")
    key = models.UUIDField(default=uuid.uuid4)  # of the event: the receiver takes it once
    event = models.CharField(max_length=60)
    body = models.TextField()  # JSON, the same bytes at every attempt
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(default=timezone.now)
    response_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state="waiting"), name="delivery_due"),
            models.Index(fields=["created_at"], name="delivery_age"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "key"], name="delivery_once"),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "delivered", "failed"]),
                name="delivery_state_known",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", ended_at=None)
                | (~Q(state="waiting") & Q(ended_at__isnull=False)),
                name="delivery_ends_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint_id}"

    def claim(self, lease: timedelta) -> bool:
        """Take a message that is due; True for one caller, whose attempt it is."""
        now = timezone.now()
        taken = Delivery.objects.due().filter(pk=self.pk, due_at=self.due_at)
        if taken.update(due_at=now + lease, attempts=self.attempts + 1) != 1:
            return False
        self.refresh_from_db()
        return True
