from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from modeling.reward.data import Pictures, Snapshot, pairs_of
from modeling.reward.evaluate import compare, evaluate, main, outcomes, read_outcomes
from modeling.reward.rerank import rerank
from modeling.reward.train import train
from modeling.reward.vlm import load_reward_vlm
from modeling.rundir import RunDirectory, RunError
from tests import machines
from tests.reward.tiny import save_tiny
from tests.reward.worlds import rows_of, snapshot, store, tie, write, write_ties


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"), sources=24, holdout=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), True)


def new_run(directory: Path, labels: Path, base: Path, **config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    values = {"snapshot": str(labels), "base": str(base), "batch_size": 8, "lr": 3e-3, **config}
    (directory / "config.json").write_text(json.dumps(values))
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labels: Path, base: Path) -> Path:
    run = new_run(tmp_path_factory.mktemp("run"), labels, base, output="full", steps=50)
    train(run)
    return run


def test_it_learns_the_labels_and_says_how_well(trained: Path, labels: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["overall"]["accuracy"] >= 0.9 > result["before"]["overall"]["accuracy"]
    assert result["reward_accuracy"]["fill"]["structure"]["n"] == 8
    assert result["prompt_swap_accuracy"] >= 0.9
    assert [row[:2] for row in result["untested"]] == [
        ["fill", "structure"],
        ["fill", "text_alignment"],
    ]
    assert result["excluded"] == []
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in metrics if "loss" in row]
    assert steps == list(range(1, 51))
    assert metrics[0]["eval_accuracy"] < metrics[-1]["eval_accuracy"]
    card = json.loads((trained / "model" / "card.json").read_text())
    assert card["snapshot"] == "ab" * 32
    shown = (trained / "model" / "README.md").read_text()
    assert ModelCard(shown).data.to_dict()["pipeline_tag"] == "image-text-to-text"
    share = 100 * result["reward_accuracy"]["fill"]["structure"]["accuracy"]
    assert f"| fill × structure | {share:.1f} |" in shown
    assert f"{result['pairs']['train']} train questions" in shown
    assert str(trained.parent) not in shown
    assert json.loads((trained / "progress.json").read_text())["message"] == "done"


