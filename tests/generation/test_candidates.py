from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import OperationalError, connection
from PIL import Image as Pillow

from generation import candidates, images, loaded
from generation.candidates import CandidateError
from generation.models import Candidate, CandidateSet, GenerationRun, Policy, Source, Task
from generation.ownership import ATTEMPTS, JobState, LeaseLost
from generation.sources import import_sources
from tests.factories import (
    make_mask_picture,
    make_picture,
    make_plan,
    make_policy,
    make_source,
    make_task,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def task() -> Task:
    task = make_task("mend")
    make_plan(task, steps=[1, 2], true_cfg_scale=[1.0, 2.0])
    return task


def order(task: Task, policy: Policy, count: int = 3, seed: int = 0) -> GenerationRun:
    while Source.objects.filter(task=task).count() < count:
        make_source(task, size=(32, 32))
    sources = candidates.pick_sources(task, count, "train", seed)
    return candidates.order_sets(policy=policy, sources=sources, seed=seed)


def drawn(run: GenerationRun) -> list[tuple[object, ...]]:
    return list(
        Candidate.objects.filter(set__run=run)
        .order_by("set_id", "index")
        .values_list(
            "set__source",
            "index",
            "seed",
            "num_inference_steps",
            "strength",
            "guidance_scale",
            "true_cfg_scale",
            "negative_prompt",
            "prompt",
            "width",
            "height",
        )
    )


def logged(run: GenerationRun) -> dict[int, tuple[object, ...]]:
    rows = Candidate.objects.filter(set__run=run).select_related("image")
    return {row.pk: (row.image_id, row.batch, row.batch_index) for row in rows}


# Ordering


def test_it_draws_everything_before_anything_is_made(task: Task) -> None:
    make_plan(
        task,
        candidates_per_set=3,
        steps=[4, 8],
        strength=[0.8, 1.0],
        guidance_scale=[5.0, 30.0],
        true_cfg_scale=[1.0, 2.0],
        negative_prompts=["", "blurry"],
    )
    run = order(task, make_policy(), count=20)

    assert (run.state, run.total) == (JobState.QUEUED, 60)
    made = Candidate.objects.filter(set__run=run)
    assert set(run.sets.values_list("state", "size")) == {("drawn", 3)}
    assert set(made.values_list("num_inference_steps", flat=True)) == {4, 8}
    assert set(made.values_list("strength", flat=True)) == {0.8, 1.0}
    assert set(made.values_list("guidance_scale", flat=True)) == {5.0, 30.0}
    assert set(made.values_list("true_cfg_scale", flat=True)) == {1.0, 2.0}
    assert set(made.values_list("negative_prompt", flat=True)) == {"", "blurry"}
    assert len(set(made.values_list("seed", flat=True))) == 60
    assert not made.filter(image__isnull=False).exists()


def test_it_draws_the_same_from_the_same_seed(task: Task) -> None:
    policy = make_policy()
    first = order(task, policy, count=4, seed=5)
    assert drawn(order(task, policy, count=4, seed=5)) == drawn(first)
    assert drawn(order(task, policy, count=4, seed=6)) != drawn(first)


def test_it_gives_the_task_s_fixed_prompt_to_the_policy() -> None:
    task = make_task(fixed_prompt="remove")
    make_plan(task)
    run = candidates.order_sets(
        policy=make_policy(), sources=[make_source(task, prompt="whatever")], seed=0
    )
    assert set(Candidate.objects.values_list("prompt", flat=True)) == {"remove"}
    assert run.sets.count() == 1


def test_it_refuses_orders_that_cannot_be_made(task: Task) -> None:
    source = make_source(task)
    external = make_policy(kind=Policy.Kind.EXTERNAL, location="")
    planless = make_source(make_task("planless"))
    for policy, sources, reason in [
        (external, [source], "external system"),
        (make_policy(), [], "nothing to make"),
        (make_policy(), [source, planless], "Planless has no sampling plan"),
    ]:
        with pytest.raises(CandidateError, match=reason):
            candidates.order_sets(policy=policy, sources=sources, seed=0)
    assert not GenerationRun.objects.exists()
    assert not CandidateSet.objects.exists()


def test_it_picks_sources_of_one_split_by_seed(task: Task) -> None:
    train = {make_source(task).pk for _ in range(8)}
    held_out = make_source(task, split="holdout")
    picked = [source.pk for source in candidates.pick_sources(task, 5, "train", 1)]
    assert len(set(picked)) == 5
    assert set(picked) <= train
    assert [source.pk for source in candidates.pick_sources(task, 5, "train", 1)] == picked
    assert candidates.pick_sources(task, 5, "holdout", 1) == [held_out]
    with pytest.raises(CandidateError, match="has no holdout sources"):
        candidates.pick_sources(make_task("bare"), 5, "holdout", 1)


# Making


def test_it_makes_every_candidate_and_logs_how(task: Task, policy: Policy) -> None:
    run = order(task, policy)
    assert candidates.make(run)

    run.refresh_from_db()
    assert (run.state, run.progress, run.total, run.error) == (JobState.SUCCEEDED, 12, 12, "")
    assert run.sets.ready().count() == 3
    for candidate in Candidate.objects.filter(set__run=run):
        assert candidate.image is not None
        assert images.open_image(candidate.image).size == (candidate.width, candidate.height)
        assert candidate.latency_ms is not None
        assert candidate.device.startswith("cpu")
        assert set(candidate.versions) >= {"torch", "diffusers", "threads", "dtype"}
    for _, one_batch in _batches(run).items():
        assert len({(c.num_inference_steps, (c.true_cfg_scale or 1) > 1) for c in one_batch}) == 1
        assert [c.batch_index for c in one_batch] == list(range(len(one_batch)))


def _batches(run: GenerationRun) -> dict[object, list[Candidate]]:
    batches: dict[object, list[Candidate]] = {}
    for candidate in Candidate.objects.filter(set__run=run).order_by("batch", "batch_index"):
        batches.setdefault(candidate.batch, []).append(candidate)
    return batches


def test_it_makes_the_same_picture_again_from_its_row(task: Task, policy: Policy) -> None:
    make_source(task, size=(80, 50))
    run = order(task, policy)
    candidates.make(run)
    loaded.release()
    # What is logged with the candidates counts, not what the policy says by now.
    Policy.objects.update(max_pixels=16 * 16)
    for batch in _batches(run).values():
        candidate = batch[-1]
        assert candidate.image is not None
        assert candidates.remake(candidate) == images.read_bytes(candidate.image)


def test_it_does_not_make_again_what_was_never_made(task: Task, policy: Policy) -> None:
    run = order(task, policy, count=1)
    candidate = Candidate.objects.filter(set__run=run).first()
    assert candidate is not None
    with pytest.raises(CandidateError, match="cannot be made again"):
        candidates.remake(candidate)


def test_it_goes_on_where_a_dead_worker_stopped(task: Task, policy: Policy) -> None:
    run = order(task, policy)
    run.claim()
    candidates._assign_batches(run)
    generator = loaded.generator(policy)
    first = Candidate.objects.filter(set__run=run).order_by("set_id", "index").first()
    assert first is not None
    candidates._make_batch(run, generator, candidates._batch(first.batch), 0, run.total)
    before = {pk: row for pk, row in logged(run).items() if row[0] is not None}
    batches = {pk: row[1:] for pk, row in logged(run).items()}
    assert 0 < len(before) < 12
    # Its worker was killed: nobody renews the lease any more, and it runs out.
    GenerationRun.objects.update(lease_until="2020-01-01T00:00:00Z")

    assert candidates.make(GenerationRun.objects.get(pk=run.pk))

    after = logged(run)
    assert {pk: after[pk] for pk in before} == before
    assert {pk: row[1:] for pk, row in after.items()} == batches
    assert all(row[0] is not None for row in after.values())
    assert GenerationRun.objects.get().attempt == 2


def test_it_writes_nothing_once_another_worker_owns_the_order(task: Task, policy: Policy) -> None:
    stale = order(task, policy)
    stale.claim()
    candidates._assign_batches(stale)
    GenerationRun.objects.update(lease_until="2020-01-01T00:00:00Z")
    assert GenerationRun.objects.get().claim()

    first = Candidate.objects.filter(set__run=stale).order_by("set_id", "index").first()
    assert first is not None
    with pytest.raises(LeaseLost):
        candidates._make_batch(
            stale, loaded.generator(policy), candidates._batch(first.batch), 0, stale.total
        )
    assert not Candidate.objects.filter(image__isnull=False).exists()


def test_it_leaves_an_order_alone_that_somebody_else_owns(task: Task, policy: Policy) -> None:
    run = order(task, policy, count=1)
    assert GenerationRun.objects.get().claim()
    assert not candidates.make(run)
    assert not Candidate.objects.filter(batch__isnull=False).exists()


def test_it_records_why_it_failed_and_can_go_on(task: Task, policy: Policy) -> None:
    run = order(task, policy)
    lost = run.sets.order_by("-pk")[0].source.image
    key, content = f"images/{lost.storage_key}", images.read_bytes(lost)
    default_storage.delete(key)

    assert candidates.make(run)

    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert f"images/{lost.storage_key} of a picture is gone" in run.error
    failed = run.sets.filter(state="failed")
    assert failed.exists()
    assert all(one.error == run.error for one in failed)

    default_storage.save(key, ContentFile(content))
    assert run.retry()
    assert candidates.make(run)
    run.refresh_from_db()
    assert (run.state, run.error) == (JobState.SUCCEEDED, "")
    assert set(run.sets.values_list("state", "error")) == {("ready", "")}


def test_it_leaves_an_order_to_the_next_worker_when_the_database_restarts(
    task: Task, policy: Policy
) -> None:
    run = order(task, policy)

    def cut(done: int, total: int) -> None:
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid]
            )
        other.close()

    with pytest.raises(OperationalError):
        candidates.make(run, progress=cut)
    connection.close()

    run.refresh_from_db()
    assert run.state == JobState.RUNNING  # nobody has to ask for it again
    assert 0 < run.progress < run.total
    GenerationRun.objects.update(lease_until="2020-01-01T00:00:00Z")
    assert candidates.make(GenerationRun.objects.get(pk=run.pk))
    run.refresh_from_db()
    assert (run.state, run.error, run.progress) == (JobState.SUCCEEDED, "", run.total)


