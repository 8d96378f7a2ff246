"""Written by us, read by us: the same preferences, within what each format can hold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import datasets as hub
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings

from annotation import dataset_files, datasets
from annotation.formats import FORMATS, convert
from annotation.formats.rows import ASPECTS, Comparison
from annotation.importing import import_preferences
from annotation.models import Criterion, Dimension, Judgment
from generation import images, sources
from generation.models import Policy, Project, Source, Task
from tests.annotation.factories import make_campaign, make_turn
from tests.factories import (
    make_mask_picture,
    make_picture,
    make_policy,
    make_set,
    make_task,
    make_user,
)

# All of them, so that the datasets are written once: tests without a database run after all others.
pytestmark = pytest.mark.django_db

# Which of our tasks a format can hold: all; without masks; from the prompt alone.
TASKS = {
    "edit": ["mmrb2", "trl", "label-studio", "argilla", "webdataset"],
    "instruct": ["editreward-data", "editreward-bench", "genai-bench"],
    "paint": ["pickapic", "hpdv2", "hpdv3", "imagerewarddb", "videoalign", "rapidata"],
}
TASK_OF = {format: task for task, formats in TASKS.items() for format in formats}
# Rows are votes, so that every preference that follows from a judgment is in them once.
VOTE_BY_VOTE = {"pickapic", "genai-bench", "videoalign", "trl", "label-studio", "webdataset"}


def make_tasks() -> dict[str, Task]:
    return {
        "edit": make_task("edit"),
        "instruct": make_task("instruct", needs_mask=False),
        "paint": make_task("paint", needs_source=False, needs_mask=False),
    }


@pytest.fixture(scope="module")
def written(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A dataset of each task: sets of two to four judged by three people, with all outcomes."""
    home = tmp_path_factory.mktemp("written")
    with (
        override_settings(DATA_DIR=home, MEDIA_ROOT=str(home / "media")),
        django_db_blocker.unblock(),
        transaction.atomic(),
    ):
        tasks = make_tasks()
        for name, task in tasks.items():
            judge(task)
            chosen = Judgment.objects.filter(set__source__task=task)
            datasets.write(home / name, chosen)
        transaction.set_rollback(True)
    return {name: home / name for name in TASKS}


def judge(task: Task) -> None:
    policies = [
        make_policy(f"{task.slug} {n}", kind=Policy.Kind.EXTERNAL, location="") for n in "ab"
    ]
    people = [make_user(role=None) for _ in range(3)]
    made = []
    for n, size in enumerate((2, 4, 3, 2)):
        source, _ = sources.add_source(
            task=task,
            image=make_picture(n) if task.needs_source else None,
            mask=make_mask_picture() if task.needs_mask else None,
            licence="CC-BY-4.0",
            prompt=f"prompt {n}, “quoted” \n 🙂",
            size=(64, 64),
        )
        row = make_set(source, size=size)
        for place, candidate in enumerate(row.candidates.all()):
            candidate.policy = policies[place % 2]
            candidate.save()
        made.append(row)
    overall, text = (Dimension.objects.get(slug=slug) for slug in ("overall", "text_alignment"))
    Criterion.objects.create(task=task, dimension=text)
    campaign = make_campaign(task=task, sets=made, overlap=3, dimensions=[overall, text])
    answers: list[list[Any]] = [
        [(0, 1), (1, 0), (0, 1)],
        [(0, 3), (0, 3), (2, 1)],
        ["no_difference", (1, 2), (1, 2)],
        ["cannot_judge", "no_difference", (0, 1)],
    ]
    for item, said in zip(campaign.items.order_by("set"), answers, strict=True):
        for person, one in zip(people, said, strict=True):
            also = {text: (1, 0)} if person == people[0] and item.set.size == 2 else {}
            make_turn(item, person, {overall: one, **also}, seconds_spent=3.0)


def bag(format: str, path: Path) -> Counter[Any]:
    """Everything said, by content; people as the groups of what each of them said."""
    found: Counter[Any] = Counter()
    people: dict[str, list[Any]] = defaultdict(list)
    for row in FORMATS[format].read(path):
        assert isinstance(row, Comparison), row
        shown = [sha256(one) for one in row.pictures]
        models = tuple(
            sorted((sha, one.model) for sha, one in zip(shown, row.pictures, strict=True))
        )
        about = (
            row.prompt,
            row.source and sha256(row.source),
            row.mask and sha256(row.mask),
            models,
        )
        for answer in row.answers:
            said = (
                *about,
                answer.dimension or row.folder,
                answer.outcome,
                None if answer.best is None else shown[answer.best],
                None if answer.worst is None else shown[answer.worst],
                answer.at if "time" in FORMATS[format].HOLDS else None,
                answer.seconds if "seconds" in FORMATS[format].HOLDS else None,
            )
            found[said] += 1
            if answer.annotator:
                people[answer.annotator].append(said)
    found.update(tuple(sorted(said, key=str)) for said in people.values())
    return found


