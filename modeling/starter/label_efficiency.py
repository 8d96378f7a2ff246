"""How many labels a reward model needs when candidates are drawn adaptively, on the starter world.

    python -m modeling.starter.label_efficiency --out DIR [--seeds 5] [--rounds 4] [--sets 60]

Two arms draw sets for the same scenes: "uniform" from the starter project's sampling plan as it is,
"adaptive" from its values weighted by `generation.bandit` on the labels so far, where a label is
informative when a best and a worst were picked and the arm's latest reward model did not tell the
two apart. Simulated annotators judge them with slips; after every round a reward model is trained
from the shipped base on all labels of its arm. The first round is the same for both.

Held-out sets are drawn uniformly and judged without slips, the same ones for all; accuracy is that
on their best/worst and implied pairs. Intervals: a bootstrap over seeds and held-out sources at
once. Labels to reach an accuracy are read off the mean curve between two rounds; draws in which a
curve never reaches it are counted, and take no part in the interval.

Cells (seed, arm, round) are kept: killed, the same command goes on. Writes table.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from generation.bandit import CLOSE, PARAMETERS, Evidence, learnt_weights, one_of
from generation.diffusion.generate import Draw, Generator, Request
from generation.diffusion.loading import PolicySpec, load_models
from modeling.reward.data import Pictures, Snapshot, pairs_of
from modeling.reward.evaluate import outcomes
from modeling.reward.train import train
from modeling.reward.vlm import load_reward_vlm
from modeling.rundir import RunError, write_json
from modeling.starter import ablations, truth, world
from modeling.starter.ablations import SET_SIZE, SLIPS, WEIGHTS, Cell
from modeling.starter.annotators import best_worst
from modeling.starter.reward_data import TASK_SHARE, TIE
from modeling.starter.taxonomy import DIMENSIONS, SAMPLING_PLAN, TASKS

UNIFORM, ADAPTIVE = ARMS = ("uniform", "adaptive")
SCENES, SAMPLES, ANSWERS, HELD_OUT = 81, 82, 83, 84  # seeds of what is drawn
RESAMPLES = 2000
Weights = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Plan:
    sets: int = 60  # a round
    rounds: int = 4
    held_out_sets: int = 90
    steps: int = 32  # of each reward training
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")


# --- sets and their labels ---


def judged_sets(
    directory: Path, *, seed: Sequence[int], count: int, weights: Weights, split: str, slips: float
) -> Path:
    """A snapshot of sets that the shipped policy made, with what was drawn and said beside it."""
    if (directory / "card.json").is_file():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    scenes_rng = np.random.default_rng([SCENES, *seed])
    tasks = scenes_rng.choice(list(TASK_SHARE), count, p=list(TASK_SHARE.values()))
    examples = [world.example_of(world.sample_scene(scenes_rng, str(task))) for task in tasks]
    rng = np.random.default_rng([SAMPLES, *seed])
    draws = [[_draw(weights, rng) for _ in range(SET_SIZE)] for _ in examples]
    pictures = _pictures(examples, draws)
    answers = np.random.default_rng([ANSWERS, *seed])
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for number, (example, made) in enumerate(zip(examples, pictures, strict=True)):
        name = "-".join(map(str, [split, *seed, number]))
        shown = [ablations.store(directory, picture) for picture in made]
        shared = {
            "set": name,
            "task": example.task,
            "prompt": example.prompt,
            "source": ablations.store(directory, example.image),
            "mask": ablations.store(directory, example.mask),
            "split": split,
            "annotator": "simulated",
        }
        scores = [truth.score(picture, example.scene) for picture in made]
        for dimension in scores[0]:
            values = [score[dimension] for score in scores]
            found = best_worst(values, answers, noise=slips, tie=TIE)
            said.append({"set": name, "dimension": dimension, "picked": found})
            if found is not None:
                judged = {**shared, "dimension": dimension}
                rows += ablations.preferred(judged, shown, *found)
    drawn = {
        row["set"]: [asdict(draw) for draw in draws[number]]
        for number, row in enumerate({one["set"]: one for one in said}.values())
    }
    pq.write_table(pa.Table.from_pylist(rows), directory / "preferences.parquet")
    write_json(directory / "said.json", {"said": said, "drawn": drawn})
    card = {
        "schema_version": 2,
        "content_hash": f"{split}-{'-'.join(map(str, seed))}",
        "taxonomy": {"tasks": TASKS, "dimensions": DIMENSIONS},
    }
    write_json(directory / "card.json", card)
    return directory


def _draw(weights: Weights, rng: np.random.Generator) -> Draw:
    seed = int(rng.integers(2**31))
    drawn = {
        field: one_of(SAMPLING_PLAN[name], weights.get(name), rng)
        for name, field in PARAMETERS.items()
    }
    return Draw(seed=seed, **drawn)


def _pictures(
    examples: Sequence[world.Example], draws: Sequence[Sequence[Draw]]
) -> list[list[NDArray[np.uint8]]]:
    """Of every example a picture per draw, with the source's own pixels outside the mask."""
    generator = Generator(load_models(PolicySpec(location=str(WEIGHTS / "policy"))), 32)
    requests = [
        Request(
            Image.fromarray(example.image),
            Image.fromarray(example.mask),
            example.prompt,
            draw,
            key=str(number),
        )
        for number, (example, own) in enumerate(zip(examples, draws, strict=True))
        for draw in own
    ]
    made = iter(generator.generate(requests))
    return [
        [np.where(example.mask[..., None] > 0, np.asarray(next(made)), example.image) for _ in own]
        for example, own in zip(examples, draws, strict=True)
    ]


