"""What may no longer be used: a source whose rights ended, a person whose judgments are not wanted.

Nothing is deleted. While a withdrawal stands, the source makes no candidates, trains no policy and
is asked about no more, and judgments of it or by the person count nowhere; what learnt from them
before is called tainted (`modeling.lineage`). Lifting a withdrawal undoes it.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from generation.models import Source


class WithdrawalQuerySet(models.QuerySet["Withdrawal"]):
    def standing(self) -> WithdrawalQuerySet:
        return self.filter(lifted_at__isnull=True)


class Withdrawal(models.Model):
    source = models.ForeignKey(
        Source, null=True, blank=True, on_delete=models.PROTECT, related_name="withdrawals"
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="withdrawals",
    )
    reason = models.CharField(max_length=300)
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    lifted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    lifted_at = models.DateTimeField(null=True, blank=True)

    objects = WithdrawalQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(source__isnull=False, person__isnull=True)
                | Q(source__isnull=True, person__isnull=False),
                name="withdrawal_of_one_thing",
            ),
            models.UniqueConstraint(
                fields=["source"],
                condition=Q(lifted_at__isnull=True),
                name="withdrawal_one_standing_of_a_source",
            ),
            models.UniqueConstraint(
                fields=["person"],
                condition=Q(lifted_at__isnull=True),
                name="withdrawal_one_standing_of_a_person",
            ),
        ]

    def __str__(self) -> str:
        return f"withdrawal of {self.source or f'person {self.person_id}'}"
