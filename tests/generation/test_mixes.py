"""Candidates of one set that several policies make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from generation import candidates, images, loaded, policies
from generation.models import Candidate, GenerationRun, Policy, Task
from generation.ownership import JobState
from tests.diffusion.tiny import save_tiny_policy
from tests.factories import make_plan, make_policy, make_source, make_task

pytestmark = pytest.mark.django_db(transaction=True)
FIELDS = ("seed", "num_inference_steps", "guidance_scale", "negative_prompt")


@pytest.fixture
def task() -> Task:
    task = make_task("mend")
    make_plan(task, steps=[1, 2])
    for _ in range(3):
        make_source(task, size=(32, 32))
    return task


def test_it_draws_the_policies_by_their_shares_and_nothing_else_anew(task: Task) -> None:
    one, other = make_policy(), make_policy()
    sources = list(task.sources.all()) * 40
    alone = candidates.order_sets(policy=one, sources=sources, seed=3)

    mixed = candidates.order_sets(policy=one, sources=sources, seed=3, mix={one: 3, other: 1})

    def drawn(run: GenerationRun) -> list[tuple[object, ...]]:
        rows = Candidate.objects.filter(set__run=run).order_by("set_id", "index")
        return list(rows.values_list(*FIELDS))

    assert drawn(mixed) == drawn(alone)
    # 480 draws: a standard deviation of 9.5 around 120.
    made = Candidate.objects.filter(set__run=mixed)
    assert 82 < made.filter(policy=other).count() < 158
    assert Candidate.objects.filter(set__run=alone, policy=one).count() == 480


def test_each_policy_makes_its_own_and_can_make_it_again(
    task: Task, policy: Policy, tmp_path: Path
) -> None:
    save_tiny_policy(tmp_path / "other", seed=1)
    make_policy("other", location=tmp_path / "other", max_pixels=32 * 32)
    report = tmp_path / "made.json"

    call_command(
        "generate_candidates",
        task="mend",
        sets=3,
        mix=["tiny=0.5", "other=0.5"],
        json=str(report),
    )

    said = json.loads(report.read_text())
    assert (said["state"], said["ready"]) == (JobState.SUCCEEDED, 3)
    by_batch: dict[object, set[int]] = {}
    for row in Candidate.objects.all():
        by_batch.setdefault(row.batch, set()).add(row.policy_id)
    assert all(len(of_batch) == 1 for of_batch in by_batch.values())
    assert len(set.union(*by_batch.values())) == 2
    loaded.release()
    for name in ("tiny", "other"):
        candidate = Candidate.objects.filter(policy__name=name)[0]
        assert candidate.image is not None
        assert candidates.remake(candidate) == images.read_bytes(candidate.image)


def test_it_refuses_a_mix_that_cannot_stand_in_one_set(task: Task) -> None:
    one, small = make_policy("one"), make_policy("small", max_pixels=16 * 16)
    sources = list(task.sources.all())
    with pytest.raises(policies.PolicyError, match="different sizes"):
        candidates.order_sets(policy=one, sources=sources, seed=0, mix={one: 1, small: 1})
    with pytest.raises(policies.PolicyError, match="share above 0"):
        candidates.order_sets(policy=one, sources=sources, seed=0, mix={one: 1, make_policy(): 0})
    outside = make_policy(kind=Policy.Kind.EXTERNAL, location="")
    with pytest.raises(candidates.CandidateError, match="external system"):
        candidates.order_sets(policy=one, sources=sources, seed=0, mix={one: 1, outside: 1})
    with pytest.raises(CommandError, match="write POLICY=SHARE"):
        call_command("generate_candidates", task="mend", mix=["one"])
    assert not Candidate.objects.exists()
