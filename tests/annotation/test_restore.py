"""Datasets back into rows: what left comes back, once, and nothing but what is whole."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import PngImagePlugin

from annotation import datasets
from annotation.dataset_files import TABLES as TABLE_SCHEMAS
from annotation.dataset_files import batches
from annotation.dataset_hash import ContentHash
from annotation.datasets import DatasetError, Pictures
from annotation.models import (
    Aggregation,
    Assignment,
    Campaign,
    Dimension,
    Item,
    Judgment,
    Rating,
    Wording,
)
from annotation.restore import import_canonical
from generation import images
from generation.models import (
    AuditEntry,
    Candidate,
    CandidateSet,
    Image,
    Installation,
    Policy,
    Source,
    Task,
    Verb,
)
from tests.annotation.factories import make_dimension, make_turn
from tests.factories import (
    make_mask_picture,
    make_picture,
    make_policy,
    make_set,
    make_source,
    make_task,
    make_user,
)

pytestmark = pytest.mark.django_db

ODD_PROMPTS = [
    "two\nlines\r\n\tand a tab",
    "قبعة خضراء 🎩\u200f",
    '"quoted", \\ and {braces}',
    "  ",
]
TABLES = (
    Judgment, Rating, Assignment, Item, Campaign, Candidate, CandidateSet, Source, Policy,
    Dimension, Task, User, Image, Installation,
)  # fmt: skip


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> Path:
    """A store of its own, so that it can be emptied."""
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return tmp_path / "media"


def empty(media: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        tables = ", ".join(model._meta.db_table for model in TABLES)
        cursor.execute(f"TRUNCATE {tables} CASCADE")
    shutil.rmtree(media, ignore_errors=True)


def live() -> Campaign:
    """Two tasks, three campaigns and two people; every kind of answer and of row."""
    base = make_policy("base", location="owner/base")
    ours = make_policy("ours 🎨", kind=Policy.Kind.TRAINED, parent=base, location="/weights/ours")
    outside = Policy.objects.create(name="Ideogram", kind=Policy.Kind.EXTERNAL)
    paint = make_task("paint", wording="image painting", instruction="Look closely.", weight=2.5)
    fixed = make_task("tidy", fixed_prompt="remove it")
    text = make_dimension("text", task=paint, uses_prompt=True)
    shape = make_dimension("shape", task=paint)
    make_dimension("never asked", task=paint)
    newer = Wording.objects.create(
        dimension=text, version=2, question="Which?", query="Better at “{prompt}”?", guideline="…"
    )
    anna, ben, rita = make_user("anna"), make_user("ben"), make_user("rita")
    work, blind, scores = (
        Campaign.objects.create(name=name, purpose=purpose, overlap=2, guideline="# Guide\n")
        for name, purpose in (
            ("Work: “first”", "preference"),
            ("Blind", "comparison"),
            ("Scores", "rating"),
        )
    )
    work.tasks.set([paint])
    work.dimensions.set([text, shape])
    day = datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)
    for number, prompt in enumerate(ODD_PROMPTS):
        source = make_source(
            paint, prompt=prompt, split="holdout" if number == 1 else "train",
            tags={"scene": "attic 🏠", "n": number}, external_id=f"{number}.png", licence="CC0",
            attribution="somebody",
        )  # fmt: skip
        set_ = make_set(source, policy=(base, ours)[number % 2], size=2 + number)
        item = Item.objects.create(campaign=work, set=set_, position=number)
        said: Any = [
            {text: (0, 1), shape: "no_difference"},
            {text: "cannot_judge", shape: (1, 0)},
        ]
        first = make_turn(item, anna, said[number % 2], at=day, seconds_spent=4.25)
        make_turn(
            item, ben, said[(number + 1) % 2], at=day + timedelta(hours=number), order=[1, 0]
            + list(range(2, set_.size)),
        )  # fmt: skip
        if number == 0:  # a correction, given to the newer wording
            old = Judgment.objects.get(assignment=first, dimension=text)
            Judgment.objects.filter(pk=old.pk).update(current=False)
            Judgment.objects.create(
                assignment=first, set=set_, dimension=text, wording=newer, revision=2,
                outcome="picked", best=old.worst, worst=old.best,
            )  # fmt: skip
        if number == 2:
            make_turn(item, rita, {text: (1, 0)}, kind=Assignment.Kind.REVIEW)
    tidy = make_set(make_source(fixed, prompt=""), policy=base)
    pair = Item.objects.create(campaign=blind, set=tidy, shown=[1, 3], position=0)
    make_turn(pair, ben, {shape: (3, 1)}, order=[3, 1])
    Candidate.objects.create(
        set=CandidateSet.objects.create(
            source=Source.objects.filter(task=paint)[0], size=1, state="ready"
        ),
        index=0, policy=outside, image=images.store(make_picture()), width=64, height=64,
    )  # fmt: skip
    rated = Item.objects.create(
        campaign=scores, set=CandidateSet.objects.get(candidates__policy=outside), position=0
    )
    turn = make_turn(rated, anna)
    only = rated.set.candidates.get()
    Rating.objects.create(assignment=turn, set=rated.set, candidate=only, value=1)
    Rating.objects.create(
        assignment=turn, set=rated.set, candidate=only, value=4, revision=3, dimension=shape,
        wording=shape.wording,
    )  # fmt: skip
    Aggregation.objects.create(
        campaign=work,
        reliability=[
            {"user": who.pk, "dimension": text.pk, "n": 4, "accuracy": accuracy, "attentive": 0.5}
            for who, accuracy in ((anna, 0.9), (ben, 0.6))
        ],
    )
    return work


def export(directory: Path, **options: Any) -> dict[str, Any]:
    datasets.write(
        directory,
        Judgment.objects.counted(),
        ratings=Rating.objects.counted(),
        salt=datasets.FRESH,
        **options,
    )
    return datasets.verify(directory)


@pytest.fixture(scope="module")
def dataset(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `live` holds, exported; the rows themselves are gone again."""
    folder = tmp_path_factory.mktemp("live")
    with (
        django_db_blocker.unblock(),
        override_settings(MEDIA_ROOT=str(folder / "media")),
        transaction.atomic(),
    ):
        live()
        export(folder / "out")
        transaction.set_rollback(True)
    return folder / "out"


