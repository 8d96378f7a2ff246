"""Candidates: drawn first, made later, and made again bit for bit from what was logged.

`order_sets` draws every value and stores it; no weights are needed. `make` owns the order as a
worker, batch by batch: which candidates share a batch is stored before the first one is computed,
and a batch's pictures become visible together, in one transaction under the owner's fencing token.
A killed worker therefore leaves whole batches, and the next one goes on behind them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from PIL import Image as Pillow

from generation import bandit, faults, images, loaded, mixes, policies
from generation.mixes import Mix
from generation.models import (
    Candidate,
    CandidateSet,
    GenerationRun,
    Policy,
    Project,
    SamplingPlan,
    Source,
    Task,
)
from generation.ownership import JobState, LeaseLost

if TYPE_CHECKING:
    from generation.diffusion.generate import Generator, Request

logger = logging.getLogger(__name__)

# Sets are finished this many at a time, so that people can judge the first while the rest are made.
CHUNK_SETS = 64
# A batch is bounded by its pictures' area: one FLUX batch holds four pictures of 1024 × 1024.
MAX_BATCH = 16
MAX_BATCH_PIXELS = 4 * 1024 * 1024
# Seeds and run seeds stay exact in JSON and in JavaScript.
LARGEST_SEED = 2**53


class CandidateError(ValueError):
    """An order that cannot be taken or made; the message says what to do."""


# Ordering ---------------------------------------------------------------------------------------


def pick_sources(
    task: Task,
    count: int,
    split: str | None,
    seed: int,
    tags: Mapping[str, str] | None = None,
    *,
    project: Project | int | None = None,
) -> list[Source]:
    """Up to `count` sources of a task in a random order that the seed alone decides.

    They are of every project where none is named.
    """
    chosen = Source.objects.usable().filter(task=task, tags__contains=dict(tags or {}))
    if project is not None:
        chosen = chosen.filter(project=project)
    if split:
        chosen = chosen.filter(split=split)
    keys = list(chosen.order_by("pk").values_list("pk", flat=True))
    if not keys:
        kind = f"{split} " if split else ""
        if tags:
            marks = ", ".join(f"{key}={value}" for key, value in tags.items())
            raise CandidateError(f"{task.name} has no {kind}sources tagged {marks}.")
        raise CandidateError(
            f"{task.name} has no {kind}sources. Add some with `import_sources PATH --task "
            f"{task.slug}` or on the page Sources."
        )
    order = np.random.default_rng(seed).permutation(len(keys))[:count]
    rows = Source.objects.select_related("task", "image", "mask").in_bulk([keys[i] for i in order])
    return [rows[keys[i]] for i in order]


@transaction.atomic
def order_sets(
    *,
    policy: Policy,
    sources: Sequence[Source],
    seed: int,
    mix: Mix | None = None,
    requested_by: User | None = None,
    size: int | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> GenerationRun:
    """Draw a set for every source (a source given twice gets two) from its task's current plan.

    `size` candidates a set instead of the plan's, and `fixed` values of theirs instead of drawn
    ones. `mix` says how often each of several policies makes a candidate; without one all are made
    by `policy`. The same seed and the same sources give the same draws. Raises CandidateError.
    """
    if not sources:
        raise CandidateError("No sources were given, so there is nothing to make.")
    most = settings.OPEN_RUNS_PER_PERSON
    open_runs = GenerationRun.objects.unfinished().filter(requested_by=requested_by)
    if requested_by is not None and open_runs.count() >= most:
        raise CandidateError(
            f"{most} generations of yours are waiting or running. Wait for one, or cancel it."
        )
    tasks = {source.task for source in sources}
    for one in mix or [policy]:
        if one.kind == Policy.Kind.EXTERNAL:
            raise CandidateError(f"“{one}” is an external system: nothing can be made with it.")
        check_fits(one, tasks)
    if mix:
        mixes.check(mix)
    plans = {task: current_plan(task) for task in tasks}
    multiple = policies.size_multiple(policy)
    run = GenerationRun.objects.create(policy=policy, seed=seed, requested_by=requested_by)
    sets = CandidateSet.objects.bulk_create(
        CandidateSet(
            run=run,
            source=source,
            plan=plans[source.task],
            size=size or plans[source.task].candidates_per_set,
        )
        for source in sources
    )
    candidates = [
        candidate
        for position, made in enumerate(sets)
        # A generator of its own per set: what is drawn for one set depends on no other.
        for candidate in _draw(made, policy, multiple, np.random.default_rng([seed, position]))
    ]
    for name, value in (fixed or {}).items():
        for candidate in candidates:
            setattr(candidate, name, value)
    if mix:
        mixes.draw(candidates, mix, seed)
    Candidate.objects.bulk_create(candidates, batch_size=1000)
    GenerationRun.objects.filter(pk=run.pk).update(total=len(candidates))
    run.refresh_from_db()
    return run


def check_fits(policy: Policy, tasks: Iterable[Task]) -> None:
    """Raise CandidateError where a policy that reads no picture would have to edit one."""
    edits = sorted(task.name for task in tasks if task.needs_source)
    if edits and policies.makes_from_text_alone(policy):
        raise CandidateError(
            f"“{policy}” makes pictures from a prompt alone, and {', '.join(edits)} edits one. "
            "Choose a Fill policy."
        )


def current_plan(task: Task) -> SamplingPlan:
    plan = task.plans.filter(current=True).first()
    if plan is None:
        raise CandidateError(
            f"{task.name} has no sampling plan, so nothing can be drawn. Add one in the admin."
        )
    return plan


def _draw(
    made: CandidateSet, policy: Policy, multiple: int, rng: np.random.Generator
) -> list[Candidate]:
    source, plan = made.source, made.plan
    assert plan is not None
    image = source.image
    width, height = images.working_size(image.width, image.height, policy.max_pixels, multiple)
    return [
        Candidate(
            set=made,
            index=index,
            policy=policy,
            seed=int(rng.integers(LARGEST_SEED)),
            num_inference_steps=_one_of(plan, "steps", rng),
            # Less than all noise would leave some of a blank picture's white.
            strength=_one_of(plan, "strength", rng) if source.task.needs_source else 1.0,
            guidance_scale=_one_of(plan, "guidance_scale", rng),
            true_cfg_scale=_one_of(plan, "true_cfg_scale", rng),
            negative_prompt=_one_of(plan, "negative_prompts", rng),
            prompt=source.effective_prompt,
            width=width,
            height=height,
        )
        for index in range(made.size)
    ]


def _one_of(plan: SamplingPlan, name: str, rng: np.random.Generator) -> Any:
    return bandit.one_of(getattr(plan, name), plan.weights.get(name), rng)


def ring(run: GenerationRun) -> None:
    from generation.jobs import make_candidates

    # Where the broker is away, beat rings once it is back.
    transaction.on_commit(lambda: make_candidates.delay(run.pk), robust=True)


# Making -----------------------------------------------------------------------------------------


def make(run: GenerationRun, *, progress: Callable[[int, int], None] | None = None) -> bool:
    """Claim an order and make what is missing of it; False when somebody else owns it.

    A failure is recorded on the run with its reason; finished batches stay, and `run.retry()` lets
    a worker go on with the rest.
    """
    if not run.claim():
        return False
    try:
        with run.heartbeat():
            _make(run, progress)
    except LeaseLost:
        # Another worker goes on, or the order was cancelled: nothing may be written here any more.
        return False
    except Exception as error:
        if run.may_pass(error):
            raise
        logger.exception("Generation %s failed", run.pk)
        _fail(run, faults.sentence(error) or str(error) or type(error).__name__)
    return True


def _make(run: GenerationRun, progress: Callable[[int, int], None] | None) -> None:
    run.sets.filter(state=CandidateSet.State.FAILED).update(
        state=CandidateSet.State.DRAWN, error=""
    )
    _assign_batches(run)
    total = Candidate.objects.filter(set__run=run).count()
    missing = Candidate.objects.filter(set__run=run, image__isnull=True)
    done = total - missing.count()
    run.renew(total=total, progress=done, message="loading the policy" if done < total else "")
    if done < total:
        policy = run.policy
        while (first := _next(missing, policy)) is not None:
            batch = _batch(first.batch)
            policy = batch[0].policy
            _make_batch(run, loaded.generator(policy), batch, done, total)
            done += len(batch)
            if progress is not None:
                progress(done, total)
    run.finish(progress=total, total=total, message="")


def _next(missing: QuerySet[Candidate], policy: Policy) -> Candidate | None:
    """What is made next: of the first sets all that the loaded policy makes, then the others."""
    first = missing.order_by("set_id", "index").first()
    if first is None or first.policy_id == policy.pk:
        return first
    ahead = missing.order_by("set_id").values("set_id").distinct()[:CHUNK_SETS]
    same = missing.filter(policy=policy, set_id__in=ahead)
    return same.order_by("set_id", "index").first() or first


def _assign_batches(run: GenerationRun) -> None:
    """Write down who shares a batch with whom, once: a resumed run keeps the same batches."""
    waiting = Candidate.objects.filter(set__run=run, batch__isnull=True).order_by("set_id", "index")
    by_set: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in waiting:
        by_set[candidate.set_id].append(candidate)
    sets = iter(by_set.values())
    with transaction.atomic():
        run.renew()
        while chunk := list(islice(sets, CHUNK_SETS)):
            candidates = [candidate for one_set in chunk for candidate in one_set]
            by_policy: dict[int, list[Candidate]] = defaultdict(list)
            for candidate in candidates:
                by_policy[candidate.policy_id].append(candidate)
            for group in chain.from_iterable(map(_groups, by_policy.values())):
                batch = uuid.uuid4()
                for index, candidate in enumerate(group):
                    candidate.batch, candidate.batch_index = batch, index
            Candidate.objects.bulk_update(candidates, ["batch", "batch_index"], batch_size=500)


def _groups(candidates: list[Candidate]) -> list[list[Candidate]]:
    """Candidates that can be computed together, in the generator's own grouping."""
    from generation.diffusion.generate import group_requests

    # Grouping looks at sizes, not at pixels: one blank picture per size stands for all.
    blanks = {
        size: Pillow.new("1", size)
        for size in {(candidate.width, candidate.height) for candidate in candidates}
    }
    requests = [
        _request(candidate, blanks[candidate.width, candidate.height], None)
        for candidate in candidates
    ]
    largest = max(width * height for width, height in blanks)
    return [
        [candidates[index] for index in group]
        for group in group_requests(requests, batch_limit(largest))
    ]