def sha256(picture: Any) -> str:
    return images.sha256_of(images.decode(picture.data))


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_it_comes_back_as_it_went(format: str, written: dict[str, Path], tmp_path: Path) -> None:
    ours = written[TASK_OF[format]]
    out = tmp_path / "out"
    convert(ours, out, format)
    theirs = bag(format, out)
    assert theirs
    assert_written(format, ours, theirs)

    task = make_tasks()[TASK_OF[format]]  # in a database that holds nothing else
    given: dict[str, Any] = {"format": format, "task": task, "project": Project.objects.get()}
    report = import_preferences(out, **given)
    assert report.refused == []
    again = import_preferences(out, **given)
    assert (again.created, again.judgments) == (0, 0)
    datasets.write(tmp_path / "again", Judgment.objects.counted(imported=True))
    convert(tmp_path / "again", tmp_path / "out again", format)
    assert bag(format, tmp_path / "out again") == theirs
    assert set(Source.objects.values_list("origin", flat=True)) == {Source.Origin.IMPORTED}


def assert_written(format: str, ours: Path, theirs: Counter[Any]) -> None:
    """Rows of votes say every derived preference once; rows of a majority none that nobody said."""
    wanted: Counter[Any] = Counter(
        (row["dimension"], row["chosen"], row["rejected"])
        for row in dataset_files.rows(ours, "preferences")
    )
    said: Counter[Any] = Counter()
    for key, n in theirs.items():
        if isinstance(key[0], str) and key[5] == "picked":
            said[key[4], key[6], key[7]] += n
    if format in VOTE_BY_VOTE:
        assert said == wanted
    else:
        assert set(said) <= set(wanted)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_what_it_cannot_hold_is_said(format: str, written: dict[str, Path], tmp_path: Path) -> None:
    found = convert(written["edit"], tmp_path / "out", format)
    listed = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert listed == {"format": format, "losses": found.losses}
    holds = FORMATS[format].HOLDS
    assert set(holds) <= set(ASPECTS)
    assert not holds & set(found.losses) - {"no_difference", "annotators", "sets"}
    here = {"source": 4, "mask": 4, "sets": 2, "cannot_judge": 1, "sampling": 11, "seeds": 11}
    for aspect, count in here.items():
        if aspect not in holds:
            assert found.losses[aspect]["count"] == count
    assert found.losses["campaign"]["count"] == 14


LOADERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"webdataset"}))
def test_the_datasets_library_reads_it(
    format: str, written: dict[str, Path], tmp_path: Path
) -> None:
    convert(written[TASK_OF[format]], tmp_path / "out", format)
    paths = [
        p for p in (tmp_path / "out").rglob("*") if p.suffix in LOADERS and p.name != "losses.json"
    ]
    for path in paths:
        more = {"field": "pairs"} if format == "mmrb2" else {}
        loaded = hub.load_dataset(
            LOADERS[path.suffix], data_files=str(path), cache_dir=str(tmp_path / "cache"), **more
        )["train"]
        assert len(loaded)
        for name, feature in loaded.features.items():
            if isinstance(feature, hub.Image):
                assert loaded[0][name].size == (64, 64)


def test_webdataset_reads_the_triplets(written: dict[str, Path], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    convert(written["edit"], tmp_path / "out", "webdataset")
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    samples = [one for shard in shards for one in webdataset.WebDataset(shard, shardshuffle=False)]
    wanted = sum(1 for _row in dataset_files.rows(written["edit"], "preferences"))
    assert len(samples) == wanted
    assert {"chosen.png", "rejected.png", "source.png", "mask.png", "json"} <= samples[0].keys()


@pytest.mark.long  # it loads transformers
def test_trl_takes_its_preferences(written: dict[str, Path], tmp_path: Path) -> None:
    checks = pytest.importorskip("trl.data_utils")
    convert(written["edit"], tmp_path / "out", "trl")
    [path] = sorted((tmp_path / "out" / "overall").glob("*.parquet"))[:1]
    row = hub.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path))["train"][0]
    assert checks.is_conversational(row)
    assert checks.maybe_extract_prompt(row)["prompt"] == row["prompt"]


def test_the_command_says_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(make_tasks()["edit"])
    out, report = tmp_path / "out", tmp_path / "report.json"
    call_command("export_dataset", format="pickapic", out=str(out), json=str(report))
    shown = capsys.readouterr().out
    assert "lost: the mask: which part of the source was to be edited (4)" in shown
    assert json.loads(report.read_text())["losses"]["source"]["count"] == 4
    assert (out / "overall" / "train-00000-of-00001.parquet").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_dataset", format="pickapic", out=str(out))