def rows_of_tables() -> dict[str, list[Any]]:
    """Every row that an import may make, whatever its number."""
    return {
        model.__name__: sorted(map(repr, model._default_manager.values_list()))
        for model in (*TABLES, Aggregation, Wording)
    }


@pytest.mark.parametrize("form", ["files", "parquet", "webdataset"])
def test_what_left_an_emptied_database_comes_back_the_same(
    tmp_path: Path, media: Path, form: str
) -> None:
    live()
    before = export(tmp_path / "before", pictures=Pictures(form))
    tables = before["counts"]
    assert (tables["sets"], tables["ratings"], tables["annotators"]) == (6, 2, 2)
    assert {row["outcome"] for row in datasets.rows(tmp_path / "before", "judgments")} == {
        "picked", "no_difference", "cannot_judge",
    }  # fmt: skip
    empty(media)

    report = import_canonical(tmp_path / "before")

    assert report.refused == []
    assert report.created == tables["sets"] + tables["judgments"] + tables["ratings"]
    after = export(tmp_path / "after")
    assert after["content_hash"] == before["content_hash"]
    assert {k: v for k, v in after["counts"].items() if k != "images"} == {
        k: v for k, v in tables.items() if k != "images"
    }
    when = [row["judged_at"] for row in datasets.rows(tmp_path / "before", "judgments")]
    assert sorted(Judgment.objects.values_list("created_at", flat=True)) == sorted(when)
    there = rows_of_tables()

    again = import_canonical(tmp_path / "before")

    assert (again.created, again.existing, again.refused) == (0, report.created, [])
    assert rows_of_tables() == there


