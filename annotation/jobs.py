"""Doorbells: they take a row's id, are safe to ring twice, and call one function."""

from __future__ import annotations

from celery import shared_task

from annotation import queue
from annotation.models import Campaign


@shared_task(queue="default")
def expire_leases() -> None:
    """Put what people left lying back in front of the queues."""
    queue.expire_leases()


@shared_task(queue="default")
def aggregate_campaign(campaign_id: int) -> None:
    from annotation import aggregation

    campaign = Campaign.objects.filter(pk=campaign_id).first()
    if campaign is not None:
        aggregation.aggregate(campaign)
