"""One process and two: the same losses for the same batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from safetensors.torch import load_file
from torch.testing import assert_close

from modeling.rundir import RunDirectory
from tests import machines
from tests.reward.sharded import BLOCKS
from tests.reward.test_failures import new_run
from tests.reward.tiny import save_tiny
from tests.reward.worlds import snapshot

MODULE = "modeling.reward.train"
CONFIGURATIONS = sorted(machines.TWO_PROCESSES.parent.glob("*.yaml"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("labels"), sources=12, holdout=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), True)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_two_processes_train_as_one(tmp_path: Path, labels: Path, base: Path, output: str) -> None:
    """Batches of three pairs, so that the two have unequal parts; some end with a single pair."""
    values: dict[str, Any] = {"batch_size": 3, "calibration_share": 0.2, "output": output}
    one = new_run(tmp_path / "one", labels, base, **values)
    two = new_run(tmp_path / "two", labels, base, **values)
    assert machines.start(MODULE, one).wait(200) == 0
    assert machines.start_two(MODULE, two).wait(200) == 0, (two / "log.txt").read_text()
    rows = [RunDirectory(run).metrics() for run in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 8  # six steps, before and after
    for first, second in zip(*rows, strict=True):
        for key in set(first) - {"seconds"}:
            assert first[key] == pytest.approx(second[key], rel=1e-4), (first["step"], key)
    name = "adapter/adapter_model.safetensors" if output == "lora" else "model/model.safetensors"
    # Adam divides by the root of tiny second moments, which makes rounding visible.
    assert_close(load_file(one / name), load_file(two / name), rtol=1e-3, atol=1e-4)
    figures = [json.loads((run / "result.json").read_text()) for run in (one, two)]
    assert figures[0]["overall"] == figures[1]["overall"]


@pytest.mark.long
def test_two_processes_leave_one_reason_and_go_on(tmp_path: Path, labels: Path, base: Path) -> None:
    run = new_run(tmp_path / "run", labels, base, min_pairs=10_000)
    assert machines.start_two(MODULE, run).wait(200) != 0
    assert (
        "at least 10000 labelled pairs" in json.loads((run / "error.json").read_text())["message"]
    )
    config = json.loads((run / "config.json").read_text()) | {"min_pairs": 2}
    (run / "config.json").write_text(json.dumps(config))
    assert machines.start_two(MODULE, run).wait(200) == 0
    assert not (run / "error.json").exists()
    assert os.listdir(run / "checkpoints") != []


@pytest.mark.slow
def test_divided_weights_take_the_same_steps(tmp_path: Path, labels: Path, base: Path) -> None:
    """What FSDP2 does with the trainer's module: forward, backward, and checkpoints whole."""
    single = [sys.executable, "-m", "tests.reward.sharded", str(base), str(labels)]
    divided = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, command in (("one", single), ("two", [*divided, *single[1:]])):
        done = subprocess.run(
            [*command, str(tmp_path / name)],
            cwd=machines.ROOT,
            env=machines.ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    for step in ("step-0", "step-1"):
        weights = [
            load_file(tmp_path / name / step / "weights.safetensors") for name in ("one", "two")
        ]
        assert len(weights[0]) > 50
        assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "path", sorted(machines.TWO_PROCESSES.parent.glob("*.yaml")), ids=lambda p: p.stem
)
def test_its_configurations_are_accelerates_own(path: Path) -> None:
    found = load_config_from_file(str(path))
    assert isinstance(found, ClusterConfig)
    assert found.num_machines == 1
    if path.stem.startswith("fsdp2"):
        assert found.distributed_type == DistributedType.FSDP
        plugin = fsdp_plugin(found.fsdp_config)
        assert plugin.fsdp_version == 2
        wrapped = set(plugin.transformer_cls_names_to_wrap or [])
        assert wrapped == {"Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"}
        # Both are names of the architecture's own modules.
        assert wrapped == set(BLOCKS)


def fsdp_plugin(values: dict[str, Any]) -> FullyShardedDataParallelPlugin:
    """As the launcher hands them to the trainer: through the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            name = key.upper().replace(
                "FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP"
            )
            patch.setenv(name, str(value))
        return FullyShardedDataParallelPlugin()