def test_rows_come_back_as_what_they_were(out: Path) -> None:
    import_canonical(out)

    assert set(Source.objects.values_list("prompt", flat=True)) == {*ODD_PROMPTS, ""}
    assert not Task.objects.filter(active=True).exists()
    ours = Policy.objects.get(name="ours 🎨")
    assert (ours.kind, ours.parent and ours.parent.name) == (Policy.Kind.EXTERNAL, "base")
    assert set(Campaign.objects.values_list("state", "origin")) == {("closed", "people")}
    noted = AuditEntry.objects.filter(verb=Verb.CAMPAIGN_MADE)
    assert noted.count() == Campaign.objects.count() == 3
    people = User.objects.all()
    assert len(people) == 3
    assert all(user.username.startswith("imported-") for user in people)
    assert not any(user.is_active or user.has_usable_password() for user in people)
    assert Judgment.objects.get(revision=2).wording.version == 2
    assert Assignment.objects.get(kind="review").annotator not in people.filter(
        assignments__kind="work"
    )
    assert Item.objects.get(campaign__name="Blind").shown == [1, 3]
    assert set(Assignment.objects.values_list("state", flat=True)) == {"submitted"}
    assert {image.sha256 for image in Image.objects.all()} == {
        path.stem for path in (out / "images").glob("*/*.png")
    }
    assert images.open_image(Source.objects.all()[0].mask) == make_mask_picture()


def test_where_the_rows_still_are_nothing_is_made(tmp_path: Path) -> None:
    live()
    export(tmp_path / "out")
    before = rows_of_tables()
    report = import_canonical(tmp_path / "out")
    assert (report.created, report.refused) == (0, [])
    assert rows_of_tables() == before


def test_a_later_export_adds_what_is_new_by_the_same_people(tmp_path: Path, media: Path) -> None:
    work = live()
    later = Item.objects.filter(campaign=work)[3]
    export(tmp_path / "second")
    pks = Judgment.objects.exclude(assignment__item=later)
    datasets.write(tmp_path / "first", pks & Judgment.objects.counted(), salt=datasets.FRESH)
    empty(media)
    import_canonical(tmp_path / "first")
    people = User.objects.count()
    report = import_canonical(tmp_path / "second")
    assert report.refused == []
    assert report.created
    assert report.existing
    assert User.objects.count() == people
    assert Campaign.objects.filter(name__startswith="Work").count() == 1


def test_another_campaign_of_that_name_is_left_alone(out: Path) -> None:
    mine = Campaign.objects.create(name="Blind", state=Campaign.State.OPEN)
    report = import_canonical(out)
    assert report.refused == []
    assert not mine.items.exists()
    assert Campaign.objects.get(name="Blind (imported)").items.count() == 1
    import_canonical(out, name="theirs")
    assert not Campaign.objects.filter(name__startswith="theirs").exists()


def test_a_wording_that_people_are_asked_is_not_changed(out: Path) -> None:
    mine = make_dimension("text")
    item = Item.objects.create(
        campaign=Campaign.objects.create(name="Mine"), set=make_set(), position=0
    )
    make_turn(item, make_user(), {mine: (0, 1)})

    report = import_canonical(out)

    assert [wording.version for wording in mine.wordings.all()] == [1]
    assert {reason.partition("(")[0] for _, reason in report.refused} == {
        "“Text” was asked in a wording that is not known here "
    }
    assert Judgment.objects.filter(dimension__slug="shape").exists()


def test_a_dry_run_counts_and_keeps_nothing(out: Path, media: Path) -> None:
    before = rows_of_tables()
    report = import_canonical(out, dry_run=True)
    assert report.created > 10
    after = rows_of_tables()
    assert {k for k in after if after[k] != before[k]} <= {"Installation"}
    assert not list(media.glob("**/*.png"))


def test_a_dataset_of_version_2_comes_back_as_far_as_it_can(media: Path) -> None:
    empty(media)
    old = Path(__file__).parent / "dataset_v2"
    report = import_canonical(old)
    assert report.refused == []
    assert "is of version 2" in report.notes[0]
    counts = datasets.read_card(old)["counts"]
    assert CandidateSet.objects.count() == counts["sets"]
    assert Judgment.objects.count() == counts["judgments"]
    assert {campaign.name for campaign in Campaign.objects.all()} == {
        row["campaign"] for row in datasets.rows(old, "judgments")
    }
    assert import_canonical(old).created == 0


