from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeling.reward.data import Snapshot, pairs_of, tied_pairs
from modeling.starter.ablations import SETTINGS, WEIGHTS, Plan, config_of, difference, write_labels
from modeling.starter.ablations import main as ablate
from modeling.starter.reward_data import make_groups


def test_it_pairs_questions_and_seeds() -> None:
    """Two seeds, sources a (two questions) and b (one): the new one gains a:2 in both seeds and
    loses b:1 in the second: (1 + 1 - 1) / 6."""
    old = [{"a:1": 1.0, "a:2": 0.0, "b:1": 1.0}] * 2
    new = [{"a:1": 1.0, "a:2": 1.0, "b:1": 1.0}, {"a:1": 1.0, "a:2": 1.0, "b:1": 0.0}]
    mean, low, high = difference(old, new)
    assert mean == pytest.approx(100 / 6)
    # The second seed's b alone loses all, the first seed's a alone gains half.
    assert -100 <= low < mean < high <= 50
    assert difference(old, old) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="different questions"):
        difference(old, [{"a:1": 1.0}] * 2)


def test_its_labels_are_a_snapshot_that_the_trainer_reads(tmp_path: Path) -> None:
    parts = {"train": make_groups([1], 12), "holdout": make_groups([2], 6)}
    write_labels(tmp_path, parts, seed=0, slips={"train": 0.1, "holdout": 0.0})
    data = Snapshot(tmp_path)
    assert pairs_of(data, "train")
    relations = {q.relation for pair in pairs_of(data, "holdout") for q in pair.questions}
    assert relations == {"direct", "implied"}
    assert len(tied_pairs(data, "train")) == len(
        {(t["set"], *sorted((t["first"], t["second"]))) for t in data.ties if t["split"] == "train"}
    )


def test_its_settings_change_what_they_name(tmp_path: Path) -> None:
    plan = Plan(steps=10)
    default = config_of(plan, SETTINGS["default"], tmp_path, 1)
    assert default["steps"] == 10
    assert default["view"] == json.loads((WEIGHTS / "reward" / "reward.json").read_text())["view"]
    longer = config_of(plan, SETTINGS["one random order, twice the steps"], tmp_path, 1)
    assert (longer["steps"], longer["order"]) == (20, "random")
    for name in set(SETTINGS) - {"default"}:
        assert config_of(plan, SETTINGS[name], tmp_path, 1) != default


@pytest.mark.long
def test_it_trains_the_cells_once_and_writes_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--out", str(tmp_path), "--seeds", "1", "--steps", "2", "--training-sets", "8"]
    asked += ["--held-out-sets", "4", "--settings", "ties as a third answer"]
    assert ablate(asked) == 0
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == [
        "default",
        "ties as a third answer",
    ]
    trained = {path: path.read_bytes() for path in tmp_path.glob("cells/*/result.json")}
    assert len(trained) == 2
    assert ablate(asked) == 0
    assert {path: path.read_bytes() for path in trained} == trained