def test_it_gives_an_order_up_that_the_database_never_lets_finish(
    task: Task, policy: Policy
) -> None:
    run = order(task, policy, count=1)
    GenerationRun.objects.update(attempt=ATTEMPTS)

    def break_off(done: int, total: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 1; SELECT pg_sleep(1)")

    try:
        assert candidates.make(run, progress=break_off)
    finally:
        connection.close()
    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert "The database does not answer" in run.error


def test_it_names_a_missing_checkpoint(task: Task, tmp_path: Path) -> None:
    run = order(task, make_policy(location=tmp_path / "gone"))
    candidates.make(run)
    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert "No policy in" in run.error
    assert str(tmp_path / "gone") in run.error


def test_it_stops_when_the_order_is_cancelled(task: Task, policy: Policy) -> None:
    run = order(task, policy, count=1)
    run.cancel()
    assert not candidates.make(run)
    assert not Candidate.objects.filter(image__isnull=False).exists()


# Rendering for comparisons


def test_it_renders_the_same_noise_for_any_policy(task: Task, policy: Policy) -> None:
    sources = [make_source(task, size=size) for size in ((32, 32), (64, 32), (32, 32))]
    twin = make_policy("twin", location=policy.location, max_pixels=32 * 32)
    steps: list[int] = []

    def render(policy: Policy, seeds: list[int]) -> list[Pillow.Image]:
        return candidates.render(
            policy,
            sources,
            seeds,
            num_inference_steps=2,
            guidance_scale=10.0,
            progress=lambda done, total: steps.append(done),
        )

    first = render(policy, [1, 2, 3])
    assert [picture.size for picture in first] == [(32, 32), (40, 24), (32, 32)]
    assert first == render(twin, [1, 2, 3])
    assert first != render(policy, [4, 5, 6])
    assert steps[-1] == 3
    assert not Candidate.objects.exists()


# Real photographs


def test_it_generates_from_photographs_of_all_kinds(
    task: Task, policy: Policy, tmp_path: Path
) -> None:
    def add(name: str, picture: Pillow.Image, size: tuple[int, int], **options: Any) -> None:
        picture.save(tmp_path / name, **options)
        make_mask_picture(size).save(tmp_path / f"{Path(name).stem}_mask.png")

    exif = Pillow.Exif()
    exif[0x0112] = 6
    add("upright.jpg", make_picture(1, (400, 300)), (300, 400), exif=exif, quality=90)
    add("print.jpg", make_picture(2, (301, 199)).convert("CMYK"), (301, 199))
    add("cutout.png", make_picture(3, (120, 120)).convert("RGBA"), (120, 120))
    add("icon.png", make_picture(4, (90, 60)).convert("P"), (90, 60))
    deep = np.linspace(0, 65535, 50 * 70).reshape(50, 70).astype(np.uint16)
    add("deep.png", Pillow.fromarray(deep), (70, 50))
    add("grey.webp", make_picture(6, (33, 47)).convert("L"), (33, 47))
    report = import_sources(tmp_path, task, prompt="a hat")
    assert (report.created, report.refused) == (6, [])

    run = candidates.order_sets(policy=policy, sources=list(Source.objects.all()), seed=1)
    candidates.make(run)

    run.refresh_from_db()
    assert (run.state, run.error) == (JobState.SUCCEEDED, "")
    for candidate in Candidate.objects.select_related("image", "set__source__image"):
        source, made = candidate.set.source.image, candidate.image
        assert made is not None
        assert (made.width, made.height) == (candidate.width, candidate.height)
        assert made.width * made.height <= policy.max_pixels
        assert made.width % 8 == made.height % 8 == 0
        assert (made.width > made.height) == (source.width > source.height)
