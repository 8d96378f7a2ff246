"""Exports that end before they are done, and go on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation import dataset_batches, datasets
from annotation.datasets import DatasetError
from annotation.models import Judgment
from generation.models import Source
from tests.annotation.factories import make_campaign, make_dimension, make_turn
from tests.conftest import REPOSITORY, process_environment
from tests.factories import make_picture, make_set, make_source, make_task, make_user

SETS = 6
# A process that writes a set at a time, and stands still after the third.
STANDS_STILL = """
import sys, time
import django
django.setup()
from annotation import dataset_batches, datasets
from annotation.models import Judgment
dataset_batches.FIRST_SPAN = dataset_batches.ROWS = datasets.PART = 1
seen = 0
def progress(count):
    global seen
    seen += count
    if seen >= 3:
        print("three", flush=True)
        time.sleep(600)
datasets.write(sys.argv[1], Judgment.objects.current(), resumable=True, progress=progress)
"""


class Stop(Exception):
    pass


def make_world() -> None:
    """Six sets, each judged once on one dimension."""
    task = make_task("paint")
    dimension = make_dimension("text", task=task)
    pictures = [make_picture(size=(8, 8)) for _ in range(4)]
    source = make_source(task, size=(8, 8))
    sets = [make_set(source, pictures=pictures) for _ in range(SETS)]
    campaign = make_campaign(task=task, sets=sets)
    user = make_user()
    for item in campaign.items.order_by("set"):
        make_turn(item, user, {dimension: (0, 1)})


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is one set."""
    monkeypatch.setattr(dataset_batches, "FIRST_SPAN", 1)
    monkeypatch.setattr(dataset_batches, "ROWS", 1)
    monkeypatch.setattr(datasets, "PART", 1)


def write(out: Path, *, stop_after: int | None = None, **options: object) -> datasets.Written:
    """All judgments; the process "dies" after so many."""
    seen = 0

    def progress(count: int) -> None:
        nonlocal seen
        seen += count
        if stop_after is not None and seen >= stop_after:
            raise Stop

    rows = Judgment.objects.current()
    return datasets.write(out, rows, resumable=True, progress=progress, **options)  # type: ignore[arg-type]


@pytest.fixture
def begun(db: None, one_at_a_time: None, tmp_path: Path) -> Path:
    """An export of which two parts are finished, and of the third nothing stays."""
    make_world()
    out = tmp_path / "out"
    with pytest.raises(Stop):
        write(out, stop_after=3)
    assert not out.exists()
    return out


def test_it_goes_on_after_the_parts_that_are_finished(begun: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    with CaptureQueriesContext(connection) as captured:
        resumed = write(begun)
    assert (resumed.resumed, resumed.began_anew) == (2, False)
    assert (resumed.content_hash, resumed.counts) == (whole.content_hash, whole.counts)
    assert datasets.verify(begun)["counts"]["judgments"] == SETS
    assert list(begun.parent.glob(".out*")) == []
    copies = [query["sql"] for query in captured if "COPY" in query["sql"]]
    assert copies
    order = [row["set"] for row in datasets.rows(begun, "judgments")]
    assert order == [row["set"] for row in datasets.rows(tmp_path / "whole", "judgments")]


def test_it_leaves_what_came_in_since_to_another_dataset(begun: Path) -> None:
    item = Judgment.objects.order_by("-pk")[0].assignment.item
    dimension = Judgment.objects.all()[0].dimension
    make_turn(item, make_user(), {dimension: (2, 3)}, slot=5)
    resumed = write(begun)
    assert (resumed.counts["judgments"], resumed.resumed) == (SETS, 2)


@pytest.mark.parametrize(
    "change",
    [
        "judgment",
        pytest.param("source", marks=pytest.mark.long),
        "wording",
        pytest.param("withdrawn", marks=pytest.mark.long),
    ],
)
def test_it_begins_anew_where_something_changed(begun: Path, tmp_path: Path, change: str) -> None:
    first = Judgment.objects.order_by("pk")[0]
    if change == "judgment":
        Judgment.objects.filter(pk=first.pk).update(revision=2)
    elif change == "source":
        Source.objects.update(tags={"scene": "street"})
    elif change == "wording":
        first.dimension.wordings.create(version=2, question="Which?", query="Is it?")
    else:
        Judgment.objects.filter(pk=first.pk).update(current=False)
    written = write(begun)
    assert (written.began_anew, written.resumed) == (True, 0)
    assert written.content_hash == write(tmp_path / "whole").content_hash
    assert datasets.verify(begun)


def test_it_keeps_the_pseudonyms_of_a_fresh_salt(
    db: None, one_at_a_time: None, tmp_path: Path
) -> None:
    make_world()
    out = tmp_path / "out"
    with pytest.raises(Stop):
        write(out, stop_after=3, salt=datasets.FRESH)
    state = out.parent / ".out-unfinished" / "state.json"
    assert state.stat().st_mode & 0o077 == 0
    write(out, salt=datasets.FRESH)
    assert len({row["annotator"] for row in datasets.rows(out, "judgments")}) == 1


def test_it_refuses_another_question(begun: Path) -> None:
    with pytest.raises(DatasetError, match="was begun with other options. Repeat that command"):
        write(begun, salt="other")
    with pytest.raises(DatasetError, match="was begun with other options"):
        datasets.write(begun, Judgment.objects.all(), resumable=True)
    assert write(begun).resumed == 2


def test_it_refuses_while_another_process_writes(
    db: None, one_at_a_time: None, tmp_path: Path
) -> None:
    make_world()
    out = tmp_path / "out"

    def again(count: int) -> None:
        if count:
            with pytest.raises(DatasetError, match="is being written by another process"):
                write(out)

    datasets.write(out, Judgment.objects.current(), resumable=True, progress=again)
    assert datasets.verify(out)["counts"]["judgments"] == SETS


def test_it_goes_on_after_a_kill(
    transactional_db: None, one_at_a_time: None, data_dir: Path, tmp_path: Path
) -> None:
    make_world()
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, str(out)],
        cwd=REPOSITORY,
        env=process_environment(data_dir, "redis://nowhere")
        | {"DJANGO_SETTINGS_MODULE": "config.settings"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"three\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not out.exists()
    whole = write(tmp_path / "whole")
    resumed = write(out)
    assert (resumed.resumed, resumed.began_anew) == (2, False)
    assert (resumed.content_hash, resumed.counts) == (whole.content_hash, whole.counts)
    datasets.verify(out)