def batch_limit(pixels: int) -> int:
    """How many pictures of this area are computed at once."""
    return max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // pixels))


def _request(
    candidate: Candidate, image: Pillow.Image, mask: Pillow.Image | None, key: str = ""
) -> Request:
    from generation.diffusion.generate import Draw, Request

    # A picture from outside cannot be made again here, and is never asked for.
    assert candidate.seed is not None
    assert candidate.num_inference_steps is not None
    assert candidate.strength is not None
    assert candidate.guidance_scale is not None
    assert candidate.true_cfg_scale is not None
    draw = Draw(
        seed=candidate.seed,
        num_inference_steps=candidate.num_inference_steps,
        strength=candidate.strength,
        guidance_scale=candidate.guidance_scale,
        true_cfg_scale=candidate.true_cfg_scale,
        negative_prompt=candidate.negative_prompt,
    )
    return Request(image=image, mask=mask or image, prompt=candidate.prompt, draw=draw, key=key)


def _batch(batch: uuid.UUID | None) -> list[Candidate]:
    return list(
        Candidate.objects.filter(batch=batch)
        .order_by("batch_index")
        .select_related("set__source__image", "set__source__mask", "policy")
    )


def _make_batch(
    run: GenerationRun, generator: Generator, batch: list[Candidate], done: int, total: int
) -> None:
    started = time.monotonic()
    try:
        pictures = _compute(generator, batch)
    except (RuntimeError, ValueError) as error:
        first = batch[0]
        raise CandidateError(
            f"A batch of {len(batch)} candidates of {first.width} × {first.height} pixels with "
            f"{first.num_inference_steps} steps failed: {error} The {done} candidates made before "
            "are kept; run it again to go on."
        ) from error
    # Each candidate waited for its whole batch.
    latency_ms = round(1000 * (time.monotonic() - started))
    device, versions = loaded.circumstances(generator)
    stored = [images.store(picture) for picture in pictures]
    with transaction.atomic():
        # First, because it locks the run's row: whoever has lost the run stops here.
        run.renew(progress=done + len(batch), message=f"{done + len(batch)} of {total} candidates")
        for candidate, image in zip(batch, stored, strict=True):
            candidate.image = image
            candidate.latency_ms = latency_ms
            candidate.device = device
            candidate.versions = versions
        Candidate.objects.bulk_update(batch, ["image", "latency_ms", "device", "versions"])
        touched = CandidateSet.objects.filter(pk__in={candidate.set_id for candidate in batch})
        made = touched.exclude(state=CandidateSet.State.WITHDRAWN)
        made.exclude(candidates__image__isnull=True).update(state=CandidateSet.State.READY)


