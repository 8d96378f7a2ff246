"""Deaths in every step of a round, and at every change of its state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from annotation.models import Campaign
from generation.models import CandidateSet, Policy
from generation.ownership import JobState
from modeling import rounds
from modeling.models import Evaluation, RewardModel, RoundStep, TrainingRun
from modeling.round_steps import Name
from tests.conftest import REPOSITORY, process_environment
from tests.modeling.project import Project
from tests.modeling.test_rounds import create, step_of
from tests.modeling.test_transitions import Killed, dying, lease_ends


def turn(data_dir: Path, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "run_round", "--resume"],
        cwd=REPOSITORY,
        env=process_environment(data_dir, "redis://127.0.0.1:1"),
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_round_survives_kill_9_in_every_step(
    project: Project, data_dir: Path, tmp_path: Path
) -> None:
    round_ = create(keep_going=True)
    log = tmp_path / "log.txt"
    killed = []
    for name in Name:
        step = RoundStep.objects.get(round=round_, name=name)
        if step.state == JobState.SUCCEEDED:
            continue  # it was over before the blow for an earlier one fell
        process = turn(data_dir, log)
        end = time.monotonic() + 180
        while RoundStep.objects.get(pk=step.pk).state == JobState.QUEUED:
            assert time.monotonic() < end, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        killed.append(name)
        lease_ends(round_)
        TrainingRun.objects.filter(state=JobState.RUNNING).update(lease_until="2020-01-01T00:00Z")
    round_.refresh_from_db()
    if round_.finished_at is None:
        assert turn(data_dir, log).wait(300) == 0, log.read_text()

    round_.refresh_from_db()
    assert round_.outcome.startswith("Measured, not promoted."), log.read_text()
    assert {Name.GENERATE, Name.TRAIN_REWARD, Name.TRAIN_POLICY, Name.EVALUATE} <= set(killed)
    assert CandidateSet.objects.count() == 2 * (4 + 3)
    assert Campaign.objects.count() == 1
    assert TrainingRun.objects.count() == 2
    assert Policy.objects.filter(parent=project.policy).count() == 1
    assert RewardModel.objects.filter(parent=project.reward).count() == 1
    assert Evaluation.objects.filter(kind="policy").count() == 1
    taken = round_.transitions.filter(from_state="running", to_state="running")
    assert taken.count() >= 3


@pytest.mark.long
@pytest.mark.slow
def test_a_whole_round_survives_a_death_at_every_change(project: Project) -> None:
    round_ = create(keep_going=True)
    while (step := rounds.current_step(round_)) is not None:
        ends = ("done", "passed", "shut", "skipped")
        for states in (("running",), ends):
            with dying(step.name, *states), pytest.raises(Killed):
                rounds.execute(RoundStep.objects.select_related("round").get(pk=step.pk))
            lease_ends(round_)
        assert rounds.execute(RoundStep.objects.select_related("round").get(pk=step.pk))
        assert step_of(round_, step.name).error == ""
    round_.refresh_from_db()
    assert round_.finished_at is not None
    assert CandidateSet.objects.count() == 2 * (4 + 3)
    assert Campaign.objects.count() == 1
    assert TrainingRun.objects.count() == 2
    assert Policy.objects.filter(parent=project.policy).count() == 1
    assert RewardModel.objects.filter(parent=project.reward).count() == 1
    assert Evaluation.objects.filter(kind="policy").count() == 1
