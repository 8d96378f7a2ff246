"""How often somebody looks at the whole, and who did."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class ReviewPlan(models.Model):
    """How often a governance review is due; one row at most, edited in the admin."""

    EVERY_DAYS = 90  # where there is no row

    every_days = models.PositiveIntegerField(
        default=EVERY_DAYS, help_text=_("Managers are reminded so often; 0: never.")
    )

    class Meta:
        constraints = [models.UniqueConstraint(models.Value(1), name="review_plan_one")]

    def __str__(self) -> str:
        return f"every {self.every_days} days"


class Review(models.Model):
    """Somebody looked at the groups, wordings, limits and reports, and what they say of it."""

    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(auto_now_add=True)
    note = models.CharField(max_length=500)

    class Meta:
        ordering = ["-pk"]
        constraints = [models.CheckConstraint(condition=~Q(note=""), name="review_has_a_note")]

    def __str__(self) -> str:
        return f"review {self.pk}"
