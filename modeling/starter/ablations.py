"""What each choice of the reward training is worth on the starter world, with intervals.

    python -m modeling.starter.ablations --out DIR [--seeds 3] [--settings default,ties ...]

A policy's own samples are judged as in the loop: sets of four, best and worst or "no difference" by
an annotator who slips now and then (`annotators.best_worst`), every setting trained from the
shipped reward base on the same labels and for the same number of steps. The held-out sets are
judged by ground truth without slips, the same ones for every setting and seed. A seed draws the
candidates of every labelled set, the slips, the initial LoRA and the batches.

A difference to the default is taken question by question and seed by seed; its interval is a
bootstrap over held-out sources and over seeds at once. Each cell is a run directory of its own and
is resumed or left alone when the command is given again. Writes table.md and cells.json.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from modeling.reward.evaluate import Outcome, read_outcomes, swap_results
from modeling.reward.train import train
from modeling.starter.annotators import best_worst
from modeling.starter.reward_data import DIMENSIONS, TIE, Groups
from modeling.starter.reward_rollouts import OWN, policy_groups
from modeling.starter.taxonomy import DIMENSIONS as DIMENSION_ROWS
from modeling.starter.taxonomy import TASKS

WEIGHTS = Path(__file__).parent / "weights"
SET_SIZE = 4
SLIPS = 0.1
RESAMPLES = 2000
# Seeds of the sources and of the samples made of them.
TRAINING, HELD_OUT = (71, 0), (72,)
DEFAULT = "default"

# What differs from the default in each setting. `view` is laid over the base's own. Compositing is
# not among them: `policy_groups` gives the samples the source's own pixels outside the mask.
SETTINGS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "one random order": {"order": "random"},
    "one random order, twice the steps": {"order": "random", "steps": 2.0},
    "ties as a third answer": {"ties": "trained"},
    "no fading outside": {"view": {"fade_outside": 0.0}},
    "no zoom": {"view": {"zoom": 0.0}},
    "source as a third picture": {"view": {"context": 100.0}},
    "no implied relations": {"implied_weight": 0.0},
    "no prompt swaps": {"swap_share": 0.0},
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the whole study."""

    training_sets: int = 120
    held_out_sets: int = 90
    steps: int = 32
    batch_size: int = 8
    seeds: int = 3


# --- labels ---


def write_labels(
    directory: Path, parts: Mapping[str, Groups], *, seed: int, slips: Mapping[str, float]
) -> Path:
    """A snapshot of the groups' judged sets, by split; see annotation's datasets for the form."""
    rows: list[dict[str, Any]] = []
    ties: list[dict[str, Any]] = []
    for split, groups in parts.items():
        rng = np.random.default_rng([seed, len(split)])
        for index in range(len(groups)):
            chosen = rng.choice(OWN, SET_SIZE, replace=False)
            images = [store(directory, groups.images[index, k]) for k in chosen]
            shared = {
                "set": f"{split}-{index}",
                "task": groups.tasks[index],
                "prompt": groups.prompts[index],
                "source": store(directory, groups.sources[index]),
                "mask": store(directory, groups.masks[index]),
                "split": split,
                "annotator": "simulated",
            }
            for d, name in enumerate(DIMENSIONS):
                scores = [float(groups.scores[index, k, d]) for k in chosen]
                if np.isnan(scores).any():
                    continue
                found = best_worst(scores, rng, noise=slips[split], tie=TIE)
                judged = {**shared, "dimension": name}
                if found is None:
                    tied = _tied(judged, images)
                    # Of what nobody can tell apart one pair says as much as all.
                    ties += tied if split == "train" else tied[:1]
                else:
                    rows += preferred(judged, images, *found)
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "preferences.parquet")
    if ties:
        pq.write_table(pa.Table.from_pylist(ties), directory / "ties.parquet")
    content = json.dumps([rows, ties]).encode()
    card = {
        "schema_version": 2,
        "content_hash": hashlib.sha256(content).hexdigest(),
        "taxonomy": {"tasks": TASKS, "dimensions": DIMENSION_ROWS},
    }
    (directory / "card.json").write_text(json.dumps(card))
    return directory


