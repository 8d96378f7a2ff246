"""Doorbells: they carry a row's id, may ring twice, and own nothing."""

from celery import shared_task

from generation import candidates
from generation.models import GenerationRun


@shared_task(queue="gpu")
def make_candidates(run_id: int) -> None:
    run = GenerationRun.objects.filter(pk=run_id).select_related("policy").first()
    if run is not None:
        candidates.make(run)


@shared_task(queue="default")
def ring_generation() -> None:
    """Ring again for orders that nobody heard, and for those whose worker died."""
    for run_id in GenerationRun.objects.claimable().values_list("pk", flat=True):
        make_candidates.delay(run_id)
