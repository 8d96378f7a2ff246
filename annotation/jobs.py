"""Doorbells: they take a row's id, are safe to ring twice, and call one function."""

from __future__ import annotations

from celery import shared_task

from annotation import completion, queue
from annotation.models import Addition, Campaign, Export


@shared_task
def expire_leases() -> None:
    """Put what people left lying back in front of the queues."""
    queue.expire_leases()
    completion.note()


@shared_task
def add_to_campaign(addition_id: int) -> None:
    from annotation import additions

    row = Addition.objects.filter(pk=addition_id).select_related("campaign", "ordered_by").first()
    if row is not None:
        additions.run(row)


@shared_task
def ring_additions() -> None:
    """Ring again for additions that nobody heard of, and for those whose worker died."""
    for pk in Addition.objects.claimable().values_list("pk", flat=True):
        add_to_campaign.delay(pk)


@shared_task
def ring_aggregations() -> None:
    """Ring again for aggregations that nobody heard of, and for those whose worker died."""
    from annotation import aggregation

    for pk in aggregation.overdue():
        aggregate_campaign.delay(pk)


@shared_task
def aggregate_campaign(campaign_id: int) -> None:
    from annotation import aggregation

    campaign = Campaign.objects.filter(pk=campaign_id).first()
    if campaign is not None:
        with aggregation.alone(campaign_id) as mine:
            if mine:
                aggregation.aggregate(campaign)


@shared_task
def write_export(export_id: int) -> None:
    # It brings pyarrow, which the web does without.
    from annotation import exporting

    row = Export.objects.filter(pk=export_id).select_related("project").first()
    if row is not None:
        exporting.run(row)


@shared_task
def ring_exports() -> None:
    """Ring again for exports that nobody heard of, and for those whose worker died."""
    for pk in Export.objects.claimable().values_list("pk", flat=True):
        write_export.delay(pk)