def test_it_scores_after_loading_as_the_training_said(
    trained: Path, labels: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, found = evaluate(labels, trained / "model")
    result = json.loads((trained / "result.json").read_text())
    assert report["overall"] == result["overall"]
    assert report["calibration"]["temperature"] == result["calibration"]["temperature"]
    stored = read_outcomes(trained / "holdout.jsonl")
    assert [o.key for o in found] == [o.key for o in stored]
    before = read_outcomes(trained / "holdout_before.jsonl")
    assert compare(before, found)["overall"]["difference"] > 0
    target = tmp_path / "figures.json"
    places = ["--snapshot", str(labels), "--base", str(trained / "model"), "--json", str(target)]
    assert main([*places, "--device", "cpu"]) == 0
    assert json.loads(target.read_text())["overall"] == result["overall"]
    assert "text_alignment swap" in capsys.readouterr().out
    assert main(["--snapshot", str(tmp_path), "--base", str(base)]) == 1


def test_it_negates_the_margin_when_the_pictures_are_swapped(trained: Path, labels: Path) -> None:
    vlm = load_reward_vlm(trained / "model")
    data = Snapshot(labels)
    pairs = [p for p in pairs_of(data, "holdout") if p.questions[0].dimension == "structure"][:6]
    pictures = Pictures(data, vlm.view)
    swapped = [
        type(p)(p.key, p.task, p.source, p.second, p.first, p.questions, p.size) for p in pairs
    ]
    forward, backward = outcomes(vlm, pairs, pictures), outcomes(vlm, swapped, pictures)
    for one, other in zip(forward, backward, strict=True):
        assert one.score == pytest.approx(-other.score, abs=1e-5)


def test_it_orders_pictures(trained: Path, labels: Path) -> None:
    vlm = load_reward_vlm(trained / "model")
    levels = torch.tensor([0.5, 0.9, 0.1])
    views = levels[:, None, None, None].expand(3, 3, 32, 32)
    query = Snapshot(labels).query("fill", "structure", None)
    found = rerank(vlm, views, [query])
    assert found.order == [1, 0, 2]
    assert found.scores.shape == (3, 1)
    assert found.scores.sum().item() == pytest.approx(0, abs=1e-5)


def start(run: Path) -> subprocess.Popen[bytes]:
    return machines.start("modeling.reward.train", run)


def last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    steps = [
        json.loads(line)["step"] for line in text.splitlines(keepends=True) if line[-1] == "\n"
    ]
    return max(steps, default=0)


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits: metrics but for the time they took, weights, optimiser."""
    rows = [RunDirectory(run).metrics() for run in (one, other)]
    for first, second in zip(*rows, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    (output,) = (path.relative_to(one) for path in one.glob("*/*model.safetensors"))
    for name in (output, Path("checkpoints/step-14/weights.safetensors")):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    states = [
        torch.load(run / "checkpoints/step-14/state.pt", weights_only=True) for run in (one, other)
    ]
    first, second = (state["optimizer"] for state in states)
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)
    # A loaded group holds lists for tuples, and names in its own order.
    groups = [
        [json.dumps({**group, "params": sorted(group["params"])}) for group in one["param_groups"]]
        for one in (first, second)
    ]
    assert groups[0] == groups[1]
    figures = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for key in ("overall", "calibration", "prompt_swap"):
        assert figures[0][key] == figures[1][key]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_it_goes_on_exactly_after_kills_at_any_step(
    tmp_path: Path, labels: Path, base: Path, output: str
) -> None:
    """Killed three times at steps drawn at random, at checkpoints and between them; low-rank maps
    with dropout, so that random numbers matter too."""
    settings: dict[str, Any] = {"steps": 14, "checkpoint_every": 3, "evaluate_every": 5}
    settings |= {"lora_rank": 4, "lora_dropout": 0.1, "output": output}
    whole = new_run(tmp_path / "whole", labels, base, **settings)
    broken = new_run(tmp_path / "broken", labels, base, **settings)
    for step in sorted(random.Random(output).sample(range(1, 14), 3)):
        process = start(broken)
        while last_step(broken) < step:
            assert process.poll() is None, (broken / "log.txt").read_text()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (broken / "result.json").exists()
    assert start(broken).wait() == 0
    assert start(whole).wait() == 0
    assert len(list((broken / "checkpoints").iterdir())) == 2
    assert_same_run(whole, broken)


def test_it_goes_on_from_an_earlier_adapter(
    tmp_path: Path, trained: Path, labels: Path, base: Path
) -> None:
    first = new_run(tmp_path / "first", labels, base, steps=2, lora_rank=4)
    adapter = train(first)["output"]["adapter"]
    second = new_run(tmp_path / "second", labels, base, steps=2, adapter=adapter)
    result = train(second)
    assert result["before"]["overall"] == json.loads((first / "result.json").read_text())["overall"]
    merged = new_run(tmp_path / "merged", labels, base, steps=2, adapter=adapter, output="full")
    output = train(merged)["output"]
    assert output["adapter"] == ""
    assert evaluate(labels, output["location"])[0]["overall"]["n"] == 16


def test_it_refuses_too_few_labels(tmp_path: Path, labels: Path, base: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "images").symlink_to(labels / "images")
    write(few, [r for r in rows_of(labels) if r["set"] in ("set-0", "set-9")])
    run = new_run(tmp_path / "run", few, base)
    with pytest.raises(RunError, match="at least 16 labelled pairs; the snapshot has 6"):
        train(run)
    message = json.loads((run / "error.json").read_text())["message"]
    assert message.endswith("Label more sets.")
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "error.json", "lock"]


def test_it_refuses_a_missing_checkpoint(tmp_path: Path, labels: Path, base: Path) -> None:
    run = new_run(tmp_path / "run", labels, tmp_path / "nowhere")
    with pytest.raises(RunError, match="There is no reward model at '.*nowhere'"):
        train(run)
    run = new_run(tmp_path / "other", labels, base, adapter=str(tmp_path))
    with pytest.raises(RunError, match="There is no LoRA at"):
        train(run)
    (tmp_path / "empty").mkdir()
    run = new_run(tmp_path / "third", labels, tmp_path / "empty")
    with pytest.raises(RunError, match="has no config.json"):
        train(run)


def test_it_trains_without_a_holdout_and_with_checkpointed_activations(
    tmp_path: Path, labels: Path, base: Path
) -> None:
    rest = tmp_path / "rest"
    rest.mkdir()
    (rest / "images").symlink_to(labels / "images")
    write(rest, [r for r in rows_of(labels) if r["split"] == "train"])
    runs = [
        new_run(tmp_path / name, rest, base, steps=2, lora_rank=4, gradient_checkpointing=value)
        for name, value in (("plain", False), ("checkpointed", True))
    ]
    results = [train(run) for run in runs]
    assert results[0]["overall"] == {"accuracy": None, "low": 0.0, "high": 1.0, "n": 0}
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in runs
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("ties", ["trained", "fixed"])
def test_it_learns_from_what_people_found_equal(
    tmp_path: Path, labels: Path, base: Path, ties: str
) -> None:
    """Pictures of one brightness in every set: nobody found a difference between them."""
    place = tmp_path / "ties"
    place.mkdir()
    shutil.copytree(labels / "images", place / "images")
    rows = [row for row in rows_of(labels) if row["dimension"] == "structure"]
    rng = np.random.default_rng(0)
    equal = []
    for row in rows:
        if row["relation"] == "direct":
            level = int(rng.choice([40, 128, 220]))
            noise = rng.integers(-10, 11, (2, 32, 32, 3))
            one, other = (store(place, (level + part).astype(np.uint8)) for part in noise)
            equal.append(tie(row, one, other))
    write(place, rows)
    write_ties(place, equal)
    run = new_run(
        tmp_path / "run", place, base, output="full", steps=40, ties=ties, tie_strength=0.7
    )
    result = train(run)
    found = result["ties"]
    assert (found["n_tied"], found["n_decided"]) == (8, 8)
    assert result["before"]["ties"]["auc"] < 0.95 <= found["auc"]
    assert found["probability_tied"] > 3 * found["probability_decided"]
    assert (found["strength"] == pytest.approx(0.7)) == (ties == "fixed")
    assert result["overall"]["accuracy"] >= 0.9
    rows = [row for row in RunDirectory(run).metrics() if "loss" in row]
    assert all(row["tie_strength"] > 0 for row in rows)
    off = train(new_run(tmp_path / "off", place, base, output="full", steps=2))
    assert off["ties"]["strength"] is None
    assert off["pairs"]["train"] < result["pairs"]["train"]


def test_it_learns_from_one_order_drawn_at_random(tmp_path: Path, labels: Path, base: Path) -> None:
    run = new_run(tmp_path / "run", labels, base, output="full", steps=50, order="random")
    result = train(run)
    assert result["overall"]["accuracy"] >= 0.9 > result["before"]["overall"]["accuracy"]
