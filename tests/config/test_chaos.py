"""`manage.py chaos` with few kills; `make chaos` has two hundred."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_stuck_whoever_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "chaos.json"
    command = [sys.executable, "manage.py", "chaos", "--kills", "10", "--pause", "2.0"]
    command += ["--people", "4", "--items", "1500", "--settle", "150", "--json", str(into)]
    # Work whose worker died is free again sooner than usual.
    environment = os.environ | {"JOB_LEASE_SECONDS": "6"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(into.read_text())
    with capsys.disabled():
        print("\n" + done.stdout)
    assert (found["lost"], found["doubled"], found["stuck"]) == (0, 0, 0)
    assert found["stored"] == found["acknowledged"] > 20
    assert found["sent_again"] > 0
    assert found["kills"] == 10
    kinds = [name for name in found if name.startswith("kills_")]
    assert sum(found[name] > 0 for name in kinds) > 7  # one that is away is passed over
