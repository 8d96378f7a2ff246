"""A task that makes pictures from the prompt alone, from the prompts' import to the candidates."""

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from generation import candidates, images
from generation.candidates import CandidateError
from generation.models import Candidate, Policy, Source, Split, Task
from generation.ownership import JobState
from tests.factories import make_plan, make_policy, make_source, make_task, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def task() -> Task:
    task = make_task("dream", needs_source=False, needs_mask=False)
    make_plan(task, steps=[1], strength=[0.5], true_cfg_scale=[1.0, 2.0])
    return task


def test_it_imports_a_text_file_of_prompts(task: Task, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red lantern\n\n  two dogs  \na red lantern\n")
    call_command("import_sources", tmp_path / "prompts.txt", task=task.slug)
    assert sorted(Source.objects.values_list("prompt", flat=True)) == ["a red lantern", "two dogs"]
    source = Source.objects.select_related("image", "mask").first()
    assert source is not None
    assert (source.image.width, source.image.height) == (1024, 1024)
    assert images.open_image(source.mask).getextrema() == (255, 255)


def test_it_imports_prompts_with_their_sizes(task: Task, tmp_path: Path) -> None:
    rows = [
        {"prompt": "wide", "width": 128, "height": 64},
        {"prompt": "tall", "size": "64x128", "tags": ["sky"]},
        {"prompt": "square", "size": 96},
        {"prompt": "plain"},
        {"prompt": "huge", "size": "9000x64"},
        {"prompt": "odd", "size": "big"},
        {"prompt": "half", "width": 64},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tmp_path / "report.json"
    call_command("import_sources", file, task=task.slug, json=str(report))
    found = {one.prompt: one for one in Source.objects.select_related("image")}
    sizes = {name: (one.image.width, one.image.height) for name, one in found.items()}
    assert sizes == {
        "wide": (128, 64),
        "tall": (64, 128),
        "square": (96, 96),
        "plain": (1024, 1024),
    }
    assert found["tall"].tags == {"sky": True}
    refused = {row["row"]: row["reason"] for row in json.loads(report.read_text())["refused"]}
    assert set(refused) == {"line 5", "line 6", "line 7"}
    assert "each side has 64 to 4096" in refused["line 5"]
    assert "Write 1024x768" in refused["line 6"]


def test_a_task_that_edits_takes_no_bare_prompts(tmp_path: Path) -> None:
    make_task("mend")
    (tmp_path / "prompts.txt").write_text("a red lantern\n")
    with pytest.raises(CommandError, match="No row could be taken"):
        call_command("import_sources", tmp_path / "prompts.txt", task="mend")


def test_the_database_refuses_a_mask_without_a_picture() -> None:
    with pytest.raises(IntegrityError, match="task_mask_needs_a_source"), transaction.atomic():
        make_task("odd", needs_source=False, needs_mask=True)
    assert not Task.objects.filter(slug="odd").exists()


def test_it_is_added_on_the_page_with_a_size(task: Task, client: Client) -> None:
    client.force_login(make_user(is_staff=True))
    page = client.get(reverse("generation:source_new"))
    assert "1216 × 832" in page.content.decode()
    said = {"project": "1", "task": task.pk, "prompt": "a red lantern", "size": "1216x832"}
    said["project"] = str(page.context["form"].fields["project"].initial.pk)
    assert client.post(reverse("generation:source_new"), said).status_code == 302
    source = Source.objects.select_related("image").get()
    assert (source.image.width, source.image.height) == (1216, 832)
    # The list shows the prompt, and no blank picture beside a white mask.
    listed = client.get(reverse("generation:sources")).content.decode()
    assert "a red lantern" in listed
    assert source.image.sha256 not in listed
    assert client.post(reverse("generation:source_new"), said | {"size": "9x9"}).status_code == 422


def test_a_fill_policy_makes_its_pictures(task: Task, policy: Policy) -> None:
    sources = [make_blank(task, f"picture {n}") for n in range(2)]
    run = candidates.order_sets(policy=policy, sources=sources, seed=0)
    # The plan's strengths are for sources with a picture: a share of white would be left here.
    assert set(Candidate.objects.values_list("strength", flat=True)) == {1.0}
    assert candidates.make(run)
    run.refresh_from_db()
    assert run.state == JobState.SUCCEEDED
    made = Candidate.objects.select_related("image")
    assert {(one.image.width, one.image.height) for one in made if one.image} == {(32, 32)}
    assert len({one.image_id for one in made}) == 8


def test_a_text_to_image_policy_edits_nothing(task: Task) -> None:
    plain = make_policy("dev", card={"size_multiple": 8, "text_to_image": True})
    candidates.order_sets(policy=plain, sources=[make_blank(task, "a")], seed=0)
    mend = make_task("mend")
    make_plan(mend)
    with pytest.raises(CandidateError, match="“dev” makes pictures from a prompt alone, and Mend"):
        candidates.order_sets(policy=plain, sources=[make_source(mend)], seed=0)
    with pytest.raises(CandidateError, match="Choose a Fill policy"):
        candidates.render(
            plain, [make_source(mend)], [0], num_inference_steps=1, guidance_scale=1.0
        )


def make_blank(task: Task, prompt: str) -> Source:
    from generation.sources import add_source

    source, _ = add_source(task=task, image=None, mask=None, prompt=prompt, size=(64, 64))
    Source.objects.filter(pk=source.pk).update(split=Split.TRAIN)
    source.refresh_from_db()
    return source
