"""What processes tell of themselves, for those who look after the installation."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

# Beats come every ten seconds: after two missed ones a process is taken for dead.
SILENT = timedelta(seconds=30)
# Its loop says something every two seconds, if it can: a broker that restarts takes a while.
DEAF = timedelta(seconds=60)
FORGOTTEN = timedelta(days=1)


class HeartbeatQuerySet(models.QuerySet["Heartbeat"]):
    """Ages are those of the database's clock, which also wrote the times."""

    def alive(self) -> HeartbeatQuerySet:
        return self.filter(beat_at__gte=Now() - SILENT)

    def listening(self) -> HeartbeatQuerySet:
        """Alive, and their loop turns: a worker is connected to the broker, the clock ticks."""
        return self.alive().filter(heard_at__gte=Now() - DEAF)


class Heartbeat(models.Model):
    """A worker or the clock. One that ends takes its row along; one that is killed leaves it."""

    class Kind(models.TextChoices):
        WORKER = "worker", _("Worker")
        BEAT = "beat", _("Clock")

    name = models.CharField(max_length=200, unique=True)  # e.g. gpu@machine
    kind = models.CharField(max_length=6, choices=Kind)
    queues = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    machine = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=100)
    gpus = models.JSONField(default=list, blank=True)  # see `config.gpus`
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    heard_at = models.DateTimeField(null=True, blank=True)

    objects = HeartbeatQuerySet.as_manager()

    class Meta:
        ordering = ["kind", "name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=["worker", "beat"]), name="heartbeat_kind_known"
            )
        ]

    def __str__(self) -> str:
        return self.name


class LastFinding(models.Model):
    """What the slow examinations found last; a job of the default queue looks again."""

    key = models.CharField(max_length=60, unique=True)
    # One dictionary a finding; its sentences are kept in every language: {"en-gb": …, "ja": …}.
    findings = models.JSONField(default=list)
    looked_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.key


class Tally(models.Model):
    """A count that only grows, of what happens in processes that nobody asks for metrics."""

    name = models.CharField(max_length=60, unique=True)
    value = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "tallies"

    def __str__(self) -> str:
        return f"{self.name} {self.value}"
