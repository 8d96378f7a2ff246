"""Labels that a reward model needs, drawn adaptively against uniformly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generation.bandit import PARAMETERS
from modeling.starter.label_efficiency import curves, evidence_of, sets_to_reach
from modeling.starter.label_efficiency import main as study
from modeling.starter.taxonomy import SAMPLING_PLAN


def test_it_reads_off_the_labels_that_an_accuracy_takes() -> None:
    curve = [0.6, 0.7, 0.65, 0.8]
    assert sets_to_reach(0.5, curve, 40) == 40
    assert sets_to_reach(0.675, curve, 40) == pytest.approx(70)
    assert sets_to_reach(0.775, curve, 40) == pytest.approx(120 + 40 * 0.125 / 0.15)
    assert np.isnan(sets_to_reach(0.9, curve, 40))


def test_accuracy_is_a_mean_over_seeds_and_questions() -> None:
    """Seed 1 learns a, seed 2 has b at once; source a has two questions."""
    nothing = {"a:1": 0.0, "a:2": 0.0, "b:1": 0.0}
    courses = [[nothing, nothing | {"a:1": 1.0, "a:2": 1.0}], [nothing | {"b:1": 1.0}] * 2]
    assert curves(courses) == pytest.approx([1 / 6, 3 / 6])
    drawn = [curves(courses, np.random.default_rng(seed)) for seed in range(40)]
    # A draw has a source alone or both, and a seed alone or both.
    assert {round(float(curve[0]), 3) for curve in drawn} >= {0.0, 1.0, 0.5}
    assert all(curve[1] >= curve[0] for curve in drawn)


def test_what_the_model_tells_apart_is_no_evidence(tmp_path: Path) -> None:
    """Set s: candidates 0 and 1 picked on x, 2 and 3 on y, nothing on z."""
    drawn = [{field: SAMPLING_PLAN[name][0] for name, field in PARAMETERS.items()} for _ in "0123"]
    for row in drawn[:2]:
        row["num_inference_steps"] = 6
    said = [
        {"set": "s", "dimension": "x", "picked": [0, 1]},
        {"set": "s", "dimension": "y", "picked": [2, 3]},
        {"set": "s", "dimension": "z", "picked": None},
    ]
    (tmp_path / "said.json").write_text(json.dumps({"said": said, "drawn": {"s": drawn}}))

    both = evidence_of([tmp_path], frozenset())
    known = evidence_of([tmp_path], frozenset({("s", "y")}))

    assert both.sets == known.sets == 1
    third = pytest.approx((2 / 3, 4 / 3))
    assert both.seen["steps"] == {6: third, 3: third}
    assert known.seen["steps"] == {6: third, 3: (0.0, 2.0)}


@pytest.mark.long
def test_it_compares_both_ways_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked = ["--out", str(tmp_path), "--seeds", "1", "--rounds", "2", "--sets", "6"]
    asked += ["--held-out-sets", "4", "--steps", "2"]
    assert study(asked) == 0
    table = (tmp_path / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["6", "12"]
    assert "Sets to reach" in table
    cells = {path: path.read_bytes() for path in tmp_path.glob("cells/*/result.json")}
    assert {path.parent.name for path in cells} == {"uniform-0-0", "uniform-0-1", "adaptive-0-1"}
    # The same scenes, drawn with other values.
    uniform, adaptive = (
        json.loads((tmp_path / "sets" / f"{arm}-0-1" / "said.json").read_text())["drawn"]
        for arm in ("uniform", "adaptive")
    )
    assert list(uniform) == list(adaptive)
    assert uniform != adaptive
    # One cell is lost: it alone is made again, with the same result.
    lost = tmp_path / "cells" / "adaptive-0-1" / "result.json"
    lost.unlink()
    assert study(asked) == 0
    del cells[lost]
    assert {path: path.read_bytes() for path in cells} == cells
    assert lost.is_file()
    assert (tmp_path / "table.md").read_text() == table
    with pytest.raises(SystemExit):
        study([*asked, "--steps", "3"])
