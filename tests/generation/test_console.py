import json
import os
import pty
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from generation import console
from tests.factories import make_mask_picture, make_picture, make_task

COUNTED = (
    "import time; from generation.console import progress\nfor _ in progress(range(300), 300):"
)


def test_it_says_how_far_it_is_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(console.progress("abc")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(console, "QUIET_SECONDS", 0.0)
    assert list(console.progress("abc", 3, "letters")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    first, *_, last = err.splitlines()
    assert (first[:8], last[:9]) == ("33% 1/3 ", "100% 3/3 ")
    assert "letters/s" in last


def test_it_draws_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    subprocess.run(
        [sys.executable, "-c", f"{COUNTED} time.sleep(0.001)"], stderr=theirs, check=True
    )
    os.close(theirs)
    said = os.read(ours, 10**5).decode()
    os.close(ours)
    assert "300/300" in said
    assert "rows/s" in said


@pytest.mark.django_db
class TestFinish:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        make_task("mend")
        for number, name in enumerate(["cat", "dog"]):
            make_picture(number).save(tmp_path / f"{name}.png")
        make_mask_picture().save(tmp_path / "cat_mask.png")
        return tmp_path

    def test_a_pipe_gets_the_json_and_nothing_else(self, folder: Path) -> None:
        out, err = StringIO(), StringIO()
        call_command(
            "import_sources", folder, task="mend", prompt="a hat", json="-", stdout=out, stderr=err
        )
        written = json.loads(out.getvalue())
        assert (written["rows"], written["created"]) == (2, 1)
        assert [one["row"] for one in written["refused"]] == ["dog.png"]
        assert "dog.png: dog.png has no mask" in err.getvalue()
        assert "2 rows: 1 new" in err.getvalue()

    def test_where_nothing_could_be_taken_the_report_is_written_all_the_same(
        self, folder: Path
    ) -> None:
        report = folder / "report.json"
        with pytest.raises(CommandError, match="No row could be taken"):
            call_command("import_sources", folder, task="mend", json=str(report))
        assert len(json.loads(report.read_text())["refused"]) == 2

    def test_a_file_that_cannot_be_written_is_named_before_the_work(self, folder: Path) -> None:
        with pytest.raises(CommandError, match="there is no such folder"):
            call_command("import_sources", folder, task="mend", json=str(folder / "no" / "a.json"))
