"""What others wrote, read: each format from a specimen by hand, and its bad rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from PIL import Image as Pillow

from annotation.formats import FORMATS
from annotation.formats.store import NOT_STATED
from annotation.importing import ImportRefused, Report, import_preferences
from annotation.models import Campaign, Judgment
from generation import images
from generation.models import CandidateSet, Policy, Project, Source, Task
from generation.readers import ReadError
from tests.annotation.formats import specimens
from tests.annotation.formats.specimens import FILES, PICTURES, Row, put
from tests.factories import make_policy, make_task

pytestmark = pytest.mark.django_db
WITHOUT_SOURCE = {"pickapic", "hpdv2", "hpdv3", "imagerewarddb", "videoalign", "rapidata"}


def sha256(n: int) -> str:
    return images.sha256_of(Pillow.open(io.BytesIO(PICTURES[n])).convert("RGB"))


SHA = {n: sha256(n) for n in PICTURES}


def task_of(format: str) -> Task:
    return make_task(needs_source=format not in WITHOUT_SOURCE, needs_mask=False)


def take(format: str, path: Path, task: Task | None = None, **given: Any) -> Report:
    return import_preferences(
        path,
        format=format,
        task=task or task_of(format),
        project=Project.objects.get(),
        name="theirs",
        **given,
    )


Said = tuple[str, str, str | None, str | None]


def said() -> list[Said]:
    """(dimension, outcome, sha of the best, sha of the worst), in a fixed order."""
    rows = Judgment.objects.values_list(
        "dimension__slug", "outcome", "best__image__sha256", "worst__image__sha256"
    )
    return sorted(rows, key=str)


def picked(best: int, worst: int, dimension: str = "overall") -> Said:
    return (dimension, "picked", SHA[best], SHA[worst])


def tied(dimension: str = "overall") -> Said:
    return (dimension, "no_difference", None, None)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_it_reads_a_good_row(format: str, tmp_path: Path) -> None:
    """The first picture is preferred, by three of four or two of three where people are counted."""
    name, row = FILES[format]
    rows = [row()]
    if format == "imagerewarddb":
        rows = [row() | {"image": specimens.cell(n), "rank": n} for n in (1, 2, 3)]
    report = take(format, put(tmp_path, name, rows))
    assert report.refused == []
    expected: list[Said] = {
        "hpdv3": [picked(1, 2)] * 3 + [picked(2, 1)],
        "rapidata": [picked(1, 2)] * 2 + [picked(2, 1)],
        "imagerewarddb": [picked(1, 3)],
        "videoalign": [tied("aesthetics"), picked(1, 2)],
    }.get(format, [picked(1, 2)])
    assert said() == sorted(expected, key=str)
    source = Source.objects.get()
    assert (source.prompt, source.origin) == (specimens.PROMPT, Source.Origin.IMPORTED)
    if format not in WITHOUT_SOURCE:
        assert source.image.sha256 == SHA[9]
    else:
        assert images.open_image(source.image).getextrema() == ((255, 255),) * 3
    campaign = Campaign.objects.get()
    assert (campaign.origin, campaign.state) == (Campaign.Origin.IMPORTED, Campaign.State.CLOSED)
    assert set(Policy.objects.values_list("kind", flat=True)) == {Policy.Kind.EXTERNAL}
    people = {one.assignment.annotator for one in Judgment.objects.all()}
    assert not any(one.is_active or one.has_usable_password() for one in people)
    assert all(one.username.startswith("imported-") for one in people)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_running_it_again_changes_nothing(format: str, tmp_path: Path) -> None:
    name, row = FILES[format]
    path, task = put(tmp_path, name, [row()]), task_of(format)
    if format == "imagerewarddb":
        path = put(
            tmp_path, name, [row() | {"image": specimens.cell(n), "rank": n} for n in (1, 2)]
        )
    dry = take(format, path, task, dry_run=True)
    assert not Campaign.objects.exists()
    assert not Source.objects.exists()
    first = take(format, path, task)
    assert (dry.created, dry.judgments) == (first.created, first.judgments) == (1, len(said()))
    before = list(Judgment.objects.values_list("pk", flat=True))
    again = take(format, path, task)
    assert (again.created, again.existing, again.judgments) == (0, 1, 0)
    assert list(Judgment.objects.values_list("pk", flat=True)) == before
    assert CandidateSet.objects.count() == 1


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    for format, (name, row) in FILES.items():
        folder = tmp_path / format
        path = put(folder, name, [row()])
        path.write_bytes(b"")
        with pytest.raises(ReadError):
            take(format, path)
        with pytest.raises(ReadError):
            take(format, tmp_path / "nothing" / name)


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def other(row: Row, **changed: Any) -> Row:
    return row | changed


DRAFT = {"overall.responses.status": ["draft"]}
BAD: list[tuple[str, str, Callable[[], Row], str]] = [
    ("pickapic", "an unknown label", lambda: other(specimens.pickapic(), label_0=0.3), "labels"),
    ("pickapic", "no label", lambda: other(specimens.pickapic(), has_label=False), "Nobody"),
    ("pickapic", "an address", lambda: other(specimens.pickapic(), jpg_0=None), "is an address"),
    ("pickapic", "equal", lambda: other(specimens.pickapic(), jpg_1=PICTURES[1]), "the same"),
    ("pickapic", "no picture", lambda: other(specimens.pickapic(), jpg_1=b"x"), "not a picture"),
    ("hpdv2", "a label", lambda: other(specimens.hpdv2(), human_preference=[1, 1]), "not \\[1, 0"),
    ("hpdv2", "gone", lambda: other(specimens.hpdv2(), file_path=["1.png", "x"]), "not there"),
    ("hpdv2", "ranks", lambda: other(specimens.hpdv2_test(), raw_annotations=[{"rank": [1]}]), "3"),
    ("hpdv3", "outside", lambda: other(specimens.hpdv3(), path1="/etc/hostname"), "not there"),
    ("hpdv3", "up", lambda: other(specimens.hpdv3(), path1="../../../x.png"), "not there"),
    ("hpdv3", "a type", lambda: other(specimens.hpdv3(), prompt=3), "not text"),
    ("hpdv3", "a share", lambda: other(specimens.hpdv3(), choice_dist=["a", 1]), "choice_dist"),
    ("hpdv3", "equal", lambda: other(specimens.hpdv3(), path2="1.png"), "the same"),
    ("imagerewarddb", "a rank", lambda: other(specimens.imagerewarddb(), rank=None), "rank"),
    ("imagerewarddb", "alone", specimens.imagerewarddb, "1 pictures"),
    ("editreward-data", "a tie", lambda: other(specimens.editreward_data(), tie_case="no"), "tie"),
    (
        "editreward-data",
        "no source",
        lambda: without(specimens.editreward_data(), "path_src"),
        "no",
    ),
    (
        "editreward-bench",
        "a label",
        lambda: other(specimens.editreward_bench_of_tiger_lab(), ranking="A?B"),
        "not A>B",
    ),
    (
        "editreward-bench",
        "a dimension",
        lambda: other(specimens.editreward_bench(), dimension="charm"),
        "“charm”",
    ),
    ("genai-bench", "a vote", lambda: other(specimens.genai_bench(), vote_type="up"), "“up”"),
    ("genai-bench", "empty", lambda: other(specimens.genai_bench(), source_image=None), "empty"),
    ("mmrb2", "a letter", lambda: other(specimens.mmrb2(), chosen="C"), "not A or B"),
    ("mmrb2", "no response", lambda: without(specimens.mmrb2(), "response_b"), "response_b"),
    (
        "videoalign",
        "a cell",
        lambda: other(specimens.videoalign(), overall="C", aesthetics=""),
        "C",
    ),
    (
        "videoalign",
        "an address",
        lambda: other(specimens.videoalign(), path_A="https://x/1.png"),
        "is an address",
    ),
    (
        "rapidata",
        "a share",
        lambda: other(specimens.rapidata(), weighted_results_image1_preference=-1.0),
        "shares",
    ),
    ("trl", "texts", lambda: specimens.trl() | specimens.TEXTS, "compares texts"),
    ("trl", "images", lambda: other(specimens.trl(), images=[]), "names 3 pictures and has 0"),
    ("trl", "unpaired", lambda: other(specimens.trl(), completion="A", label=True), "unpaired"),
    ("label-studio", "nobody", lambda: other(specimens.label_studio(), annotations=[]), "Nobody"),
    ("argilla", "a draft", lambda: other(specimens.argilla(), **DRAFT), "no submitted response"),
    (
        "argilla",
        "a label",
        lambda: other(specimens.argilla(), **{"overall.responses": ["image_7"]}),
        "image_7",
    ),
    ("webdataset", "no rejected", lambda: without(specimens.webdataset(), "rejected.png"), "empty"),
    ("webdataset", "no words", lambda: without(specimens.webdataset(), "json"), "no .json"),
]


@pytest.mark.parametrize(
    ("format", "case", "make", "reason"), BAD, ids=[f"{row[0]}: {row[1]}" for row in BAD]
)
def test_a_bad_row_is_refused_and_the_good_one_lands(
    format: str, case: str, make: Callable[[], Row], reason: str, tmp_path: Path
) -> None:
    name, good = FILES[format]
    bad = make()
    rows = [bad, good()]
    if format == "imagerewarddb":
        pair = [good() | {"image": specimens.cell(n), "rank": n, "prompt_id": "b"} for n in (1, 2)]
        rows = [bad, *pair]
    elif name.endswith(".parquet") and bad.keys() != good().keys():
        rows = [bad]  # a table has one head
    report = take(format, put(tmp_path, name, rows))
    assert len(report.refused) == 1
    assert re.search(reason, report.refused[0][1]), report.refused
    assert report.created == (1 if len(rows) > 1 else 0)
    assert bool(said()) == (len(rows) > 1)


def test_a_ranking_becomes_best_and_worst_or_pairs(tmp_path: Path) -> None:
    """The third person put two first: nobody is the best, so the pairs stand by themselves."""
    take("hpdv2", put(tmp_path, "test.json", [specimens.hpdv2_test()]))
    assert said() == sorted(
        [
            picked(1, 3),
            picked(3, 1),
            tied(),
            picked(1, 3),
            picked(2, 3),
        ],
        key=str,
    )
    assert sorted(CandidateSet.objects.values_list("size", flat=True)) == [2, 2, 2, 3]


def test_the_ranking_of_a_repository_is_read(tmp_path: Path) -> None:
    take("imagerewarddb", put(tmp_path, "test.json", [specimens.imagereward_test()]))
    assert said() == [picked(1, 3)]


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("pickapic", specimens.pickapic() | {"label_0": 0.5, "label_1": 0.5}),
        ("editreward-data", specimens.editreward_data() | {"tie_case": True}),
        ("editreward-bench", specimens.editreward_bench_of_tiger_lab() | {"ranking": "A=B"}),
        ("genai-bench", specimens.genai_bench() | {"vote_type": "tievote"}),
        ("genai-bench", specimens.genai_bench() | {"vote_type": "bothbad_vote"}),
        ("videoalign", specimens.videoalign() | {"overall": "same", "aesthetics": ""}),
        (
            "rapidata",
            specimens.rapidata()
            | {f"weighted_results_image{n}_preference": 0.5 for n in (1, 2)}
            | {"detailed_results_preference": "[]"},
        ),
    ],
)
def test_ties_found_no_difference(format: str, row: Row, tmp_path: Path) -> None:
    take(format, put(tmp_path, FILES[format][0], [row]))
    assert said() == [tied()]


def test_a_share_without_its_voters_is_one_answer(tmp_path: Path) -> None:
    rows = [specimens.rapidata() | {"detailed_results_preference": None}]
    take("rapidata", put(tmp_path / "a", "train.parquet", rows))
    assert said() == [picked(1, 2)]
    take("hpdv3", put(tmp_path / "b", "a.json", [specimens.hpdv3() | {"choice_dist": [0.7, 0.3]}]))
    assert said() == [picked(1, 2)] * 2


def test_people_are_who_the_data_say(tmp_path: Path) -> None:
    """A name stays one person over all rows; whoever has none is told apart within a set."""
    rows = [
        specimens.pickapic() | {"user_id": user, "jpg_1": PICTURES[n]}
        for user, n in ((1, 2), (1, 3), (2, 2), (None, 2), (None, 2))
    ]
    take("pickapic", put(tmp_path, "train.parquet", rows))
    turns = [one.assignment for one in Judgment.objects.all()]
    assert len(turns) == 5
    assert sorted(turn.slot for turn in turns) == [0, 0, 1, 2, 3]
    assert len({turn.annotator_id for turn in turns}) == 4
    assert Campaign.objects.get().overlap == 4


def test_the_same_person_cannot_say_two_things(tmp_path: Path) -> None:
    rows = [specimens.pickapic(), specimens.pickapic() | {"label_0": 0.0, "label_1": 1.0}]
    report = take("pickapic", put(tmp_path, "train.parquet", rows))
    assert said() == [picked(1, 2)]
    assert "the first answer counts" in report.refused[0][1]


def test_everybody_who_is_counted_judges(tmp_path: Path) -> None:
    row = specimens.mmrb2() | {"human_annotations": {"x": "A", "y": "B", "z": "same"}}
    take("mmrb2", put(tmp_path, "edit.json", [row]))
    expected = [picked(1, 2), picked(2, 1), tied()]
    assert said() == sorted(expected, key=str)


def test_dimensions_are_called_by_their_names(tmp_path: Path) -> None:
    path = put(
        tmp_path, "a.csv", [{"path_A": "1.png", "path_B": "2.png", "prompt": "x", "VQ": "B"}]
    )
    task = task_of("videoalign")
    assert "VQ=" in take("videoalign", path, task).refused[0][1]
    take("videoalign", path, task, called={"VQ": "aesthetics"})
    assert said() == [picked(2, 1, "aesthetics")]
    with pytest.raises(ImportRefused, match="“beauty”"):
        take("videoalign", path, task, dimension="beauty")


def test_rows_without_a_dimension_take_the_one_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "aesthetics", "train.json", [specimens.hpdv3()])
    put(tmp_path / "part-1", "train.json", [specimens.hpdv3()])
    task = task_of("hpdv3")
    take("hpdv3", tmp_path, task)
    assert {row[0] for row in said()} == {"aesthetics", "overall"}
    take("hpdv3", tmp_path, task, dimension="text_alignment")
    assert {row[0] for row in said()} == {"aesthetics", "overall", "text_alignment"}
    assert CandidateSet.objects.count() == 1


def test_a_mask_comes_along_where_the_format_has_one(tmp_path: Path) -> None:
    row = specimens.webdataset() | {"mask.png": specimens.MASK}
    take("webdataset", put(tmp_path, "a.tar", [row]), make_task())
    assert images.open_image(Source.objects.get().mask).getextrema() == (0, 255)
    report = take(
        "genai-bench", put(tmp_path, "test.parquet", [specimens.genai_bench()]), make_task()
    )
    assert "has no mask" in report.refused[0][1]


def test_a_policy_with_weights_keeps_its_name(tmp_path: Path) -> None:
    own = make_policy("flux")
    rows = [specimens.hpdv3() | {"model2": ""}]
    take("hpdv3", put(tmp_path, "train.json", rows))
    made = set(Policy.objects.exclude(pk=own.pk).values_list("name", flat=True))
    assert made == {"flux (imported)", NOT_STATED}
    assert own.candidates.count() == 0


def test_what_stands_before_the_damage_lands(tmp_path: Path) -> None:
    path = put(tmp_path, "train.json", [specimens.hpdv3(), specimens.hpdv3()])
    path.write_text(path.read_text()[:-20])
    report = take("hpdv3", path)
    assert report.created == 1
    assert report.refused[0][0] == "the rest"
    assert "not whole JSON" in report.refused[0][1]


def test_the_name_of_another_campaign_is_refused(tmp_path: Path) -> None:
    Campaign.objects.create(name="theirs")
    with pytest.raises(ImportRefused, match="another campaign"):
        take("hpdv3", put(tmp_path, "train.json", [specimens.hpdv3()]))


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = specimens.hpdv3() | {"path1": "gone.png"}
    path = put(tmp_path, "train.json", [specimens.hpdv3(), bad])
    task = task_of("hpdv3")
    given = {"format": "hpdv3", "task": task.slug, "json": str(tmp_path / "report.json")}
    call_command("import_preferences", str(path), **given)
    shown = capsys.readouterr()
    assert "2 rows of “hpdv3: train.json”: 1 imported (4 judgments)" in shown.out
    assert "row 2: gone.png is not there" in shown.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["created"], report["judgments"], len(report["refused"])) == (1, 4, 1)
    with pytest.raises(CommandError, match="No dimension is called “x”"):
        call_command("import_preferences", str(path), dimension=["x"], **given)
    with pytest.raises(CommandError, match="There is no task"):
        call_command("import_preferences", str(path), **(given | {"task": "no"}))