def test_whose_answers_they_are_is_restored(tmp_path: Path, media: Path) -> None:
    task = make_task("paint")
    shape = make_dimension("shape", task=task)
    sets = [make_set(make_source(task)) for _ in range(3)]
    for name, asked, fields in (
        ("theirs", sets[:2], {"origin": "imported", "state": "closed"}),
        ("ours", sets[1:2], {}),
        ("programs'", sets[2:], {"simulated": True}),
    ):
        campaign = Campaign.objects.create(name=name, **fields)
        for set_ in asked:
            item = Item.objects.create(campaign=campaign, set=set_, position=0)
            make_turn(item, make_user(), {shape: (0, 1)})
    datasets.write(tmp_path / "out", Judgment.objects.all())
    before = datasets.verify(tmp_path / "out")
    empty(media)

    import_canonical(tmp_path / "out")

    assert dict(Campaign.objects.values_list("name", "origin")) == {
        "theirs": "imported",
        "ours": "people",
        "programs'": "people",
    }
    assert Campaign.objects.get(simulated=True).name == "programs'"
    # Only others judged the first; nothing here draws from it.
    assert sorted(Source.objects.values_list("origin", flat=True)) == [
        "imported",
        "library",
        "library",
    ]
    datasets.write(tmp_path / "after", Judgment.objects.all())
    assert datasets.verify(tmp_path / "after")["content_hash"] == before["content_hash"]

    empty(media)
    import_canonical(tmp_path / "out", origin="imported", name="all")
    assert set(Campaign.objects.values_list("origin", flat=True)) == {"imported"}
    assert "all: ours" in Campaign.objects.values_list("name", flat=True)


def test_a_command_brings_it_back(out: Path) -> None:
    said = io.StringIO()
    call_command("import_preferences", out, format="canonical", json="-", stdout=said)
    report = json.loads(said.getvalue())
    assert report["tables"]["sets"] == {"created": 6, "existing": 0, "refused": 0}
    with pytest.raises(CommandError, match="leave out --task"):
        call_command("import_preferences", out, format="canonical", task="fill")
    (out / "card.json").unlink()
    with pytest.raises(CommandError, match="holds no card.json"):
        call_command("import_preferences", out, format="canonical")


# What is not whole


@pytest.fixture
def out(tmp_path: Path, media: Path, dataset: Path) -> Path:
    """A dataset of its own, and an empty database."""
    empty(media)
    shutil.copytree(dataset, tmp_path / "out")
    return tmp_path / "out"


def nothing_stays(media: Path) -> bool:
    models = (CandidateSet, Source, Campaign, Policy, User, Image, Judgment, Dimension)
    return not any(model._default_manager.exists() for model in models) and not media.exists()


def test_a_missing_picture_is_refused(out: Path, media: Path) -> None:
    path = min((out / "images").glob("*/*.png"))
    path.unlink()
    with pytest.raises(DatasetError, match="is missing. Copy the dataset again"):
        import_canonical(out)
    assert nothing_stays(media)


def test_a_changed_row_is_refused(out: Path, media: Path) -> None:
    path = out / "judgments.parquet"
    table = pq.read_table(path)
    table = table.set_column(
        table.schema.get_field_index("seconds_spent"), "seconds_spent", [[0.5] * len(table)]
    )
    pq.write_table(table, path)
    with pytest.raises(DatasetError):
        import_canonical(out)
    assert nothing_stays(media)


def test_reduced_pictures_are_refused(tmp_path: Path, media: Path) -> None:
    live()
    export(tmp_path / "out", pictures=Pictures("files", max_side=32))
    empty(media)
    with pytest.raises(DatasetError, match="reduced to 32 pixels"):
        import_canonical(tmp_path / "out")
    assert nothing_stays(media)


# Row by row


def rewrite(out: Path, table: str, changes: dict[int, dict[str, Any]]) -> None:
    """Change rows, and the card with them: what another program may have written."""
    rows = list(datasets.rows(out, table))
    for at, said in changes.items():
        rows[at] |= said
    schema = TABLE_SCHEMAS[table]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / f"{table}.parquet")
    card = json.loads((out / "card.json").read_text())
    found = ContentHash()
    for name in TABLE_SCHEMAS:
        for batch in batches(out, name):
            found.add(name, batch)
    card["content_hash"] = found.hex(card["taxonomy"], card["schema_version"])
    (out / "card.json").write_text(json.dumps(card))


