"""Exports: datasets that somebody asked for on a page or over the API, and what became of each."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from generation.models import Project
from generation.ownership import Job, JobState


def new_salt() -> str:
    return secrets.token_urlsafe(24)


class Pictures(models.TextChoices):
    FILES = "files", _("as files")
    NONE = "none", _("none, only their hashes")
    PARQUET = "parquet", _("inside the Parquet files")
    WEBDATASET = "webdataset", _("as WebDataset tars")


class Export(Job):
    """A dataset on order, and the archive once it is made.

    `selection` is what `annotation.exports.Selection` takes. The salt of the pseudonyms is kept
    only while the archive is being made: afterwards nobody can tell who is who in it.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="exports")
    selection = models.JSONField(default=dict)
    format = models.CharField(max_length=24, default="canonical")
    pictures = models.CharField(max_length=10, choices=Pictures, default=Pictures.FILES)
    max_side = models.PositiveIntegerField(null=True, blank=True)  # pixels; longer sides shrink
    salt = models.CharField(max_length=64, default=new_salt, editable=False)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # The newest finished export of the same selection before this one; `difference` is to it.
    previous = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    difference = models.JSONField(null=True, blank=True)
    content_hash = models.CharField(max_length=64, blank=True)
    counts = models.JSONField(default=dict)
    losses = models.JSONField(default=list)  # what the format cannot hold
    archive = models.CharField(max_length=200, blank=True)  # its key in the media store
    byte_size = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta(Job.Meta):
        abstract = False
        constraints = [
            *Job.Meta.constraints,
            models.CheckConstraint(
                condition=Q(pictures__in=["files", "none", "parquet", "webdataset"]),
                name="export_pictures_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="succeeded") | Q(byte_size__isnull=False),
                name="export_finished_has_a_size",
            ),
        ]
        indexes = [models.Index(fields=["project", "-created_at"], name="export_by_project")]

    def __str__(self) -> str:
        return f"export {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("annotation:export", args=[self.pk])

    def ended(self) -> None:
        type(self).objects.filter(pk=self.pk).update(salt="")

    @property
    def is_open(self) -> bool:
        return self.state in {JobState.QUEUED, JobState.RUNNING}

    def options(self) -> dict[str, Any]:
        """What makes two exports versions of one another."""
        return {"selection": self.selection, "format": self.format, "project": self.project_id}
