import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from safetensors.numpy import load_file

from generation import shared
from generation.models import Policy
from generation.ownership import JobState
from modeling import jobs, launch, rounds, runs
from modeling.models import RoundStep, TrainingRun
from modeling.round_steps import Name
from tests.modeling.project import CONFIG, Project

StartWorker = Callable[..., subprocess.Popen[bytes]]
LORA = "pytorch_lora_weights.safetensors"


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def in_state(run: TrainingRun, state: str) -> bool:
    return TrainingRun.objects.filter(pk=run.pk, state=state).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_resumes_a_killed_training_exactly(project: Project, celery_worker: StartWorker) -> None:
    config = {**CONFIG["policy"], "steps": 12, "checkpoint_every": 2}
    started: dict[str, Any] = {"parent": project.policy, "reward": project.reward, "config": config}
    run = runs.start_policy(**started)
    directory = shared.place(run.directory)
    worker = celery_worker("gpu")
    jobs.execute_run.delay(run.pk)
    wait_for(lambda: bool(list(directory.glob("checkpoints/step-[4-9]"))))

    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)

    # The trainer ends with its worker; the row stays the dead worker's until its lease ends.
    wait_for(lambda: launch.leftovers("modeling.policy.train", directory) == [], 20)
    assert not (directory / "result.json").exists()
    assert in_state(run, JobState.RUNNING)
    assert not runs.execute(TrainingRun.objects.get(pk=run.pk))
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now())
    celery_worker("gpu")
    jobs.ring()
    jobs.ring()
    wait_for(lambda: in_state(run, JobState.SUCCEEDED))

    run.refresh_from_db()
    assert (run.attempt, run.progress) == (2, 12)
    assert Policy.objects.filter(parent=project.policy).count() == 1
    steps = [line.split(",")[0] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, 13)]
    straight = runs.start_policy(**started)
    assert runs.execute(straight)
    weights, expected = (
        load_file(shared.place(one.directory) / "adapter" / LORA) for one in (run, straight)
    )
    assert weights.keys() == expected.keys()
    assert all((weights[name] == expected[name]).all() for name in weights)


@pytest.mark.slow
def test_it_does_a_rounds_step_when_the_bell_rings(
    project: Project, celery_worker: StartWorker
) -> None:
    small = {"sets_per_task": 1, "holdout_sets_per_task": 1}
    round_ = rounds.create(annotators="human", config={**CONFIG, **small})
    celery_worker("gpu")

    jobs.ring()

    label = RoundStep.objects.filter(round=round_, name=Name.LABEL)
    wait_for(lambda: label.filter(message__startswith="Waiting for people").exists())
    steps = {step.name: step for step in round_.steps.all()}
    assert steps[Name.GENERATE].state == JobState.SUCCEEDED
    assert steps[Name.LABEL].state == JobState.QUEUED