SETS: list[tuple[str, dict[str, Any], str]] = [
    ("sets", {"task": "knit"}, "does not describe the task “knit”"),
    ("sets", {"split": "test"}, "“test” is no split"),
    ("sets", {"size": 7}, "It has 7 candidates, and the indexes"),
    ("sets", {"tags": "{"}, "tags are not JSON"),
    ("sets", {"tags": "[]"}, "tags are not an object"),
    ("sets", {"prompt": "long " * 1000}, "longer than 2400 bytes"),
    ("candidates", {"policy": "nobody"}, "does not describe the policy “nobody”"),
    ("candidates", {"index": 7}, "the indexes in the dataset are 7"),
    ("candidates", {"seed": None}, "only some of the drawn values"),
    ("candidates", {"strength": 7.0}, "The database refuses it"),
]


@pytest.mark.parametrize("cases", [SETS[:5], SETS[5:]])
def test_a_set_that_cannot_be_is_refused_with_all_about_it(
    out: Path, cases: list[tuple[str, dict[str, Any], str]]
) -> None:
    """One case a set; the sixth set and what was said about it land."""
    names = [row["set"] for row in datasets.rows(out, "sets")]
    firsts = {
        row["set"]: n for n, row in enumerate(datasets.rows(out, "candidates")) if row["index"] == 0
    }
    at = {"sets": dict(zip(names, range(6), strict=True)), "candidates": firsts}
    for name, (table, changes, _reason) in zip(names, cases, strict=False):
        rewrite(out, table, {at[table][name]: changes})

    report = import_canonical(out)

    why = dict(report.refused)
    for name, (_table, _changes, reason) in zip(names, cases, strict=False):
        assert reason in why.pop(f"set {name}")
    assert set(why.values()) == {"Its set is not here, or was refused."}
    assert [str(one.uid) for one in CandidateSet.objects.all()] == [names[5]]
    answers = Judgment.objects.count() + Rating.objects.count()
    assert report.created == 1 + answers
    assert answers


ANSWERS: list[tuple[str, dict[str, Any], str]] = [
    ("judgments", {"best": 7}, "has no candidate 7"),
    ("judgments", {"best": 1, "worst": 1}, "best is its worst"),
    ("judgments", {"worst": None}, "A best and a worst belong to"),
    ("judgments", {"outcome": "better"}, "“better” is no outcome"),
    ("judgments", {"dimension": "smell"}, "does not describe the dimension “smell”"),
    ("judgments", {"wording": 9}, "does not describe the wording 9 of “"),
    ("judgments", {"campaign": "Nobody's"}, "does not describe the campaign “Nobody's”"),
    ("judgments", {"revision": 0}, "revision is 0"),
    ("ratings", {"value": 9}, "value is 9, and not a whole number"),
    ("ratings", {"candidate": 4}, "has no candidate 4"),
    ("ratings", {"kind": "gold"}, "no kind of turn"),
    ("ratings", {"order": [0, 0]}, "order [0, 0] is not one of 1 candidates"),
]


@pytest.mark.parametrize("cases", [[*ANSWERS[:4], *ANSWERS[8:10]], [*ANSWERS[4:8], *ANSWERS[10:]]])
def test_an_answer_that_cannot_be_is_refused_alone(
    out: Path, cases: list[tuple[str, dict[str, Any], str]]
) -> None:
    rows = {table: list(datasets.rows(out, table)) for table in ("judgments", "ratings")}
    free = {
        "judgments": [n for n, row in enumerate(rows["judgments"]) if row["outcome"] == "picked"],
        "ratings": [0, 1],
    }
    expected = {}
    for table, changes, reason in cases:
        at = free[table].pop(0)
        expected[f"{table} row {at + 1}"] = reason
        rewrite(out, table, {at: changes})

    report = import_canonical(out)

    why = dict(report.refused)
    assert set(why) == set(expected)
    for name, reason in expected.items():
        assert reason in why[name]
    assert Judgment.objects.count() == len(rows["judgments"]) - 4
    assert Rating.objects.count() == 0


def test_where_nothing_can_be_taken_nothing_stays(out: Path, media: Path) -> None:
    rewrite(out, "sets", {at: {"split": "test"} for at in range(6)})
    report = import_canonical(out)
    assert (report.created, report.existing) == (0, 0)
    assert nothing_stays(media)


