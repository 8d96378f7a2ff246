"""Doorbells: they carry a row's id, may ring twice, and own nothing."""

from celery import shared_task

from generation import candidates, idempotency, webhooks
from generation.models import GenerationRun
from generation.webhook_rows import Delivery


@shared_task
def make_candidates(run_id: int) -> None:
    run = GenerationRun.objects.filter(pk=run_id).select_related("policy").first()
    if run is not None:
        candidates.make(run)


@shared_task
def ring_generation() -> None:
    """Ring again for orders that nobody heard, and for those whose worker died."""
    for run_id in GenerationRun.objects.claimable().values_list("pk", flat=True):
        make_candidates.delay(run_id)


# Whoever is written to may answer byte by byte: the worker is not kept for longer than this.
@shared_task(soft_time_limit=40, time_limit=60)
def deliver(delivery_id: int) -> None:
    row = Delivery.objects.filter(pk=delivery_id).select_related("endpoint").first()
    if row is not None:
        webhooks.deliver(row)


@shared_task
def ring_deliveries() -> None:
    """Send what is due again, and what nobody heard of; forget old answers."""
    for pk in Delivery.objects.due().values_list("pk", flat=True):
        deliver.delay(pk)
    idempotency.forget_old()