def evidence_of(rounds: Sequence[Path], known: frozenset[tuple[str, str]]) -> Evidence:
    """What the labels of these rounds say; `known`: sets and dimensions the model tells apart."""
    found = Evidence()
    for directory in rounds:
        kept = json.loads((directory / "said.json").read_text())
        for name, draws in kept["drawn"].items():
            labels = [one for one in kept["said"] if one["set"] == name]
            took_part = [
                index
                for one in labels
                if one["picked"] and (name, one["dimension"]) not in known
                for index in one["picked"]
            ]
            found.sets += 1
            for index, drawn in enumerate(draws):
                for parameter, field in PARAMETERS.items():
                    found.add(parameter, drawn[field], took_part.count(index) / len(labels))
    return found


def told_apart(labels: Path, run: Path) -> frozenset[tuple[str, str]]:
    """Sets and dimensions whose best and worst the trained model is sure about."""
    vlm = load_reward_vlm(WEIGHTS / "reward", adapter=run / "adapter")
    snapshot = Snapshot(labels)
    found = outcomes(vlm, pairs_of(snapshot, "train"), Pictures(snapshot, vlm.view))
    return frozenset(
        (one.key.partition(":")[0], one.dimension)
        for one in found
        if one.relation == "direct" and abs(one.score) >= CLOSE
    )


# --- cells ---


class Study:
    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        out.mkdir(parents=True, exist_ok=True)
        path, values = out / "setting.json", asdict(plan)
        if path.is_file() and json.loads(path.read_text()) != values:
            raise RunError(
                f"'{out}' holds a study with other settings ({path}): give the same ones, or "
                "another --out."
            )
        write_json(path, values)

    def run(self, seeds: int) -> dict[str, list[list[Cell]]]:
        """By arm, of every seed a cell a round."""
        cells: dict[str, list[list[Cell]]] = {arm: [] for arm in ARMS}
        for seed in range(seeds):
            for arm in ARMS:
                cells[arm].append(self._course(arm, seed))
            (self.out / "table.md").write_text(table(cells, self.plan))
            print(f"seed {seed} is done", flush=True)
        return cells

    def _course(self, arm: str, seed: int) -> list[Cell]:
        held_out = judged_sets(
            self.out / "held-out",
            seed=[HELD_OUT],
            count=self.plan.held_out_sets,
            weights={},
            split="holdout",
            slips=0.0,
        )
        rounds: list[Path] = []
        cells: list[Cell] = []
        weights: Weights = {}
        for number in range(self.plan.rounds):
            # Before anything is learnt the arms are one.
            name = f"{arm if number else UNIFORM}-{seed}-{number}"
            made = judged_sets(
                self.out / "sets" / name,
                seed=[seed, number],
                count=self.plan.sets,
                weights=weights,
                split="train",
                slips=SLIPS,
            )
            rounds.append(made)
            labels = self._together(name, [*rounds, held_out])
            run = self._train(name, labels, seed)
            cells.append(Cell.read(run))
            if arm == ADAPTIVE and number + 1 < self.plan.rounds:
                evidence = evidence_of(rounds, told_apart(labels, run))
                weights = learnt_weights(SAMPLING_PLAN, evidence)
                write_json(run / "weights.json", weights)
        return cells

    def _together(self, name: str, parts: Sequence[Path]) -> Path:
        directory = self.out / "labels" / name
        if not (directory / "card.json").is_file():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            first, *others = parts
            shutil.copytree(first / "images", directory / "images")
            shutil.copy(first / "preferences.parquet", directory)
            for other in others:
                ablations.append(directory, other)
            card = json.loads((first / "card.json").read_text())
            write_json(directory / "card.json", {**card, "content_hash": name})
        return directory

    def _train(self, name: str, labels: Path, seed: int) -> Path:
        run = self.out / "cells" / name
        run.mkdir(parents=True, exist_ok=True)
        size = ablations.Plan(steps=self.plan.steps, batch_size=self.plan.batch_size)
        write_json(run / "config.json", ablations.config_of(size, {}, labels, seed))
        known = self.out / "before.json"  # what the base says of the held-out sets
        if known.is_file():
            shutil.copy(known, run / "before.json")
        train(run)
        shutil.copy(run / "before.json", known)
        return run


