"""The alarm on the starter models: without the anchor it must trip, with it it must not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modeling.policy.train import train
from modeling.reward.query import render_query
from modeling.rundir import RunDirectory, RunError
from modeling.starter import world
from modeling.starter.taxonomy import DIMENSIONS, TASKS

WEIGHTS = Path(world.__file__).parent / "weights"


def _write_run(directory: Path, **values: Any) -> Path:
    directory.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index in range(40):
        task = world.TASKS[index % len(world.TASKS)]
        example = world.sample_example(rng, task)
        Image.fromarray(example.image).save(directory / f"{index}.png")
        Image.fromarray(example.mask).save(directory / f"{index}-mask.png")
        queries = {
            name: render_query(
                task=TASKS[task]["wording"],
                question=DIMENSIONS[name]["query"],
                prompt=example.prompt if DIMENSIONS[name]["uses_prompt"] else None,
            )
            for name in world.DIMENSIONS[task]
        }
        row = {
            "id": str(index),
            "task": task,
            "weight": TASKS[task]["weight"],
            "image": f"{index}.png",
            "mask": f"{index}-mask.png",
            "prompt": example.prompt,
            "split": "holdout" if index < 10 else "train",
            "queries": queries,
        }
        rows.append(json.dumps(row) + "\n")
    (directory / "sources.jsonl").write_text("".join(rows))
    config = {
        "policy": {"location": str(WEIGHTS / "policy")},
        "reward": {"location": str(WEIGHTS / "reward")},
        "batch_size": 6,
        "warmup_steps": 2,
        "num_inference_steps": 4,
        "references_per_source": 1,
        "reference_best_of": 1,
        "sample_every": 0,
        **values,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.slow
def test_a_run_without_the_anchor_trips_the_alarm_and_the_same_run_with_it_does_not(
    tmp_path: Path,
) -> None:
    values: dict[str, Any] = {"steps": 15, "lr": 3e-3, "monitor": {"every": 3, "sources": 5}}
    wild = _write_run(tmp_path / "wild", anchor_weight=0.0, tone_weight=0.0, **values)
    with pytest.raises(RunError, match="games its reward"):
        train(wild)
    stopped = json.loads((wild / "result.json").read_text())
    assert stopped["alarm"] == json.loads((wild / "error.json").read_text())["message"]
    checks = [row["monitor"] for row in RunDirectory(wild).metrics() if "monitor" in row]
    # The reward alone would have called it an improvement.
    assert checks[-1]["reward"] > checks[0]["reward"] > 0.5

    calm = _write_run(tmp_path / "calm", anchor_weight=30.0, **values)
    assert train(calm)["alarm"] == ""
