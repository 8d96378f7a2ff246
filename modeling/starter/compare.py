"""Compares the objectives of the policy loop on the starter world at equal compute.

    python -m modeling.starter.compare --out DIR --seeds 3

Every method starts from the shipped policy and sees the same training scenes: OneReward, ReFL and
DiffusionNFT are rewarded by the shipped reward model, Diffusion-DPO and SFT learn from simulated
annotators' labels of the base's candidates. Compute is the number of floating-point operations of
the training steps (transformer, VAE and reward VLM, forward and backward, counted by PyTorch): all
methods get what `--steps` steps of OneReward-dynamic cost. Sampling the labelled candidates and
training the reward model are not charged to anybody.

Ground truth judges held-out scenes at the same noise. Intervals: paired bootstrap over scenes and
seeds. "Worse": a one-sided randomisation test per dimension, Holm's correction over dimensions.

Cells (a method with a seed) come seed by seed, and are kept: killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from generation.diffusion.loading import PolicySpec, load_models
from modeling.policy.config import PolicyConfig
from modeling.policy.train import train
from modeling.rundir import RunError, write_json
from modeling.starter import truth
from modeling.starter.compare_compute import Cost, Kept, measure
from modeling.starter.compare_data import CANDIDATES, WEIGHTS, held_out, make_data
from modeling.starter.compare_figures import BASE, figures, table
from modeling.starter.policy_eval import answers

T = TypeVar("T")
DYNAMIC = "onereward_dynamic"
# What differs from the configuration's defaults, which are the starter's recipe. Nothing is tuned
# to this comparison, and what methods share (learning rate, LoRA, EMA) is the same for all.
METHODS: dict[str, dict[str, Any]] = {
    DYNAMIC: {"algorithm": "dynamic"},
    "onereward_frozen": {"algorithm": "frozen"},
    "refl": {"algorithm": "refl"},
    "diffusion_dpo": {"algorithm": "diffusion_dpo"},
    "sft": {"algorithm": "sft"},
    "diffusion_nft": {"algorithm": "diffusion_nft"},
}
QUIET = {"monitor": {"every": 0, "sources": 5}, "sample_every": 0, "checkpoint_every": 50}
BATCH = 40  # scenes that are evaluated together


@dataclass(frozen=True)
class Setting:
    steps: int = 200  # of OneReward-dynamic; their compute is everybody's
    train_per_task: int = 100
    held_out_per_task: int = 40
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")


class Comparison:
    def __init__(self, out: Path, setting: Setting, methods: Sequence[str]) -> None:
        self.out = out
        self.setting = setting
        self.methods = list(methods)
        for folder in ("runs", "cells"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        self._claim()
        self.data = make_data(out / "data", setting.train_per_task)
        self.scenes = held_out(setting.held_out_per_task)

    def _claim(self) -> None:
        """A directory belongs to one setting."""
        path = self.out / "setting.json"
        values = asdict(self.setting) | {"methods": {name: METHODS[name] for name in METHODS}}
        if path.is_file() and json.loads(path.read_text()) != values:
            raise RunError(
                f"'{self.out}' holds a comparison with other settings ({path}): give the same "
                "ones, or another --out."
            )
        write_json(path, values)

    def plan(self) -> dict[str, Cost]:
        """What a step of each method costs; measured once."""
        path = self.out / "costs.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        for method in dict.fromkeys([DYNAMIC, *self.methods]):
            if method not in known:
                run = self._make_run(method, 0, steps=100, name=f"cost-{method}")
                known[method] = measure(run, self._kept(method))
                write_json(path, known)
                _say(f"{method}: {known[method]['step'] / 1e9:.1f} GFLOP a step")
        return {method: Cost(**values, kept=self._kept(method)) for method, values in known.items()}

    def _kept(self, method: str) -> Kept:
        batch, sources = self.setting.batch_size, self.data.sources
        match METHODS[method]["algorithm"]:
            case "frozen":
                return Kept(batch, PolicyConfig.references_per_source * sources)
            case "refl":
                return Kept(batch, sources)
            case "diffusion_nft":
                group = METHODS[method].get("group_size", PolicyConfig.group_size)
                return Kept(batch // group, sources)
            case "diffusion_dpo":
                return Kept(2 * batch, CANDIDATES * sources)
            case "sft":
                return Kept(batch, CANDIDATES * sources)
        return Kept()

    def run(self, seeds: Sequence[int]) -> dict[str, Any]:
        costs = self.plan()
        budget = costs[DYNAMIC].of(self.setting.steps)
        for seed in seeds:
            for method in [BASE, *self.methods]:
                path = self.out / "cells" / f"{method}-{seed}.json"
                if path.is_file():
                    continue
                steps = costs[method].steps_within(budget) if method != BASE else 0
                write_json(path, self._cell(method, seed, steps))
                self.write(costs)
        return self.write(costs)

    def _cell(self, method: str, seed: int, steps: int) -> dict[str, Any]:
        adapter = ""
        if method != BASE:
            run = self._make_run(method, seed, steps=steps)
            _say(f"{method}, seed {seed}: {steps} steps")
            train(run)
            adapter = str(run / "adapter")
        scores = self._evaluate(adapter, seed)
        return {"method": method, "seed": seed, "steps": steps, "scores": scores}

    def _make_run(self, method: str, seed: int, *, steps: int, name: str = "") -> Path:
        run = self.out / "runs" / (name or f"{method}-{seed}")
        run.mkdir(exist_ok=True)
        config = {
            "policy": {"location": str(WEIGHTS / "policy")},
            "reward": {"location": str(WEIGHTS / "reward")},
            "sources": str(self.data.rows.resolve()),
            "pairs": str(self.data.pairs(seed).resolve()),
            "steps": steps,
            "seed": seed,
            "batch_size": self.setting.batch_size,
            **QUIET,
            **METHODS[method],
        }
        write_json(run / "config.json", config)
        return run

    def _evaluate(self, adapter: str, seed: int) -> list[dict[str, float]]:
        """Ground truth of every held-out scene; a seed's noise is the same for all methods."""
        models = load_models(PolicySpec(location=str(WEIGHTS / "policy"), adapter=adapter))
        scores = []
        for first in range(0, len(self.scenes), BATCH):
            part = self.scenes[first : first + BATCH]
            noise = [seed * 100_003 + first + place for place in range(len(part))]
            pictures = answers(models, part, noise)
            scores += [
                truth.score(picture, one.scene) for picture, one in zip(pictures, part, strict=True)
            ]
        return scores

    def write(self, costs: dict[str, Cost]) -> dict[str, Any]:
        """compare.json and compare.md of the seeds that every method has, or of all cells while no
        seed is whole."""
        cells: dict[str, dict[int, list[dict[str, float]]]] = {}
        steps = {}
        for path in sorted((self.out / "cells").glob("*.json")):
            cell = json.loads(path.read_text())
            cells.setdefault(cell["method"], {})[cell["seed"]] = cell["scores"]
            steps[cell["method"]] = cell["steps"]
        cells = whole_seeds(cells, [BASE, *self.methods])
        tasks = [scene.task for scene in self.scenes]
        found = figures(cells, tasks, ours=DYNAMIC)
        for method, row in found["methods"].items():
            row["steps"] = steps[method]
            row["flops"] = costs[method].of(steps[method]) if method != BASE else 0.0
        found["setting"] = asdict(self.setting)
        write_json(self.out / "compare.json", found)
        (self.out / "compare.md").write_text(table(found))
        return found


def whole_seeds(cells: dict[str, dict[int, T]], methods: Sequence[str]) -> dict[str, dict[int, T]]:
    """The cells of the seeds that all these methods have; all cells where there is no such seed."""
    seeds = set.intersection(*(set(cells.get(method, {})) for method in methods))
    if not seeds:
        return cells
    kept = {
        method: {seed: one for seed, one in by_seed.items() if seed in seeds}
        for method, by_seed in cells.items()
    }
    return {method: by_seed for method, by_seed in kept.items() if by_seed}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    for name, default in asdict(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    values = vars(parser.parse_args(arguments))
    out, seeds, methods = values.pop("out"), values.pop("seeds"), values.pop("methods")
    try:
        Comparison(out, Setting(**values), methods).run(range(seeds))
    except (RunError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((out / "compare.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
