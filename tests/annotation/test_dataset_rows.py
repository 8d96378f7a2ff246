"""Whatever stands in the database stands in the dataset: written and read, nothing is lost."""

import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation import dataset_batches, datasets, pseudonyms
from annotation.dataset_pictures import Pictures
from annotation.models import Judgment
from annotation.portable import set_uid, turn_uid
from generation.models import Candidate, CandidateSet, Image, Policy, Source
from tests.annotation.factories import make_campaign, make_dimension, make_turn
from tests.factories import make_policy, make_task, make_user

NOTHING = Pictures("none")
_numbers = itertools.count()

# PostgreSQL keeps no NUL, and UTF-8 no half of a surrogate pair; see the tests below.
PLAIN = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
ODD = st.sampled_from(
    [
        "",
        " ",
        "NULL",
        '""',
        "\\.",
        "\\N",
        "a,b;c\td",
        'she said "a red\r\nlantern"',
        "line\nline\r\rline\u2028line\x85line",
        "\ufeffbyte order",
        "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200f",
        "مصباح أحمر ‏(left‎)",
        "紅いランタン" * 20,
        "x" * 10_000,
        "nan",
        "-0.0",
    ]
)
TEXT = ODD | PLAIN
REAL = st.floats(allow_nan=False, allow_infinity=False, width=64)
SIDE = st.integers(1, 2**31 - 1)
DRAWN = st.fixed_dictionaries(
    {
        "seed": st.integers(-(2**63), 2**63 - 1),
        "num_inference_steps": st.integers(1, 32_767),
        "strength": st.floats(0, 1, exclude_min=True),
        "guidance_scale": REAL,
        "true_cfg_scale": st.floats(1, 1e300),
    }
)
TAGS = st.dictionaries(PLAIN, TEXT | st.lists(PLAIN, max_size=2) | st.integers() | st.none())


@st.composite
def candidates(draw: st.DrawFn) -> dict[str, Any]:
    return draw(DRAWN | st.just({})) | {
        "prompt": draw(TEXT),
        "negative_prompt": draw(TEXT),
        "width": draw(SIDE),
        "height": draw(SIDE),
        "missing": draw(st.integers(0, 9)) == 0,  # a candidate that was never made
    }


@st.composite
def sources(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "prompt": draw(TEXT),
        "tags": draw(TAGS),
        "external_id": draw(TEXT)[:200],
        "licence": draw(TEXT)[:120],
        "attribution": draw(TEXT)[:300],
        "split": draw(st.sampled_from(["train", "holdout"])),
        "candidates": draw(st.lists(candidates(), min_size=2, max_size=8)),
        "seconds_spent": draw(st.none() | st.floats(0, 86_400)),
        "answer": draw(st.sampled_from(["no_difference", "cannot_judge", (0, 1), (1, 0)])),
    }


def make_image(width: int = 8, height: int = 8) -> Image:
    """Without a file."""
    sha256 = hashlib.sha256(f"row {next(_numbers)}".encode()).hexdigest()
    fields = {"width": width, "height": height, "format": "png", "byte_size": 1}
    return Image.objects.create(sha256=sha256, storage_key="none", **fields)


def make_judged(worlds: list[dict[str, Any]]) -> None:
    task = make_task()
    dimension = make_dimension(task=task)
    policy = make_policy()
    sets = [_make_set(task, policy, dict(world)) for world in worlds]
    campaign = make_campaign(task=task, sets=sets)
    user = make_user()
    for world, one in zip(worlds, sets, strict=True):
        order = list(range(one.size))
        item = campaign.items.get(set=one)
        said = {dimension: world["answer"]}
        make_turn(item, user, said, order=order, seconds_spent=world["seconds_spent"])


def _make_set(task: Any, policy: Policy, world: dict[str, Any]) -> CandidateSet:
    fields = ("prompt", "tags", "external_id", "licence", "attribution", "split")
    source = Source.objects.create(
        task=task,
        image=make_image(7, 1000),
        mask=make_image(),
        **{name: world[name] for name in fields},
    )
    made = CandidateSet.objects.create(source=source, size=len(world["candidates"]), state="ready")
    for index, candidate in enumerate(world["candidates"]):
        values = dict(candidate)
        image = None if values.pop("missing") else make_image()
        Candidate.objects.create(set=made, index=index, policy=policy, image=image, **values)
    return made


