import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modeling.policy.train import learning_rate, main, train
from modeling.rundir import RunDirectory, RunError
from tests.policy.tiny import launched, make_run, trainer

LORA = "adapter/pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("algorithm", ["frozen", "dynamic", "refl"])
def test_it_descends_on_the_rewards_gradient(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, algorithm: str
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, algorithm=algorithm)
    result = train(run)
    rows = RunDirectory(run).metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    cell = next(iter(rows[0]["tasks"]["fill"].values()))
    assert set(cell) == {"reward", "margin", "clipped", "n"}
    assert rows[0]["anchor"] == 0  # the policy starts as its parent
    assert rows[-1]["anchor"] > 0
    assert 0 < rows[0]["adapter_norm"] < rows[-1]["adapter_norm"]
    # The frozen parent's references are made once, two of each source or one for ReFL's scalar
    # score; the EMA's anew at each step.
    made = [row["references_made"] for row in rows]
    most = {"frozen": 10, "refl": 5}
    assert sum(made) <= most[algorithm] if algorithm in most else min(made) >= 1
    assert any((run / "references").iterdir()) == (algorithm in most)
    assert result["output"] == "adapter"
    card = json.loads((run / "card.json").read_text())
    assert card["config"]["algorithm"] == algorithm
    assert Image.open(run / "samples" / "step-000004.png").size == (3 * 36 * 4, 36 * 4)
    assert max(abs(value).max() for value in load_file(run / LORA).values()) > 0
    pipe = FluxFillPipeline.from_pretrained(policy_dir)
    pipe.load_lora_weights(run / "adapter")
    assert pipe.get_active_adapters() == ["default_0"]


