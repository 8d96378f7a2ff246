"""What keeps a run honest: held-out reward model, best check, conflicts, and options of a step."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from modeling.policy.config import PolicyConfig
from modeling.policy.monitors import Alarm
from modeling.policy.train import train
from modeling.policy.trainer import prepare
from modeling.reward.vlm import load_reward_vlm
from modeling.rundir import RunDirectory
from tests.policy.tiny import make_run

LORA = "pytorch_lora_weights.safetensors"
CHECKED: dict[str, Any] = {"monitor": {"every": 1, "sources": 2}, "lr": 1e-3}


@pytest.fixture(scope="module")
def other_judge(reward_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reward model with other weights, as one of other labels has."""
    place = tmp_path_factory.mktemp("judge") / "reward"
    shutil.copytree(reward_dir, place)
    model: Any = AutoModelForImageTextToText.from_pretrained(reward_dir)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std(unbiased=False) * torch.randn_like(parameter))
    model.save_pretrained(place)
    return place


def _checks(run: Path) -> dict[int, dict[str, float]]:
    return {row["step"]: row["monitor"] for row in RunDirectory(run).metrics() if "monitor" in row}


def test_it_gives_out_the_best_check_by_the_held_out_judge(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, other_judge: Path
) -> None:
    values = {**CHECKED, "steps": 5, "held_out": {"location": str(other_judge)}}
    values["monitor"] = {"every": 1, "sources": 2, "max_drift": 100.0, "max_reward_gap": 1.0}
    run = make_run(tmp_path / "run", policy_dir, reward_dir, **values)
    result = train(run)
    checks = _checks(run)
    for signs in checks.values():
        gap = signs["reward"] - signs["held_out_reward"]
        assert signs["reward_gap"] == pytest.approx(gap)
        assert signs["reward"] != signs["held_out_reward"]
    margins = {step: signs["ema_margin"] for step, signs in checks.items()}
    best = max(margins, key=lambda step: margins[step])
    assert result["kept_step"] == best
    kept = json.loads((run / "best.json").read_text())
    assert (kept["step"], kept["score"]) == (best, margins[best])
    weights = (run / "best" / f"step-{best}" / LORA).read_bytes()
    assert (run / "adapter" / LORA).read_bytes() == weights
    # The judge is only asked: the policy is trained as without it.
    plain = make_run(tmp_path / "plain", policy_dir, reward_dir, steps=5, lr=1e-3)
    train(plain)
    losses = [[row["loss"] for row in RunDirectory(one).metrics()] for one in (run, plain)]
    assert losses[0] == losses[1]