def _compute(generator: Generator, batch: Sequence[Candidate]) -> list[Pillow.Image]:
    sources: dict[int, tuple[Pillow.Image, Pillow.Image]] = {}
    requests = []
    for candidate in batch:
        source = candidate.set.source
        if source.pk not in sources:
            # The logged size counts: the policy's limit may have been changed since.
            sources[source.pk] = fitted(source, (candidate.width, candidate.height))
        image, mask = sources[source.pk]
        requests.append(_request(candidate, image, mask, _key(source, image)))
    return generator.generate_batch(requests)


def fitted(source: Source, size: tuple[int, int]) -> tuple[Pillow.Image, Pillow.Image]:
    """A source's picture and mask at the size they are worked on."""
    return images.at_size(images.open_image(source.image), images.open_image(source.mask), size)


def _key(source: Source, image: Pillow.Image) -> str:
    return f"{source.image.sha256} {source.mask.sha256} {image.width} × {image.height}"


def _fail(run: GenerationRun, reason: str) -> None:
    run.fail(reason)
    if run.state == JobState.FAILED:
        run.sets.filter(state=CandidateSet.State.DRAWN).update(
            state=CandidateSet.State.FAILED, error=reason[:500]
        )


def remake(candidate: Candidate) -> bytes:
    """The candidate's PNG, made again from its logged row by running its batch again."""
    if candidate.batch is None or candidate.batch_index is None:
        raise CandidateError(
            f"{candidate} was not made here or not yet, so it cannot be made again."
        )
    with loaded.threads(candidate.versions.get("threads")):
        pictures = _compute(loaded.generator(candidate.policy), _batch(candidate.batch))
    return images.encode(pictures[candidate.batch_index])


