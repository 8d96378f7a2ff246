import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from generation import candidates
from generation.models import Source
from tests.factories import make_mask_picture, make_picture, make_task

pytestmark = pytest.mark.django_db


def test_it_reports_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_task("mend")
    make_picture(1).save(tmp_path / "cat.jpg")
    make_mask_picture().save(tmp_path / "cat_mask.png")
    make_picture(2).save(tmp_path / "dog.jpg")
    report = tmp_path / "report.json"

    call_command("import_sources", tmp_path, task="mend", prompt="a hat", json=str(report))

    output = capsys.readouterr()
    assert output.out.strip() == "2 rows: 1 new, 0 there already, 1 refused."
    assert "dog.jpg: dog.jpg has no mask" in output.err
    written = json.loads(report.read_text())
    assert written["created"] == Source.objects.count() == 1
    assert [refused["row"] for refused in written["refused"]] == ["dog.jpg"]


def test_it_stores_nothing_in_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_task("mend")
    make_picture(1).save(tmp_path / "cat.jpg")
    make_mask_picture().save(tmp_path / "cat_mask.png")
    call_command("import_sources", tmp_path, task="mend", prompt="a hat", dry_run=True)
    assert "1 would be new" in capsys.readouterr().out
    assert not Source.objects.exists()


def test_it_fails_for_an_unknown_task_and_for_a_path_without_good_rows(tmp_path: Path) -> None:
    make_task("mend")
    with pytest.raises(CommandError, match="There is no task “men”"):
        call_command("import_sources", tmp_path, task="men")
    with pytest.raises(CommandError, match="There are no pictures in"):
        call_command("import_sources", tmp_path, task="mend")
    make_picture(2).save(tmp_path / "dog.jpg")
    with pytest.raises(CommandError, match="No row could be taken"):
        call_command("import_sources", tmp_path, task="mend")


def test_it_marks_every_row_with_the_given_tags(tmp_path: Path) -> None:
    make_picture().save(tmp_path / "cat.png")
    make_mask_picture().save(tmp_path / "cat_mask.png")
    task = make_task()
    call_command("import_sources", tmp_path, task=task.slug, prompt="a cat", tag=["album=garden"])
    source = Source.objects.get(task=task)
    assert source.tags["album"] == "garden"
    assert candidates.pick_sources(task, 5, None, 0, {"album": "garden"}) == [source]
    with pytest.raises(candidates.CandidateError, match="tagged album=attic"):
        candidates.pick_sources(task, 5, None, 0, {"album": "attic"})


def test_it_says_how_a_tag_reads(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="name=value"):
        call_command("import_sources", tmp_path, task=make_task().slug, tag=["garden"])


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("x" * 300 + ".png", f"line 2: {'x' * 255}… is not there."),
        ("a\nb\u2028c.png", "line 3: a b c.png is not there."),
        ("https://" + "y" * 9000, f"line 2: https://{'y' * 247}… is an address."),
    ],
    ids=["too long for a file", "of several lines", "an endless address"],
)
def test_it_goes_on_behind_a_picture_whose_name_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str, said: str
) -> None:
    make_task("mend")
    make_picture(1).save(tmp_path / "cat.png")
    make_mask_picture().save(tmp_path / "mask.png")
    table = tmp_path / "rows.csv"
    table.write_text(f'image,mask,prompt\n"{named}",mask.png,hat\ncat.png,mask.png,hat\n')
    call_command("import_sources", table, task="mend")
    output = capsys.readouterr()
    assert output.out.strip() == "2 rows: 1 new, 0 there already, 1 refused."
    assert said in output.err
