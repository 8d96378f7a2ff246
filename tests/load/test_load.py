"""The load, with a handful of people for some seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_handful_of_people_label_without_a_failure(tmp_path: Path) -> None:
    into = tmp_path / "load.json"
    command = [sys.executable, "-m", "tests.load", "--users", "5", "--think", "1", "--items", "500"]
    command += ["--seconds", "20", "--settle", "10", "--alone", "20", "--json", str(into)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert into.exists(), result.stderr
    found = json.loads(into.read_text())["oneloop"]
    for case in ("alone", "loaded"):
        assert found[case]["failures"] == 0, found[case]["examples"]
        assert found[case]["cycles"] > 2
        assert 0 < found[case]["p50_ms"] <= found[case]["p95_ms"]
    assert found["loaded"]["pictures"] > 0
