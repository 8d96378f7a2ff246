import subprocess
import time
from collections.abc import Callable

import pytest
from django.conf import settings
from django.db import connection

from config.celery import app
from generation.jobs import make_candidates, ring_generation
from generation.models import GenerationRun, Policy
from generation.ownership import JobState
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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_jobs_go_on_after_the_database_ended_the_connections(
    celery_worker: Callable[..., subprocess.Popen[bytes]], method: str
) -> None:
    """In the process that had done one before, however that process began."""
    policy = Policy.objects.create(name="base", kind="base", location="somewhere")
    celery_worker("gpu", CELERY_WORKER_POOL_START_METHOD=method)
    for number in (1, 2):
        run = GenerationRun.objects.create(policy=policy)  # nothing is to be made for it
        end = time.monotonic() + 60
        while run.state != JobState.SUCCEEDED:
            assert time.monotonic() < end, f"run {number} is {run.state}"
            make_candidates.delay(run.pk)
            time.sleep(0.5)
            run.refresh_from_db()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def test_it_schedules_only_jobs_that_exist() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled
    assert scheduled <= set(app.tasks)


def test_the_clock_rings_only_bells_that_there_are() -> None:
    app.loader.import_default_modules()
    rung = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert rung - set(app.tasks) == set()


def test_every_route_is_that_of_a_job() -> None:
    app.loader.import_default_modules()
    assert set(settings.CELERY_TASK_ROUTES) - set(app.tasks) == set()
