import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command

from generation import candidates, images, jobs
from generation.models import Candidate, CandidateSet, GenerationRun, Policy
from generation.ownership import JobState
from tests.factories import make_plan, make_source, make_task

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

# Each worker imports torch first, which takes minutes on a machine that is busy otherwise.
WAIT_SECONDS = 300


def wait_for(run: GenerationRun, log: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while run.state in (JobState.QUEUED, JobState.RUNNING):
        assert time.monotonic() < end, log.read_text(errors="replace")
        time.sleep(0.2)
        run.refresh_from_db()


def test_a_worker_makes_what_was_queued_and_what_nobody_heard(
    celery_worker: Callable[..., subprocess.Popen[bytes]], policy: Policy, tmp_path: Path
) -> None:
    task = make_task("mend")
    make_plan(task, steps=[1], candidates_per_set=2)
    source = make_source(task, size=(32, 32))
    unheard = candidates.order_sets(policy=policy, sources=[source], seed=1)
    celery_worker("gpu", "default")

    call_command("generate_candidates", task="mend", sets=1, policy="tiny", queue=True)
    queued = GenerationRun.objects.exclude(pk=unheard.pk).get()
    wait_for(queued, tmp_path / "worker-0.log")
    unheard.refresh_from_db()
    assert unheard.state == JobState.QUEUED

    jobs.ring_generation.delay()
    wait_for(unheard, tmp_path / "worker-0.log")

    for run in (queued, unheard):
        assert (run.state, run.error) == (JobState.SUCCEEDED, "")
        assert CandidateSet.objects.ready().filter(run=run).count() == 1
    # Made in the worker's process, made again in this one.
    candidate = Candidate.objects.filter(set__run=queued).first()
    assert candidate is not None
    assert candidate.image is not None
    assert candidates.remake(candidate) == images.read_bytes(candidate.image)


def test_a_killed_worker_s_order_is_finished_by_the_next_without_doubles(
    celery_worker: Callable[..., subprocess.Popen[bytes]], policy: Policy, tmp_path: Path
) -> None:
    task = make_task("mend")
    make_plan(task, steps=[20, 30, 40], true_cfg_scale=[1.0, 2.0])
    source = make_source(task, size=(32, 32))
    run = candidates.order_sets(policy=policy, sources=[source] * 40, seed=1)
    worker = celery_worker("gpu")
    jobs.make_candidates.delay(run.pk)
    end = time.monotonic() + WAIT_SECONDS
    while run.progress == 0:
        assert time.monotonic() < end, (tmp_path / "worker-0.log").read_text(errors="replace")
        time.sleep(0.02)
        run.refresh_from_db()
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)

    run.refresh_from_db()
    made = _made(run)
    assert run.state == JobState.RUNNING
    assert 0 < len(made) == run.progress < 160
    # The lease is not waited for.
    GenerationRun.objects.update(lease_until="2020-01-01T00:00:00Z")
    celery_worker("gpu", "default")
    jobs.ring_generation.delay()
    wait_for(run, tmp_path / "worker-1.log")

    assert (run.state, run.attempt, run.progress) == (JobState.SUCCEEDED, 2, 160)
    finished = _made(run)
    assert len(finished) == 160
    assert {pk: finished[pk] for pk in made} == made
    assert CandidateSet.objects.ready().filter(run=run).count() == 40


def _made(run: GenerationRun) -> dict[int, tuple[object, ...]]:
    rows = Candidate.objects.filter(set__run=run, image__isnull=False)
    return {row.pk: (row.image_id, row.batch, row.batch_index) for row in rows}