def test_it_trains_the_child_of_a_trained_policy(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    parent = make_run(tmp_path / "parent", policy_dir, reward_dir, steps=2)
    train(parent)
    child = make_run(
        tmp_path / "child",
        policy_dir,
        reward_dir,
        steps=2,
        policy={"adapter": str(parent / "adapter")},
    )
    train(child)
    first, second = load_file(parent / LORA), load_file(child / LORA)
    assert first.keys() == second.keys()
    assert any(not first[name].equal(second[name]) for name in first)
    assert RunDirectory(child).metrics()[0]["anchor"] == 0


def test_it_trains_all_weights_when_asked(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, full_finetune=True, lr=1e-3)
    assert train(run)["output"] == "transformer"
    tuned = FluxTransformer2DModel.from_pretrained(run / "transformer")
    base = FluxTransformer2DModel.from_pretrained(policy_dir, subfolder="transformer")
    assert not tuned.proj_out.weight.equal(base.proj_out.weight)


def test_its_micro_batches_make_the_same_step(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    values: dict[str, Any] = {"steps": 1, "batch_size": 4, "lr": 1e-3, "warmup_steps": 0}
    weights = []
    for size in (0, 3):
        run = make_run(
            tmp_path / str(size), policy_dir, reward_dir, micro_batch_size=size, **values
        )
        train(run)
        weights.append(RunDirectory(run).metrics()[0])
    assert weights[0]["loss"] == pytest.approx(weights[1]["loss"], rel=1e-4)
    assert weights[0]["grad_norm"] == pytest.approx(weights[1]["grad_norm"], rel=1e-3)


def test_it_takes_every_option_of_the_objective(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(
        tmp_path / "run",
        policy_dir,
        reward_dir,
        steps=2,
        order="both",
        reward_form="probability",
        straight_through=True,
        true_cfg_scale=2.0,
        negative_prompt="dark",
        algorithm="dynamic",
        reference_staleness=2,
        monitor={"every": 1, "sources": 4},
        sample_every=1,
    )
    train(run)
    rows = RunDirectory(run).metrics()
    assert set(rows[0]["monitor"]) == {
        "drift",
        "psnr_drop",
        "roughness",
        "grid",
        "ssim_drop",
        "outside_psnr",
        "outside_ssim",
        "diversity",
        "adapter_norm",
        "reward",
    }
    assert len(list((run / "samples").iterdir())) == 2


def test_it_trains_without_the_true_cfg_that_it_watches_with(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """Left out of the training, CFG changes no weight; the pictures that are watched have it."""
    values: dict[str, Any] = {"steps": 2, "monitor": {"every": 2, "sources": 2}}
    guided = {"true_cfg_scale": 3.0, "negative_prompt": "dark"}
    runs = {}
    for name, more in (("plain", {}), ("free", {**guided, "cfg_free": True}), ("guided", guided)):
        runs[name] = make_run(tmp_path / name, policy_dir, reward_dir, **values, **more)
        train(runs[name])
    weights = {name: (run / LORA).read_bytes() for name, run in runs.items()}
    assert weights["free"] == weights["plain"] != weights["guided"]
    watched = {name: RunDirectory(run).metrics()[-1]["monitor"] for name, run in runs.items()}
    assert watched["free"]["outside_psnr"] != watched["plain"]["outside_psnr"]


def test_its_learning_rate_warms_up_and_decays(policy_dir: Path, tmp_path: Path) -> None:
    run = RunDirectory(
        make_run(tmp_path / "run", policy_dir, policy_dir, steps=100, lr=1.0, warmup_steps=10)
    )
    from modeling.policy.config import PolicyConfig

    config = run.config(PolicyConfig)
    rates = [learning_rate(config, step) for step in (1, 10, 50, 75, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_it_stops_with_a_reason_when_the_alarm_trips(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    values: dict[str, Any] = {"steps": 8, "monitor": {"every": 1, "sources": 2, "max_drift": 0.05}}
    wild = make_run(tmp_path / "wild", policy_dir, reward_dir, lr=0.5, anchor_weight=0.0, **values)
    with pytest.raises(RunError, match="games its reward"):
        train(wild)
    assert "velocity field moved" in json.loads((wild / "error.json").read_text())["message"]
    result = json.loads((wild / "result.json").read_text())
    assert result["step"] < 8
    assert "Raise anchor_weight" in result["alarm"]
    assert not (wild / "adapter").exists()

    calm = make_run(tmp_path / "calm", policy_dir, reward_dir, lr=1e-3, **values)
    assert train(calm)["alarm"] == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": {"location": "/no/such/policy"}}, "/no/such/policy"),
        ({"reward": {"location": "/no/such/reward"}}, "/no/such/reward"),
        ({"sources": "other.jsonl"}, r"other\.jsonl' does not exist"),
        ({"anchr": 1}, "Unknown configuration key 'anchr'.*Did you mean 'anchor'"),
    ],
)
def test_it_fails_with_one_readable_sentence(
    tmp_path: Path,
    policy_dir: Path,
    reward_dir: Path,
    values: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(RunError, match=message):
        train(run)
    assert main(["--run", str(tmp_path / "nowhere")]) == 1
    assert "holds no config.json" in capsys.readouterr().err
    assert json.loads((run / "error.json").read_text())["message"]


def _start(run: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            arguments, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def _steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _assert_same(killed: Path, whole: Path) -> None:
    assert (killed / LORA).read_bytes() == (whole / LORA).read_bytes()
    rows = [RunDirectory(run).metrics() for run in (killed, whole)]
    assert [row["step"] for row in rows[0]] == list(range(1, 9))
    for first, second in zip(*rows, strict=True):
        for row in (first, second):
            # What an earlier attempt had made already need not be made again.
            for key in ("seconds", "loading_seconds", "references_made"):
                row.pop(key, None)
        assert first == second


@pytest.mark.parametrize(
    "objective",
    [
        {},
        pytest.param(
            {"algorithm": "diffusion_nft", "batch_size": 4, "group_size": 2},
            marks=pytest.mark.long,
        ),
    ],
    ids=["frozen", "diffusion_nft"],
)
def test_it_goes_on_exactly_after_a_kill(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, objective: dict[str, Any]
) -> None:
    """Killed between two checkpoints, started again: the same bytes as a run left alone, also where
    the objective itself has a state (DiffusionNFT's running spread of the scores)."""
    values: dict[str, Any] = {
        **objective,
        "steps": 8,
        "checkpoint_every": 3,
        "monitor": {"every": 2, "sources": 2},
    }
    killed = make_run(tmp_path / "killed", policy_dir, reward_dir, **values)
    whole = make_run(tmp_path / "whole", policy_dir, reward_dir, **values)
    alone = _start(whole, trainer(whole))
    process = _start(killed, launched(killed))
    deadline = time.monotonic() + 200
    while _steps(killed) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= _steps(killed) < 8, (killed / "log.txt").read_text()
    assert not (killed / "adapter").exists()
    assert _start(killed, trainer(killed)).wait(timeout=200) == 0
    assert alone.wait(timeout=200) == 0
    _assert_same(killed, whole)


def test_it_repeats_steps_of_a_killed_attempt_exactly_under_algorithm_2(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    """The newest checkpoint is lost, as by a kill just before it: references that the lost steps
    made are there already, and those of the EMA grow stale in between."""
    values: dict[str, Any] = {
        "steps": 8,
        "checkpoint_every": 3,
        "algorithm": "dynamic",
        "reference_staleness": 2,
    }
    whole = make_run(tmp_path / "whole", policy_dir, reward_dir, **values)
    train(whole)
    again = make_run(tmp_path / "again", policy_dir, reward_dir, **values)
    train(again)
    shutil.rmtree(again / "adapter")
    for step in (6, 8):
        shutil.rmtree(again / "checkpoints" / f"step-{step}", ignore_errors=True)
    shutil.copytree(whole / "checkpoints" / "step-6", again / "checkpoints" / "step-6")
    train(again)
    _assert_same(again, whole)


def test_tensorboard_shows_numbers_and_pictures_once_after_a_resume(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, sample_every=1)
    train(run)
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "step-4")
    train(run)
    shown = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    for row in RunDirectory(run).metrics():
        number = row["tasks"]["fill"]["structure"]["reward"] if "fill" in row["tasks"] else None
        events = shown.Scalars("tasks/fill/structure/reward") if number is not None else []
        found = [event.value for event in events if event.step == row["step"]]
        assert found == ([] if number is None else [pytest.approx(number)])
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3, 4]
    grids = shown.Images("samples")
    assert [event.step for event in grids] == [1, 2, 3, 4]
    assert (grids[0].width, grids[0].height) == (3 * 36 * 4, 36 * 4)
