"""What the API answers, as frozen rows. A field that is not known here is passed over."""

from __future__ import annotations

import types
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def build(kind: type[T], said: dict[str, Any]) -> T:
    hints = _hints(kind)  # type: ignore[arg-type]
    names = [one.name for one in fields(kind) if one.name in said]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], said[name]) for name in names})


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, said: Any) -> Any:
    if said is None:
        return None
    if get_origin(hint) in (Union, types.UnionType):
        return _value(next(one for one in get_args(hint) if one is not type(None)), said)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], one) for one in said)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, said)
    if hint is datetime:
        return datetime.fromisoformat(said)
    return said


@dataclass(frozen=True, kw_only=True)
class Me:
    username: str
    name: str
    email: str
    roles: dict[str, str]
    scopes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Image:
    sha256: str
    width: int
    height: int
    url: str


@dataclass(frozen=True, kw_only=True)
class Project:
    id: int
    slug: str
    name: str
    role: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Task:
    id: int
    slug: str
    name: str
    wording: str
    instruction: str
    fixed_prompt: str
    needs_source: bool
    needs_mask: bool
    weight: float
    active: bool


@dataclass(frozen=True, kw_only=True)
class Wording:
    version: int
    question: str
    query: str
    guideline: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Dimension:
    id: int
    slug: str
    name: str
    uses_prompt: bool
    active: bool
    tasks: tuple[str, ...]
    wordings: tuple[Wording, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    id: int
    project: str
    task: str
    prompt: str
    image: Image
    mask: Image
    tags: dict[str, Any]
    split: str
    origin: str
    external_id: str
    licence: str
    attribution: str
    withdrawn: bool
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Refused:
    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What became of sources that were pushed, all calls together."""

    rows: int
    created: int
    existing: int
    refused: tuple[Refused, ...]
    sources: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Policy:
    id: int
    name: str
    kind: str
    state: str
    location: str
    parent: str | None
    card: dict[str, Any]
    created_at: datetime
    promoted_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Generation:
    id: int
    policy: str
    seed: int
    sets: int
    ready: int
    state: str
    progress: int
    total: int
    message: str
    error: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    id: int
    index: int
    policy: str
    image: Image | None
    seed: int | None
    num_inference_steps: int | None
    strength: float | None
    guidance_scale: float | None
    true_cfg_scale: float | None
    negative_prompt: str
    prompt: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    id: int
    project: str
    source: int
    task: str
    split: str
    plan: int | None
    run: int | None
    state: str
    size: int
    error: str
    candidates: tuple[Candidate, ...]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Campaign:
    id: int
    project: str
    name: str
    purpose: str
    state: str
    origin: str
    simulated: bool
    tasks: tuple[str, ...]
    dimensions: tuple[str, ...]
    overlap: int
    guideline: str
    deadline: datetime | None
    completed_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Covered:
    dimension: str
    wanted: int
    judged: int
    picked: int
    no_difference: int
    cannot_judge: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    task: str
    sets: int
    dimensions: tuple[Covered, ...]


@dataclass(frozen=True, kw_only=True)
class Person:
    annotator: str
    annotator_name: str | None
    submitted: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Adding:
    state: str
    progress: int
    total: int
    added: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    campaign: int
    state: str
    judged: int
    wanted: int
    share: float
    items: int
    completed_at: datetime | None
    coverage: tuple[Coverage, ...]
    people: tuple[Person, ...]
    adding: Adding | None


@dataclass(frozen=True, kw_only=True)
class Item:
    id: int
    set: int
    source: int
    task: str
    shown: tuple[int, ...]
    full: bool
    judged: int
    open: int
    skipped: int
    wanted: int


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """`best` and `worst` are indexes of candidates, `annotator` is a pseudonym."""

    id: int
    project: str
    campaign: int
    set: int
    source: int
    task: str
    split: str
    dimension: str
    wording: int
    kind: str
    annotator: str
    annotator_name: str | None
    revision: int
    current: bool
    judged_at: datetime
    seconds_spent: float | None
    outcome: str
    best: int | None
    worst: int | None


@dataclass(frozen=True, kw_only=True)
class Rating:
    id: int
    project: str
    campaign: int
    set: int
    source: int
    task: str
    split: str
    dimension: str | None
    wording: int | None
    kind: str
    annotator: str
    annotator_name: str | None
    revision: int
    current: bool
    judged_at: datetime
    seconds_spent: float | None
    candidate: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Pictures are named by their sha256."""

    judgment: int
    set: int
    task: str
    dimension: str
    prompt: str
    source: str
    mask: str
    chosen: str
    rejected: str
    relation: str
    weight: float
    split: str
    annotator: str


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    id: int
    name: str
    state: str
    location: str
    adapter: str
    parent: str | None
    snapshot: str | None
    card: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Training:
    id: int
    kind: str
    config: dict[str, Any]
    result: dict[str, Any]
    snapshot: str | None
    reward_model: str | None
    policy: str | None
    state: str
    progress: int
    total: int
    message: str
    error: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Step:
    id: int
    name: str
    position: int
    result: dict[str, Any]
    state: str
    progress: int
    total: int
    message: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Round:
    id: int
    number: int
    annotators: str
    seed: int
    config: dict[str, Any]
    parent_policy: str
    parent_reward: str
    campaign: int | None
    reward_model: str | None
    policy: str | None
    outcome: str
    steps: tuple[Step, ...]
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Study:
    id: int
    project: str
    name: str
    question: str
    systems: tuple[str, ...]
    campaigns: tuple[int, ...]
    tasks: tuple[str, ...]
    created_at: datetime
    figures: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Export:
    """A dataset on order; `download` is there once `state` is "succeeded"."""

    id: int
    state: str
    progress: int = 0
    content_hash: str | None = None
    download: str | None = None
    total: int | None = None
    error: str | None = None
    selection: dict[str, Any] = field(default_factory=dict)
    format: str = "canonical"
    counts: dict[str, int] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=list)
    difference: dict[str, int] | None = None
    byte_size: int | None = None
