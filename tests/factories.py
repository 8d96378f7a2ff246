"""Rows for tests, as plain functions. Every call makes something new unless told what to use."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from PIL import Image as Pillow

from generation import images
from generation.models import (
    Candidate,
    CandidateSet,
    GenerationRun,
    Image,
    Membership,
    Policy,
    Role,
    SamplingPlan,
    Source,
    Split,
    Task,
    default_project,
)

_numbers = itertools.count(1)


def make_user(username: str = "", *, role: str | None = Role.ANNOTATOR, **fields: Any) -> User:
    """A member of the default project whose password is "secret".

    `role` is theirs in the project, None makes a stranger; `is_staff=True` makes a manager.
    """
    username = username or f"user{next(_numbers)}"
    user = User.objects.create_user(username, password="secret", **fields)
    if role is not None:
        Membership.objects.create(project_id=default_project(), user=user, role=role)
    return user


def make_task(slug: str = "", **fields: Any) -> Task:
    """A task of its own; the seeded ones are got by `Task.objects.get(slug="fill")`."""
    slug = slug or f"task-{next(_numbers)}"
    defaults = {"name": slug.replace("-", " ").capitalize(), "wording": slug.replace("-", " ")}
    return Task.objects.create(slug=slug, **(defaults | fields))


def make_picture(seed: int | None = None, size: tuple[int, int] = (64, 64)) -> Pillow.Image:
    """A noisy gradient that no other seed gives."""
    rng = np.random.default_rng(next(_numbers) + 10**6 if seed is None else seed)
    ramp = np.linspace(0, 180, size[0], dtype=np.float64)[None, :, None]
    values = ramp + rng.integers(0, 70, (size[1], size[0], 3))
    return Pillow.fromarray(values.astype(np.uint8))


def make_mask_picture(size: tuple[int, int] = (64, 64)) -> Pillow.Image:
    """White in the middle half."""
    mask = Pillow.new("L", size, 0)
    width, height = size
    mask.paste(255, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return mask


def make_image(seed: int | None = None, size: tuple[int, int] = (64, 64)) -> Image:
    return images.store(make_picture(seed, size))


def make_source(
    task: Task | None = None,
    *,
    split: str = Split.TRAIN,
    size: tuple[int, int] = (64, 64),
    **fields: Any,
) -> Source:
    """A source in the wished split, with a picture and a mask in the store."""
    defaults = {
        "image": fields.pop("image", None) or make_image(size=size),
        "mask": fields.pop("mask", None) or images.store(make_mask_picture(size)),
        "prompt": "a red circle",
    }
    return Source.objects.create(task=task or make_task(), split=split, **(defaults | fields))


def make_plan(task: Task, **fields: Any) -> SamplingPlan:
    """The task's current plan; an earlier one is kept as an old version."""
    last = task.plans.order_by("-version").first()
    task.plans.update(current=False)
    defaults = {
        "version": last.version + 1 if last else 1,
        "steps": [2, 3],
        "strength": [1.0],
        "guidance_scale": [10.0, 30.0],
        "true_cfg_scale": [1.0],
        "negative_prompts": ["", "blurry"],
    }
    return SamplingPlan.objects.create(task=task, **(defaults | fields))


def make_policy(name: str = "", *, location: str | Path = "owner/policy", **fields: Any) -> Policy:
    """A policy row; its weights need not exist until something is generated."""
    name = name or f"policy-{next(_numbers)}"
    defaults = {"kind": Policy.Kind.BASE, "max_pixels": 64 * 64, "card": {"size_multiple": 8}}
    return Policy.objects.create(name=name, location=str(location), **(defaults | fields))


def make_run(policy: Policy | None = None, **fields: Any) -> GenerationRun:
    return GenerationRun.objects.create(policy=policy or make_policy(), **fields)


def make_set(
    source: Source | None = None,
    *,
    policy: Policy | None = None,
    size: int = 4,
    state: str = CandidateSet.State.READY,
    pictures: list[Pillow.Image] | None = None,
    **fields: Any,
) -> CandidateSet:
    """A set whose N candidates have pictures in the store (none where it is only drawn)."""
    source = source or make_source()
    policy = policy or make_policy()
    made = CandidateSet.objects.create(source=source, size=size, state=state, **fields)
    ready = state == CandidateSet.State.READY
    for index in range(size):
        image = images.store(pictures[index] if pictures else make_picture()) if ready else None
        Candidate.objects.create(
            set=made,
            index=index,
            policy=policy,
            image=image,
            seed=1000 * made.pk + index,
            num_inference_steps=3,
            strength=1.0,
            guidance_scale=30.0,
            true_cfg_scale=1.0,
            prompt=source.effective_prompt,
            width=image.width if image else source.image.width,
            height=image.height if image else source.image.height,
        )
    return made
