"""Who this installation is to others: rows that leave it are named after it."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class Installation(models.Model):
    """One row, made when it is first asked for."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    uid = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="installation_only_one")]

    def __str__(self) -> str:
        return str(self.uid)


def installation() -> uuid.UUID:
    return Installation.objects.get_or_create(pk=1)[0].uid
