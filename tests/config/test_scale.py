"""The simulation of many judgments, with few of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.mark.long
def test_it_measures_each_step_on_both_sides(tmp_path: Path) -> None:
    into = tmp_path / "scale.json"
    command = [sys.executable, "-W", "ignore", "-m", "config.bench.scale", "--json", str(into)]
    done = subprocess.run(
        [*command, "--rows", "20000", "--small", "2000", "--rounds", "3"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(into.read_text())
    assert found["judgments_large"] == pytest.approx(20_000, rel=0.02)
    assert found["judgments_small"] == pytest.approx(2000, rel=0.05)
    assert {name for name, value in found.items() if not value > 0} == set()
    assert found["claim_ratio"] < 5