def test_a_picture_with_more_in_it_is_refused(out: Path, media: Path) -> None:
    """Its place and time, say, which pictures are stored without."""
    noted = PngImagePlugin.PngInfo()
    noted.add_text("Author", "somebody")
    file = io.BytesIO()
    make_picture(1).save(file, "PNG", pnginfo=noted)
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    path = out / "images" / sha256[:2] / f"{sha256}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file.getvalue())
    rewrite(out, "candidates", {0: {"image": sha256}})
    report = import_canonical(out)
    assert "not one that was exported from here" in report.refused[0][1]
    assert not Image.objects.filter(sha256=sha256).exists()


# Whatever people may have written

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
ODD = st.one_of(WORDS, st.sampled_from(["\r\n", "\u202e🎩\u200d", "é" * 5000, "\x85\x1f"]))
SIDES = st.integers(8, 40)
OUTCOMES = st.sampled_from(["no_difference", "cannot_judge", "picked"])


@st.composite
def judged_sets(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "prompt": draw(WORDS),
        "size": draw(st.integers(1, 8)),
        "sides": (draw(SIDES), draw(SIDES)),
        "texts": (draw(ODD), draw(ODD)),
        "drawn": draw(st.booleans()),
        "tags": draw(
            st.dictionaries(
                WORDS, st.one_of(WORDS, st.floats(allow_nan=False, allow_infinity=False))
            )
        ),
        "about": (draw(WORDS), draw(WORDS), draw(WORDS)),
        "answers": draw(st.lists(OUTCOMES, min_size=1, max_size=3)),
        "seconds": draw(st.one_of(st.none(), st.floats(0, 1e6))),
        "usable": draw(st.booleans()),
    }


def make_judged(given: list[dict[str, Any]], guideline: str) -> None:
    task = make_task("paint")
    dimension = make_dimension("text", task=task)
    policy = make_policy("base")
    campaign = Campaign.objects.create(name="All", overlap=3, guideline=guideline)
    people = [make_user(f"user-{number}") for number in range(3)]
    for number, said in enumerate(given):
        source = make_source(
            task, prompt=said["prompt"], size=said["sides"], tags=said["tags"],
            external_id=said["about"][0], licence=said["about"][1], attribution=said["about"][2],
        )  # fmt: skip
        set_ = make_set(source, policy=policy, size=said["size"])
        nothing = dict.fromkeys(
            ["seed", "num_inference_steps", "strength", "guidance_scale", "true_cfg_scale"]
        )
        set_.candidates.update(
            prompt=said["texts"][0],
            negative_prompt=said["texts"][1],
            **({} if said["drawn"] else nothing),
        )
        item = Item.objects.create(campaign=campaign, set=set_, position=number)
        for person, outcome in zip(people, said["answers"], strict=False):
            picked = outcome == "picked" and said["size"] > 1
            answer: Any = (0, said["size"] - 1) if picked else outcome
            turn = make_turn(
                item, person, {dimension: "no_difference" if answer == "picked" else answer},
                seconds_spent=said["seconds"],
            )  # fmt: skip
            Rating.objects.create(
                assignment=turn, set=set_, candidate=set_.candidates.get(index=0),
                value=said["usable"],
            )  # fmt: skip


def check_no_loss(given: list[dict[str, Any]], guideline: str, media: Path) -> None:
    media.mkdir(exist_ok=True)
    empty(media)
    make_judged(given, guideline)
    with tempfile.TemporaryDirectory() as folder:
        before = export(Path(folder) / "before")
        empty(media)
        report = import_canonical(Path(folder) / "before")
        assert report.refused == []
        assert export(Path(folder) / "after")["content_hash"] == before["content_hash"]
    assert Campaign.objects.get().guideline == guideline


KEPT = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
    # An example takes a while: the one that fails is told as it is.
    phases=[Phase.explicit, Phase.generate],
)


@given(st.lists(judged_sets(), min_size=1, max_size=3), ODD)
@settings(KEPT, max_examples=4)
def test_nothing_is_lost_on_the_way(
    media: Path, given: list[dict[str, Any]], guideline: str
) -> None:
    check_no_loss(given, guideline, media)


@pytest.mark.long
@given(st.lists(judged_sets(), min_size=1, max_size=4), ODD)
@settings(KEPT, max_examples=40)
def test_nothing_is_lost_on_the_way_however_odd(
    media: Path, given: list[dict[str, Any]], guideline: str
) -> None:
    check_no_loss(given, guideline, media)
