import subprocess
import time
from collections.abc import Callable

import pytest
from django.conf import settings

from config.celery import app
from generation.jobs import ring_generation
from generation.models import GenerationRun, Policy
from tests.conftest import waiting as count

pytestmark = pytest.mark.slow


def waiting(queue: str) -> int:
    with app.connection_for_read() as broker:
        return count(broker, queue)


@pytest.mark.django_db(transaction=True)
def test_it_rings_again_through_a_real_worker_for_work_nobody_heard(
    celery_worker: Callable[..., subprocess.Popen[bytes]],
) -> None:
    policy = Policy.objects.create(name="base", kind="base", location="somewhere")
    GenerationRun.objects.create(policy=policy)
    celery_worker("default")
    assert waiting("gpu") == 0

    ring_generation.delay()
    end = time.monotonic() + 60
    while not waiting("gpu"):
        assert time.monotonic() < end, "the worker never rang for the waiting run"
        time.sleep(0.1)


def test_it_schedules_only_jobs_that_exist() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled
    assert scheduled <= set(app.tasks)


def test_the_clock_rings_only_bells_that_there_are() -> None:
    app.loader.import_default_modules()
    rung = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert rung - set(app.tasks) == set()
