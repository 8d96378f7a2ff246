"""A tiny policy run: real classes, 32 x 32 pictures, two tasks."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.diffusion.tiny import box_mask, picture

QUERIES = {
    "structure": "Task: image fill. Is the first image better in structure? Answer Yes or No.",
    "consistency": "Task: image fill. Is the first image better joined? Answer Yes or No.",
}


def write_sources(directory: Path, count: int = 6) -> Path:
    pictures = directory / "pictures"
    pictures.mkdir(parents=True)
    box_mask().save(pictures / "mask.png")
    rows = []
    for index in range(count):
        picture(index).save(pictures / f"{index}.png")
        task = "removal" if index % 3 == 0 else "fill"
        names = ["structure"] if task == "removal" else ["structure", "consistency"]
        rows.append(
            {
                "id": f"s{index}",
                "task": task,
                "weight": 1.0 if task == "removal" else 2.0,
                "image": f"pictures/{index}.png",
                "mask": "pictures/mask.png",
                "prompt": "red" if task == "fill" else "remove",
                "split": "holdout" if index == count - 1 else "train",
                "queries": {name: QUERIES[name] for name in names},
            }
        )
    (directory / "sources.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def write_pairs(directory: Path, count: int = 6) -> None:
    """Two labelled pairs of every source but the third: a direct one and an implied one."""
    rows = []
    for index in range(count):
        if index == 2:
            continue
        task = "removal" if index % 3 == 0 else "fill"
        for relation, weight, chosen in (("direct", 1.0, 1), ("implied", 0.5, 2)):
            names = [f"pictures/pair-{index}-{place}.png" for place in (chosen, 3)]
            for place, name in zip((chosen, 3), names, strict=True):
                picture(10 * index + place).save(directory / name)
            rows.append(
                {
                    "source": f"s{index}",
                    "task": task,
                    "dimension": "structure",
                    "chosen": names[0],
                    "rejected": names[1],
                    "weight": weight,
                    "relation": relation,
                    "split": "holdout" if index == count - 1 else "train",
                }
            )
    (directory / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(directory: Path, policy_dir: Path, reward_dir: Path, **values: Any) -> Path:
    """A run directory of a few steps; `values` change its configuration."""
    write_sources(directory)
    write_pairs(directory)
    config = {
        "policy": {"location": str(policy_dir), **values.pop("policy", {})},
        "reward": {"location": str(reward_dir)},
        "steps": 4,
        "batch_size": 3,
        "lora_rank": 2,
        "num_inference_steps": 3,
        "t_range": [0.3, 1.0],
        "lr": 0.01,
        "warmup_steps": 1,
        "sample_every": 0,
        "checkpoint_every": 2,
        "monitor": {"every": 0, "sources": 2},
        **values,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def trainer(run: Path) -> list[str]:
    return [sys.executable, "-m", "modeling.policy.train", "--run", str(run)]


def launched(run: Path) -> list[str]:
    """As the platform starts it."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--num_cpu_threads_per_process", "1", "--cpu"]
    return [*launch, *trainer(run)[1:]]