def test_a_check_past_a_limit_is_never_the_best(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    values = {**CHECKED, "keep": "best", "steps": 2}
    values["monitor"] = {"every": 1, "sources": 2, "max_drift": 1e-12, "stop": False}
    run = make_run(tmp_path / "run", policy_dir, reward_dir, **values)
    assert train(run)["kept_step"] == 2
    assert not (run / "best.json").exists()
    assert (run / "adapter" / LORA).is_file()


def test_a_killed_run_ends_in_the_same_best(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """The last attempt got further than its newest checkpoint and kept weights of its own."""
    values = {**CHECKED, "keep": "best", "steps": 6, "checkpoint_every": 2}
    values["monitor"] = {"every": 1, "sources": 2, "max_drift": 100.0}
    whole = make_run(tmp_path / "whole", policy_dir, reward_dir, **values)
    train(whole)
    again = make_run(tmp_path / "again", policy_dir, reward_dir, **values)
    train(again)
    shutil.rmtree(again / "adapter")
    shutil.rmtree(again / "checkpoints" / "step-6")
    train(again)
    for name in ("best.json", f"adapter/{LORA}"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert _checks(again) == _checks(whole)
    kept = {path.name for path in (again / "best").iterdir()}
    assert f"step-{json.loads((again / 'best.json').read_text())['step']}" in kept
    assert len(kept) <= 3  # the best, and those of two checkpoints


def test_it_stops_when_the_held_out_judge_disagrees(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, other_judge: Path
) -> None:
    """Of two judges, either in the other's place, one likes a changed policy more."""
    run = make_run(tmp_path / "run", policy_dir, reward_dir, **_monitor(max_reward_gap=1e-9))
    trainer = prepare(
        RunDirectory(run), RunDirectory(run).config(PolicyConfig), Accelerator(cpu=True)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.roles.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    watch, judges = trainer.watch, [trainer.vlm, load_reward_vlm(other_judge)]
    gaps, reasons = [], []
    for trains, held_out in (judges, judges[::-1]):
        watch.held_out, watch.alarm = held_out, Alarm(trainer.config.monitor)
        _, signs = watch.look(trainer.sampler, trainer.roles, trains)
        gaps.append(signs["reward_gap"])
        only = {"reward_gap": signs["reward_gap"]}
        watch.alarm.check(1, only, signs["reward"])
        reasons.append(watch.alarm.check(2, only, signs["reward"]))
    assert gaps[0] == pytest.approx(-gaps[1])
    assert abs(gaps[0]) > 1e-6
    assert [bool(reason) for reason in reasons] == [gap > 0 for gap in gaps]
    assert "held-out reward model's P(Yes) is lower" in "".join(reasons)


def test_it_measures_diversity_against_the_parents(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, steps=1, lr=1e-9, **_monitor(seeds=3))
    train(run)
    assert _checks(run)[1]["diversity"] == pytest.approx(1.0, abs=1e-3)
    one = make_run(tmp_path / "one", policy_dir, reward_dir, steps=1, **_monitor(seeds=1))
    train(one)
    assert "diversity" not in _checks(one)[1]


def _monitor(**values: Any) -> dict[str, Any]:
    return {"monitor": {"every": 1, "sources": 2, **values}}


@pytest.mark.parametrize("how", ["normalised", "pcgrad"])
def test_it_combines_the_dimensions_gradients_as_told(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, how: str
) -> None:
    values: dict[str, Any] = {"steps": 2, "batch_size": 4, "lr": 1e-3, "gradient_combination": how}
    rows = {}
    for name, more in (
        (how, values),
        ("micro", {**values, "micro_batch_size": 3}),
        ("mean", {**values, "gradient_combination": "mean", **_monitor()}),
    ):
        run = make_run(tmp_path / name, policy_dir, reward_dir, **more)
        train(run)
        rows[name] = RunDirectory(run).metrics()[0]
    assert 0 <= rows[how]["conflict_rate"] <= 1
    assert rows["mean"]["conflict_rate"] == rows[how]["conflict_rate"]
    assert rows["mean"]["loss"] == rows[how]["loss"]
    # Without a conflict there is nothing to project out.
    same = rows["mean"]["grad_norm"] == pytest.approx(rows[how]["grad_norm"], rel=1e-5)
    assert same == (how == "pcgrad" and rows[how]["conflict_rate"] == 0)
    assert rows["micro"]["grad_norm"] == pytest.approx(rows[how]["grad_norm"], rel=1e-3)


def test_it_keeps_what_the_judge_has_read_of_a_reference(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """The reference first, from kept prefixes or read each time: the same losses."""
    losses = []
    for megabytes in (0, 100):
        run = make_run(
            tmp_path / str(megabytes),
            policy_dir,
            reward_dir,
            order="reference_first",
            prefix_cache_mb=megabytes,
            references_per_source=1,
            lr=1e-3,
        )
        train(run)
        losses.append([row["loss"] for row in RunDirectory(run).metrics()])
    assert losses[0] == losses[1]


def test_its_options_for_memory_change_no_bit(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"recompute_endpoint": True},
        {"preload": False},
        {"condition_cache": str(tmp_path / "cache")},
        {"condition_cache": str(tmp_path / "cache"), "source_memory_mb": 1},
    ]
    found = []
    for number, values in enumerate(options):
        run = make_run(tmp_path / str(number), policy_dir, reward_dir, lr=1e-3, **values)
        train(run)
        found.append((run / "adapter" / LORA).read_bytes())
        assert all(row["loading_seconds"] >= 0 for row in RunDirectory(run).metrics())
    assert len(set(found)) == 1
    assert any((tmp_path / "cache").glob("??/*.safetensors"))


def test_it_trains_on_pictures_of_several_sizes_in_parts(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """Each batch has one size; whole or in micro-batches of uneven sizes it is the same step."""
    values: dict[str, Any] = {"steps": 4, "batch_size": 5, "lr": 1e-3, "max_pixels": 4096}
    values["resolutions"] = [[0.5, 1024]]
    rows, sizes = [], []
    for size in (0, 2):
        run = make_run(
            tmp_path / str(size), policy_dir, reward_dir, micro_batch_size=size, **values
        )
        for path in (run / "pictures").glob("[135].png"):
            Image.open(path).resize((64, 48)).save(path.with_name(f"wide-{path.name}"))
        mask = Image.open(run / "pictures" / "mask.png")
        mask.resize((64, 48)).save(run / "pictures" / "wide-mask.png")
        lines = []
        for number, line in enumerate((run / "sources.jsonl").read_text().splitlines()):
            if number % 2:
                line = line.replace("pictures/", "pictures/wide-")
            lines.append(line + "\n")
        (run / "sources.jsonl").write_text("".join(lines))
        train(run)
        rows.append(RunDirectory(run).metrics())
        sizes.append(
            {
                tuple(load_file(path)["images"].shape[2:])
                for path in (run / "references").glob("*.safetensors")
            }
        )
    for whole, parts in zip(*rows, strict=True):
        assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-3)
        assert whole["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-2)
    # Small ones in the first half, where 64 x 48 becomes 36 x 27 and then a multiple of 8.
    assert sizes[0] == sizes[1]
    assert sizes[0] & {(24, 32)}
    assert sizes[0] <= {(24, 32), (32, 32), (48, 64)}