def preferred(
    judged: Mapping[str, Any], images: Sequence[str], best: int, worst: int
) -> list[dict[str, Any]]:
    relations = [(best, worst, "direct", 1.0)]
    for other in set(range(len(images))) - {best, worst}:
        relations += [(best, other, "implied", 0.5), (other, worst, "implied", 0.5)]
    return [
        {**judged, "chosen": images[a], "rejected": images[b], "relation": r, "weight": w}
        for a, b, r, w in relations
        if images[a] != images[b]
    ]


def _tied(judged: Mapping[str, Any], images: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**judged, "first": images[a], "second": images[b], "weight": 0.5}
        for a in range(len(images))
        for b in range(a)
        if images[a] != images[b]
    ]


def store(directory: Path, pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = directory / "images" / digest[:2] / f"{digest}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    return digest


def _groups(place: Path, seed: Sequence[int], count: int) -> Groups:
    """The policy's samples, drawn once."""
    path = place.with_suffix(".npz")
    if not path.is_file():
        groups = policy_groups(WEIGHTS / "policy", seed, count)
        np.savez_compressed(path.with_suffix(".part.npz"), **groups.arrays())  # type: ignore[arg-type]
        path.with_suffix(".part.npz").replace(path)
    with np.load(path, allow_pickle=False) as arrays:
        return Groups.of({name: arrays[name] for name in arrays.files})


def labels_of(out: Path, plan: Plan, seed: int) -> Path:
    directory = out / f"labels-{seed}"
    if not (directory / "card.json").is_file():
        parts = {
            "train": _groups(out / "train", TRAINING, plan.training_sets),
            "holdout": _groups(out / "holdout", HELD_OUT, plan.held_out_sets),
        }
        # One seed for the held-out sets of all.
        slips = {"train": SLIPS, "holdout": 0.0}
        held_out = {"holdout": parts.pop("holdout")}
        write_labels(directory, parts, seed=seed, slips=slips)
        append(directory, write_labels(out / "held-out", held_out, seed=0, slips=slips))
    return directory


def append(directory: Path, other: Path) -> None:
    """Add the rows and pictures of another snapshot of the same taxonomy."""
    for name in ("preferences.parquet", "ties.parquet"):
        tables = [pq.read_table(p / name) for p in (directory, other) if (p / name).is_file()]
        if tables:
            pq.write_table(pa.concat_tables(tables), directory / name)
    for path in (other / "images").glob("*/*.png"):
        target = directory / "images" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


# --- cells ---


def config_of(plan: Plan, setting: Mapping[str, Any], labels: Path, seed: int) -> dict[str, Any]:
    base = json.loads((WEIGHTS / "reward" / "reward.json").read_text())
    changes = dict(setting)
    return {
        "snapshot": str(labels.resolve()),
        "base": str(WEIGHTS / "reward"),
        "seed": seed,
        "batch_size": plan.batch_size,
        "checkpoint_every": plan.steps,
        **{key: changes[key] for key in changes if key not in ("view", "steps")},
        "steps": round(plan.steps * changes.get("steps", 1.0)),
        "view": {**base["view"], **changes.get("view", {})},
    }


def run_cell(out: Path, plan: Plan, name: str, seed: int) -> Path:
    """Train the setting `name` with `seed` unless that was done before."""
    run = out / "cells" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    config = config_of(plan, SETTINGS[name], labels_of(out, plan, seed), seed)
    (run / "config.json").write_text(json.dumps(config, indent=1))
    # What the base says of the held-out sets depends on the view alone.
    shown = hashlib.sha256(json.dumps(config["view"], sort_keys=True).encode()).hexdigest()
    known = out / f"before-{shown[:12]}.json"
    if known.is_file():
        (run / "before.json").write_bytes(known.read_bytes())
    train(run)
    known.write_bytes((run / "before.json").read_bytes())
    return run


# --- figures ---


@dataclass(frozen=True)
class Cell:
    """Right answers of one trained model, and what they are grouped by."""

    pairs: dict[str, float]  # by question
    swaps: dict[str, float]
    figures: Mapping[str, Any]

    @classmethod
    def read(cls, run: Path) -> Cell:
        return cls.of(
            read_outcomes(run / "holdout.jsonl"), json.loads((run / "result.json").read_text())
        )

    @classmethod
    def of(cls, found: Sequence[Outcome], figures: Mapping[str, Any]) -> Cell:
        judged = {o.key: o.correct for o in found if o.relation in ("direct", "implied")}
        swaps = {key: correct for key, _, _, correct in swap_results(found)}
        return cls(judged, swaps, figures)


def difference(
    baseline: Sequence[Mapping[str, float]],
    changed: Sequence[Mapping[str, float]],
    *,
    resamples: int = RESAMPLES,
) -> tuple[float, float, float]:
    """(mean, low, high) of `changed - baseline` over seeds and questions, in points.

    Each draw of the bootstrap draws seeds and, for all of them, sources (the part of a question's
    key before its first colon, or the whole key of a swap), with replacement.
    """
    keys = sorted(baseline[0])
    if any(sorted(cell) != keys for cell in (*baseline, *changed)):
        raise ValueError("the cells were evaluated on different questions")
    apart = np.array(
        [[new[k] - old[k] for k in keys] for old, new in zip(baseline, changed, strict=True)]
    )  # (seeds, questions)
    sources, of = np.unique([_source(key) for key in keys], return_inverse=True)
    sums = np.stack([np.bincount(of, row, len(sources)) for row in apart])
    counts = np.bincount(of, minlength=len(sources))
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        seeds = rng.integers(len(apart), size=len(apart))
        drawn = rng.integers(len(sources), size=len(sources))
        means.append(sums[seeds][:, drawn].sum() / counts[drawn].sum() / len(apart))
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * float(apart.mean()), 100 * float(low), 100 * float(high)


def _source(key: str) -> str:
    return key if key.startswith("swap:") else key.partition(":")[0]


def table(cells: Mapping[str, Sequence[Cell]]) -> str:
    """The settings as rows of a Markdown table."""
    first = cells[DEFAULT]
    lines = [
        "| setting | accuracy % | difference (95 %) | prompt swap % | difference (95 %) | "
        "ties AUC | same in both orders % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in cells.items():
        same = first[: len(row)]
        shown = [name if len(row) == len(first) else f"{name} ({len(row)} seeds)"]
        for part in ("pairs", "swaps"):
            values = [getattr(cell, part) for cell in row]
            shown.append(f"{100 * _mean(v for cell in values for v in cell.values()):.1f}")
            before = [getattr(cell, part) for cell in same]
            shown.append("" if name == DEFAULT else _interval(*difference(before, values)))
        aucs = [cell.figures["ties"]["auc"] for cell in row if cell.figures["ties"]]
        shown.append(f"{_mean(aucs):.3f}" if aucs else "")
        orders = [cell.figures["position_consistency"]["accuracy"] for cell in row]
        shown.append(f"{100 * _mean(orders):.1f}")
        lines.append("| " + " | ".join(shown) + " |")
    before = first[0].figures["before"]
    rows = [before[name] for name in ("reward_accuracy", "implied_accuracy")]
    found = [cell for tasks in rows for row in tasks.values() for cell in row.values()]
    right = sum(cell["accuracy"] * cell["n"] for cell in found) / sum(cell["n"] for cell in found)
    lines.append(
        f"\nThe base before any training: accuracy {100 * right:.1f} %, prompt swap "
        f"{100 * before['prompt_swap_accuracy']:.1f} %."
    )
    return "\n".join(lines) + "\n"


def _interval(value: float, low: float, high: float) -> str:
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def report(out: Path, cells: Mapping[str, Sequence[Cell]]) -> None:
    (out / "table.md").write_text(table(cells))
    figures = {name: [cell.figures for cell in row] for name, row in cells.items()}
    (out / "cells.json").write_text(json.dumps(figures, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=Plan.seeds)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--training-sets", type=int, default=Plan.training_sets)
    parser.add_argument("--held-out-sets", type=int, default=Plan.held_out_sets)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    given = parser.parse_args(arguments)
    plan = Plan(given.training_sets, given.held_out_sets, given.steps, seeds=given.seeds)
    given.out.mkdir(parents=True, exist_ok=True)
    cells: dict[str, list[Cell]] = {}
    # Seed by seed, so that a study that is stopped early has all settings.
    for seed in range(plan.seeds):
        for name in [DEFAULT, *(n for n in given.settings if n != DEFAULT)]:
            run = run_cell(given.out, plan, name, seed)
            cells.setdefault(name, []).append(Cell.read(run))
            report(given.out, cells)
            print(f"seed {seed}: {name}", flush=True)
    print(table(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
