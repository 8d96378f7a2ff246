import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from generation import policies
from generation.models import CandidateSet, GenerationRun, Policy
from generation.ownership import JobState
from tests.factories import make_plan, make_policy, make_source, make_task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _sources() -> None:
    task = make_task("mend")
    make_plan(task, steps=[1], candidates_per_set=2)
    for _ in range(2):
        make_source(task, size=(32, 32))


def test_it_makes_the_sets_that_were_asked_for(
    policy: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies.activate(policy)
    report = tmp_path / "made.json"
    call_command("generate_candidates", task="mend", sets=3, seed=4, json=str(report))

    # Two sources for three sets: one serves twice.
    assert CandidateSet.objects.ready().count() == 3
    assert CandidateSet.objects.values("source").distinct().count() == 2
    assert "3 sets, 6 candidates, 3 sets ready" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert (written["state"], written["ready"], written["seed"]) == ("succeeded", 3, 4)


def test_it_says_how_to_go_on_after_a_failure(tmp_path: Path, policy: Policy) -> None:
    broken = make_policy("broken", location=tmp_path / "gone")
    with pytest.raises(CommandError, match=r"No policy in (.|\n)*--resume"):
        call_command("generate_candidates", task="mend", sets=1, policy="broken")
    Policy.objects.filter(pk=broken.pk).update(location=policy.location)
    run = GenerationRun.objects.get()
    call_command("generate_candidates", resume=run.pk)
    run.refresh_from_db()
    assert run.state == JobState.SUCCEEDED
    with pytest.raises(CommandError, match="nothing left to make"):
        call_command("generate_candidates", resume=run.pk)


def test_it_explains_what_is_missing() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "Say which task"),
        ({"task": "men"}, "no task “men”"),
        ({"task": "mend"}, "No policy is active"),
        ({"task": "mend", "policy": "gone"}, "no policy “gone”"),
        ({"task": "mend", "sets": 0}, "at least 1"),
        ({"resume": 99}, "no order 99"),
    ]
    for options, reason in cases:
        with pytest.raises(CommandError, match=reason):
            call_command("generate_candidates", **options)
    assert not GenerationRun.objects.exists()
