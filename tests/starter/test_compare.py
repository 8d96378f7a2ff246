"""The comparison of objectives: labels, compute, figures, and a killed run that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from modeling.rundir import RunError
from modeling.starter.compare import DYNAMIC, Comparison, Setting, whole_seeds
from modeling.starter.compare_compute import Cost, Kept, flops_of
from modeling.starter.compare_data import Data, held_out, pairs_of
from modeling.starter.compare_figures import figures, table


def test_a_best_and_a_worst_of_four_make_five_pairs() -> None:
    assert pairs_of((2, 0)) == [
        (2, 0, "direct"),
        (2, 1, "implied"),
        (1, 0, "implied"),
        (2, 3, "implied"),
        (3, 0, "implied"),
    ]
    assert pairs_of(None) == []


def test_its_annotators_see_the_truth_and_slip_by_seed(tmp_path: Path) -> None:
    """Candidate 1 is best and 3 worst by far; 100 sources, a slip in 20 names a random pair."""
    row = {"task": "removal", "scores": [{"removal_quality": x} for x in (0.5, 0.9, 0.6, 0.1)]}
    (tmp_path / "scores.json").write_text(json.dumps([{"id": str(i), **row} for i in range(100)]))
    data = Data(tmp_path, 100)
    found = {}
    for seed in (0, 1):
        rows = [json.loads(line) for line in data.pairs(seed).read_text().splitlines()]
        found[seed] = [row for row in rows if row["relation"] == "direct"]
        assert len(found[seed]) == 100
        right = [row for row in found[seed] if row["chosen"] == f"candidates/{row['source']}-1.png"]
        assert 88 <= len(right) < 100
        assert {row["weight"] for row in rows if row["relation"] == "implied"} == {0.5}
    assert found[0] != found[1]
    assert data.pairs(0).read_text() == Data(tmp_path, 100).pairs(0).read_text()


def test_it_charges_what_is_kept_once() -> None:
    """Steps of 10 that ask for 2 items of 3 each, of which there are 5: 16 for one step, 32 for
    two, 45 for three (all 5 are made), 55 for four."""
    cost = Cost(step=10.0, item=3.0, kept=Kept(per_step=2, total=5))
    assert [cost.of(steps) for steps in (1, 2, 3, 4)] == [16.0, 32.0, 45.0, 55.0]
    assert [cost.steps_within(budget) for budget in (44.9, 45.0, 54.0, 55.0)] == [2, 3, 3, 4]


def test_it_counts_products_and_attention_on_the_cpu() -> None:
    """(2 x 3)(3 x 5): 2 * 2 * 3 * 5 = 60; its backward two such products. Attention of 1 x 2 heads,
    4 queries, 4 keys, width 8: two products of 2 * 2 * 4 * 4 * 8 = 512; its backward five."""
    first, second = torch.ones(2, 3, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    assert flops_of(lambda: first @ second) == 60
    assert flops_of(lambda: (first @ second).sum().backward()) == 180
    heads = torch.ones(1, 2, 4, 8, requires_grad=True)
    assert flops_of(lambda: F.scaled_dot_product_attention(heads, heads, heads)) == 1024

    def both() -> None:
        F.scaled_dot_product_attention(heads, heads, heads).sum().backward()

    assert flops_of(both) == 1024 + 2560


def _scores(usable: list[bool], consistency: float) -> list[dict[str, float]]:
    return [{"structure": 0.9 if good else 0.1, "consistency": consistency} for good in usable]


def test_its_figures_by_hand() -> None:
    """100 scenes, two seeds. The base has 50 usable; ours 70 and 60, twenty and ten more; the other
    none more, and every scene's consistency is .1 lower, which is worse beyond chance."""
    half = [i < 50 for i in range(100)]
    cells = {
        "base": {seed: _scores(half, 0.9) for seed in (0, 1)},
        "ours": {
            0: _scores([i < 70 for i in range(100)], 0.9),
            1: _scores([i < 60 for i in range(100)], 0.9),
        },
        "other": {seed: _scores(half, 0.8) for seed in (0, 1)},
    }
    found = figures(cells, ["fill"] * 50 + ["removal"] * 50, ours="ours")
    ours, other = found["methods"]["ours"], found["methods"]["other"]
    assert ours["usable"]["value"] == pytest.approx(0.65)
    assert ours["difference"]["value"] == pytest.approx(0.15)
    assert ours["difference"]["by_seed"] == pytest.approx([0.2, 0.1])
    assert 0 < ours["difference"]["low"] < 0.15 < ours["difference"]["high"]
    assert ours["tasks"]["fill"]["value"] == 0.0
    assert ours["tasks"]["removal"]["value"] == pytest.approx(0.3)
    assert ours["worse"] == []
    assert other["difference"]["value"] == 0.0
    assert other["ours_minus_this"]["value"] == pytest.approx(0.15)
    assert other["worse"] == ["consistency"]
    assert other["dimensions"]["consistency"]["difference"]["value"] == pytest.approx(-0.1)
    for row in found["methods"].values():
        row |= {"steps": 10, "flops": 2e12}
    text = table(found)
    assert "| ours | 10 | 2.0 | 2 | 65.0 (" in text
    assert "consistency |" in text.splitlines()[4]


def test_it_compares_the_seeds_that_every_method_has() -> None:
    cells = {"base": {0: 1, 1: 1}, "sft": {0: 1}, "refl": {1: 1}}
    assert whole_seeds(cells, ["base", "sft"]) == {"base": {0: 1}, "sft": {0: 1}}
    assert whole_seeds(cells, ["base", "sft", "refl"]) == cells


def test_it_holds_out_other_scenes_for_every_task() -> None:
    scenes = held_out(2)
    assert [scene.task for scene in scenes[:4]] == ["fill", "fill"] + ["extend_prompt"] * 2
    assert len(scenes) == 10


def test_a_directory_belongs_to_one_setting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Comparison(tmp_path, Setting(steps=5), [DYNAMIC])
    with pytest.raises(RunError, match="other settings"):
        Comparison(tmp_path, Setting(steps=6), [DYNAMIC])
    with pytest.raises(ValueError, match="held_out_per_task must be 1 or more"):
        Setting(held_out_per_task=0)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    """The real starter models; every method takes at least one step."""
    methods = [DYNAMIC, "diffusion_dpo", "sft"]
    command = [sys.executable, "-m", "modeling.starter.compare", "--out", str(tmp_path)]
    command += ["--seeds", "1", "--steps", "1", "--batch-size", "4", "--methods", *methods]
    command += ["--train-per-task", "2", "--held-out-per-task", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    cells = tmp_path / "cells"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and first.poll() is None:
        if len(list(cells.glob("*.json"))) >= 2:
            break
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 2 <= len(kept) < 1 + len(methods)
    costs = (tmp_path / "costs.json").read_text()

    subprocess.run(command, env=environment, check=True, timeout=400)

    now = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert set(now) == {f"{name}-0.json" for name in ("base", *methods)}
    assert {name: now[name] for name in kept} == kept
    assert (tmp_path / "costs.json").read_text() == costs
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["n"] == 10
    assert set(found["methods"]) == {"base", *methods}
    budget = found["methods"][DYNAMIC]["flops"]
    for name, row in found["methods"].items():
        assert row["steps"] == 1 or row["flops"] <= budget, name
    assert (tmp_path / "compare.md").read_text().count("\n| ") >= 2 * len(methods)