# --- figures ---


def curves(
    courses: Sequence[Sequence[Mapping[str, float]]], draw: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Accuracy by round; with a generator that of a bootstrap draw of seeds and sources."""
    keys = sorted(courses[0][0])
    right = np.array([[[cell[key] for key in keys] for cell in course] for course in courses])
    sources, of = np.unique([key.partition(":")[0] for key in keys], return_inverse=True)
    taken = np.ones(len(sources), dtype=np.int64)
    if draw is not None:
        right = right[draw.integers(len(right), size=len(right))]
        taken = np.bincount(draw.integers(len(sources), size=len(sources)), minlength=len(sources))
    each = taken[of]
    accuracy: NDArray[np.float64] = (right.mean(axis=0) * each).sum(axis=1) / each.sum()
    return accuracy


def sets_to_reach(accuracy: float, curve: Sequence[float], sets: int) -> float:
    """Labelled sets at which the curve first has this accuracy; NaN where it never has."""
    for number, value in enumerate(curve):
        if value >= accuracy:
            if number == 0:
                return float(sets)
            before = curve[number - 1]
            return float(sets * (number + (accuracy - before) / (value - before)))
    return float("nan")


def table(cells: Mapping[str, Sequence[Sequence[Cell]]], plan: Plan) -> str:
    pairs = {arm: [[cell.pairs for cell in one] for one in rows] for arm, rows in cells.items()}
    lines = ["| labelled sets | uniform % | adaptive % | difference, points (95 %) |"]
    lines.append("|---|---|---|---|")
    for number in range(plan.rounds):
        uniform, adaptive = ([course[number] for course in pairs[arm]] for arm in ARMS)
        mean, low, high = ablations.difference(uniform, adaptive)
        shown = [f"{100 * float(curves(pairs[arm])[number]):.1f}" for arm in ARMS]
        shown.append(f"{mean:+.1f} ({low:+.1f} … {high:+.1f})")
        lines.append(f"| {plan.sets * (number + 1)} | {' | '.join(shown)} |")
    target = float(curves(pairs[UNIFORM])[-1])
    lines += [
        "",
        f"Sets to reach {100 * target:.1f} %, what uniform draws have after all rounds "
        f"({len(pairs[UNIFORM])} seeds):",
        "",
    ]
    rng = np.random.default_rng(0)
    for arm in ARMS:
        found = sets_to_reach(target, [float(v) for v in curves(pairs[arm])], plan.sets)
        drawn = np.array(
            [
                sets_to_reach(target, [float(v) for v in curves(pairs[arm], rng)], plan.sets)
                for _ in range(RESAMPLES)
            ]
        )
        reached = drawn[~np.isnan(drawn)]
        low, high = np.quantile(reached, [0.025, 0.975]) if len(reached) else (np.nan, np.nan)
        said = "not reached" if np.isnan(found) else f"{found:.0f}"
        lines.append(
            f"- {arm}: {said} ({low:.0f} … {high:.0f}; reached in "
            f"{100 * len(reached) / RESAMPLES:.0f} % of the draws)"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--sets", type=int, default=Plan.sets, help="a round")
    parser.add_argument("--held-out-sets", type=int, default=Plan.held_out_sets)
    parser.add_argument("--steps", type=int, default=Plan.steps, help="of each reward training")
    given = parser.parse_args(arguments)
    try:
        plan = Plan(given.sets, given.rounds, given.held_out_sets, given.steps)
        study = Study(given.out, plan)
    except (ValueError, RunError) as error:
        parser.error(str(error))
    print(table(study.run(given.seeds), plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