@pytest.mark.django_db
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(sources(), min_size=1, max_size=3))
def test_nothing_is_lost(worlds: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, transaction.atomic():
        make_judged(worlds)
        out = Path(folder) / "out"
        datasets.write(out, Judgment.objects.all(), pictures=NOTHING)
        datasets.verify(out)
        found = {name: list(datasets.rows(out, name)) for name in ("sets", "candidates")}
        judgments = list(datasets.rows(out, "judgments"))
        assert found["sets"] == [_set_row(one) for one in CandidateSet.objects.order_by("pk")]
        assert found["candidates"] == [
            _candidate_row(one) for one in Candidate.objects.order_by("set", "index")
        ]
        assert judgments == [_judgment_row(one) for one in Judgment.objects.order_by("pk")]
        transaction.set_rollback(True)


def _set_row(one: CandidateSet) -> dict[str, Any]:
    source = one.source
    return {
        "set": set_uid(one.pk, None),
        "task": source.task.slug,
        "prompt": source.prompt,
        "source": source.image.sha256,
        "mask": source.mask.sha256,
        "split": source.split,
        "size": one.size,
        "width": 7,
        "height": 1000,
        "tags": json.dumps(source.tags, sort_keys=True, ensure_ascii=False),
        "external_id": source.external_id,
        "licence": source.licence,
        "attribution": source.attribution,
    }


def _candidate_row(one: Candidate) -> dict[str, Any]:
    names = ["index", "seed", "num_inference_steps", "strength", "guidance_scale"]
    names += ["true_cfg_scale", "negative_prompt", "prompt", "width", "height"]
    return {name: getattr(one, name) for name in names} | {
        "set": set_uid(one.set_id, None),
        "image": one.image.sha256 if one.image else None,
        "policy": one.policy.name,
    }


def _judgment_row(one: Judgment) -> dict[str, Any]:
    turn = one.assignment
    return {
        "assignment": turn_uid(turn.pk, None),
        "set": set_uid(one.set_id, None),
        "task": one.set.source.task.slug,
        "campaign": turn.item.campaign.name,
        "dimension": one.dimension.slug,
        "wording": 1,
        "outcome": one.outcome,
        "best": one.best.index if one.best else None,
        "worst": one.worst.index if one.worst else None,
        "order": turn.order,
        "annotator": pseudonyms.pseudonym(turn.annotator_id),
        "origin": "people",
        "kind": "work",
        "revision": 1,
        "seconds_spent": turn.seconds_spent,
        "split": one.set.source.split,
        "judged_at": one.created_at,
    }


def test_the_database_refuses_what_no_dataset_could_hold(db: None) -> None:
    for prompt in ("a\0b", "\ud800"):
        with pytest.raises((DataError, UnicodeError)), transaction.atomic():
            Source.objects.create(
                task=make_task(), image=make_image(), mask=make_image(), prompt=prompt
            )


PLAINEST: dict[str, Any] = {
    "prompt": "a red lantern",
    "tags": {},
    "external_id": "",
    "licence": "",
    "attribution": "",
    "split": "train",
    "candidates": [{"width": 8, "height": 8, "missing": False}] * 4,
    "seconds_spent": None,
    "answer": (0, 1),
}


@pytest.fixture
def judged(db: None) -> None:
    """Five sets, one answer each but for the third, which has none, and the last, which has two."""
    make_judged([PLAINEST] * 5)
    sets = CandidateSet.objects.order_by("pk")
    Judgment.objects.filter(set=sets[2]).delete()
    other = make_dimension(task=sets[4].source.task)
    make_turn(sets[4].items.get(), make_user(), {other: "no_difference"}, order=[0, 1, 2, 3])


@pytest.mark.parametrize(("span", "rows"), [(1, 1), (2, 1), (3, 2), (10**9, 1)])
def test_batches_say_the_same_whatever_their_size(
    judged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span: int, rows: int
) -> None:
    whole = datasets.write(tmp_path / "whole", Judgment.objects.all(), pictures=NOTHING)
    monkeypatch.setattr(dataset_batches, "FIRST_SPAN", span)
    monkeypatch.setattr(dataset_batches, "ROWS", rows)
    again = datasets.write(tmp_path / "again", Judgment.objects.all(), pictures=NOTHING)
    assert again == whole
    datasets.verify(tmp_path / "again")


def test_a_batch_costs_the_same_number_of_queries_whatever_is_in_it(
    db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_batches, "FIRST_SPAN", 10**9)
    make_judged([PLAINEST])
    queries(tmp_path / "first")  # gives the installation its name
    few = queries(tmp_path / "few")
    make_judged([PLAINEST] * 12)
    many = queries(tmp_path / "many")
    assert len(many) == len(few)
    # Answers, their sets, and the candidates of those.
    assert len([sql for sql in many if sql.startswith("COPY")]) == 3


def queries(out: Path) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        datasets.write(out, Judgment.objects.all(), pictures=NOTHING)
    return [query["sql"] for query in captured]