def render(
    policy: Policy,
    sources: Sequence[Source],
    seeds: Sequence[int],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    true_cfg_scale: float = 1.0,
    negative_prompt: str = "",
    strength: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pillow.Image]:
    """One picture per source and seed, stored nowhere: the same noise for every policy.

    Pictures come in the order of the sources; batches depend on nothing but sizes, so two policies
    with the same working size are compared on the same batches.
    """
    from generation.diffusion.generate import Draw, Request, group_requests

    check_fits(policy, {source.task for source in sources})
    generator = loaded.generator(policy)
    multiple = policies.size_multiple(policy)
    sizes = [
        images.working_size(source.image.width, source.image.height, policy.max_pixels, multiple)
        for source in sources
    ]
    blanks = {size: Pillow.new("1", size) for size in set(sizes)}

    def request(index: int, image: Pillow.Image, mask: Pillow.Image, key: str) -> Request:
        draw = Draw(
            seed=seeds[index],
            num_inference_steps=num_inference_steps,
            strength=strength,
            guidance_scale=guidance_scale,
            true_cfg_scale=true_cfg_scale,
            negative_prompt=negative_prompt,
        )
        prompt = sources[index].effective_prompt
        return Request(image=image, mask=mask, prompt=prompt, draw=draw, key=key)

    plan = [request(index, blanks[size], blanks[size], "") for index, size in enumerate(sizes)]
    largest = max((width * height for width, height in sizes), default=1)
    pictures: dict[int, Pillow.Image] = {}
    for group in group_requests(plan, batch_limit(largest)):
        requests = []
        for index in group:
            image, mask = fitted(sources[index], sizes[index])
            requests.append(request(index, image, mask, _key(sources[index], image)))
        pictures |= zip(group, generator.generate_batch(requests), strict=True)
        if progress is not None:
            progress(len(pictures), len(sources))
    return [pictures[index] for index in range(len(sources))]
