"""Held-out figures of a reward model, and which of two reward models is better.

    python -m modeling.reward.evaluate --snapshot DIR --base LOCATION [--adapter DIR] [--json FILE]

accuracy           share of best/worst pairs whose winner the model names, both orders averaged:
                   (margin(winner, loser) - margin(loser, winner)) / 2 > 0; Wilson's 95 % interval
implied accuracy   the same on pairs that best and worst only imply (best over the others, ...)
prompt swap        pictures a and b were chosen for the prompts A and B of two sources of one task;
                   share of such pairs with margin(a, b | A) > margin(a, b | B), both orders
                   averaged: the pictures are the same on both sides, so half is chance for whoever
                   ignores the prompt; `questions` is the share of single questions right.
position           share of questions with the same winner in both orders
ties               how well held-out "no difference" answers are predicted: auc is the chance that
                   the margin of a pair that people found equal is nearer to 0 than that of a pair
                   they decided, half being a guess (interval: Hanley and McNeil 1982); with a
                   strength nu (see `objective`) the mean P(tie) on tied and on decided pairs
calibration        expected calibration error of sigmoid(margin) over single orders, in ten bins

A dimension of a task with enough held-out pairs whose interval reaches down to chance is
*excluded*: whoever trains on the reward should leave it out. One with too few pairs is *untested*.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.reward.data import (
    Pair,
    Pictures,
    Snapshot,
    Swaps,
    good_pictures,
    make_batch,
    pairs_of,
    tied_pairs,
)
from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.rundir import RunError
from modeling.statistics import Difference, paired_difference, wilson

Forward = Callable[[Tensor, list[tuple[int, ...]], list[list[str]]], Tensor]
BINS = 10
SWAPS_EACH = 100


@dataclass(frozen=True)
class Outcome:
    """One question of one pair, seen from its winner."""

    key: str
    task: str
    dimension: str
    relation: str
    winner_first: float  # margin with the winner shown first
    winner_second: float  # margin with the winner shown second

    @property
    def score(self) -> float:
        return (self.winner_first - self.winner_second) / 2

    @property
    def correct(self) -> float:
        return 0.5 if self.score == 0 else float(self.score > 0)

    @property
    def consistent(self) -> bool:
        return (self.winner_first > 0) == (self.winner_second < 0)


@torch.no_grad()
def outcomes(
    vlm: RewardVLM,
    pairs: Sequence[Pair],
    pictures: Pictures,
    *,
    batch_size: int = 32,
    forward: Forward | None = None,
) -> list[Outcome]:
    """Ask every question of every pair in both orders.

    `forward` stands in for `answer_logits` of `vlm`, for a model inside a wrapper whose sharded
    weights only the wrapper gathers.
    """
    forward = forward or partial(answer_logits, vlm)
    by_size: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_size[pair.size].append(pair)
    found: list[Outcome] = []
    for group in by_size.values():
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            batch = make_batch(part, pictures)
            logits = forward(batch.images.to(vlm.device), batch.orders, batch.queries)
            found += _outcomes(part, margins_of(vlm, logits).float().cpu())
    return found


def _outcomes(pairs: Sequence[Pair], margins: Tensor) -> list[Outcome]:
    found = []
    for i, pair in enumerate(pairs):
        for d, question in enumerate(pair.questions):
            orders = margins[2 * i, d].item(), margins[2 * i + 1, d].item()
            winner_first, winner_second = orders if question.target > 0.5 else orders[::-1]
            number = f":{d}" if question.relation == "swap" else ""
            found.append(
                Outcome(
                    key=f"{pair.key}:{question.dimension}{number}",
                    task=pair.task,
                    dimension=question.dimension,
                    relation=question.relation,
                    winner_first=winner_first,
                    winner_second=winner_second,
                )
            )
    return found


def share(values: Sequence[float]) -> dict[str, float | int | None]:
    """A share with its Wilson interval."""
    found = wilson(sum(values), len(values))
    value = found.value if found.n else None
    return {"accuracy": value, "low": found.low, "high": found.high, "n": found.n}


def _table(rows: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, dimension, correct in rows:
        cells[task][dimension].append(correct)
    return {
        task: {dimension: share(values) for dimension, values in sorted(row.items())}
        for task, row in sorted(cells.items())
    }


def swap_results(found: Sequence[Outcome]) -> list[tuple[str, str, str, float]]:
    """(key, task, dimension, correct) of each swap from its two questions."""
    both: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in found:
        if outcome.relation == "swap":
            both[outcome.key.rpartition(":")[0]].append(outcome)
    results = []
    for key, (own, other) in sorted(both.items()):
        # margin(a, b | A) = own.score and margin(a, b | B) = -other.score.
        total = own.score + other.score
        correct = 0.5 if total == 0 else float(total > 0)
        results.append((key, own.task, own.dimension, correct))
    return results


def calibration_error(probabilities: NDArray[np.float64], hits: NDArray[np.float64]) -> float:
    """Expected calibration error of the more likely answer, in equal bins of [0.5, 1]."""
    confidence = np.maximum(probabilities, 1 - probabilities)
    right = np.where(probabilities >= 0.5, hits, 1 - hits)
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return float(error)


def _orders(found: Sequence[Outcome]) -> NDArray[np.float64]:
    """Margins for the winner of every single order: all should be positive."""
    return np.array([m for o in found for m in (o.winner_first, -o.winner_second)], np.float64)


def fit_temperature(found: Sequence[Outcome]) -> float:
    """The temperature that makes sigmoid(margin / T) the likeliest on these outcomes.

    The likelihood has one maximum in 1 / T; without enough outcomes, or where all are right and any
    confidence would do, the search ends at its bounds.
    """
    margins = _orders(found)
    if len(margins) < 40:
        return 1.0
    candidates = np.geomspace(0.2, 20.0, 401)
    losses = [np.logaddexp(0, -margins / temperature).mean() for temperature in candidates]
    return float(candidates[int(np.argmin(losses))])


def figures(
    found: Sequence[Outcome],
    *,
    min_test_pairs: int,
    temperature: float,
    tie_strength: float | None = None,
) -> dict[str, Any]:
    """Everything `result.json` says about held-out pairs; see the module docstring."""
    judged = [o for o in found if o.relation in ("direct", "implied")]
    direct = [o for o in judged if o.relation == "direct"]
    implied = [o for o in judged if o.relation == "implied"]
    swaps = swap_results(found)
    accuracy = _table((o.task, o.dimension, o.correct) for o in direct)
    margins = _orders(judged)
    # A winner shown second is the event "the first is better" that did not happen.
    shown = np.tile([1.0, -1.0], len(judged)) * margins
    probabilities = 1 / (1 + np.exp(-np.clip(shown, -60, 60)))
    hits = np.tile([1.0, 0.0], len(judged))
    questions = [o.correct for o in found if o.relation == "swap"]
    excluded, untested = doubts(accuracy, min_test_pairs)
    return {
        "overall": share([o.correct for o in direct]),
        "reward_accuracy": accuracy,
        "implied_accuracy": _table((o.task, o.dimension, o.correct) for o in implied),
        "prompt_swap_accuracy": float(np.mean([s[3] for s in swaps])) if swaps else None,
        "prompt_swap": {
            "overall": share([s[3] for s in swaps]),
            "questions": share(questions),
            "cells": _table((task, dimension, correct) for _, task, dimension, correct in swaps),
        },
        "ties": tie_figures(found, temperature=temperature, strength=tie_strength),
        "position_consistency": share([float(o.consistent) for o in judged]),
        "calibration": {
            "ece": calibration_error(probabilities, hits) if judged else None,
            "temperature": temperature,
            "n": len(margins),
        },
        "excluded": excluded,
        "untested": untested,
    }


def tie_figures(
    found: Sequence[Outcome], *, temperature: float, strength: float | None
) -> dict[str, Any] | None:
    """Figures of held-out ties against best/worst pairs; None without ties."""
    tied, clear = (
        np.abs([o.score for o in found if o.relation == relation])
        for relation in ("tied", "direct")
    )
    if not len(tied) or not len(clear):
        return None
    below = np.searchsorted(np.sort(clear), tied, "left")
    up_to = np.searchsorted(np.sort(clear), tied, "right")
    # Ties among the margins themselves count half.
    auc = float(1 - (below + up_to).mean() / 2 / len(clear))
    error = auc_error(auc, len(tied), len(clear))
    report: dict[str, Any] = {
        "auc": auc,
        "low": max(0.0, auc - 1.96 * error),
        "high": min(1.0, auc + 1.96 * error),
        "n_tied": len(tied),
        "n_decided": len(clear),
        "strength": strength,
    }
    if strength is not None:
        for name, margins in (("tied", tied), ("decided", clear)):
            # The strength was trained beside margins without a temperature.
            chances = strength / (strength + 2 * np.cosh(np.minimum(margins * temperature, 60) / 2))
            report[f"probability_{name}"] = float(chances.mean())
    return report


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an area under the ROC curve (Hanley and McNeil 1982, equation 1)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(max(0.0, auc * (1 - auc) + spread) / (positives * negatives)))


def doubts(
    accuracy: dict[str, dict[str, Any]], min_test_pairs: int
) -> tuple[list[list[str]], list[list[str]]]:
    """([task, dimension, reason] not above chance, the same for those with too few pairs)."""
    excluded, untested = [], []
    for task, row in accuracy.items():
        for dimension, cell in row.items():
            if cell["n"] < min_test_pairs:
                reason = f"only {cell['n']} held-out pairs, {min_test_pairs} are needed to tell"
                untested.append([task, dimension, reason])
            elif cell["low"] <= 0.5:
                reason = (
                    f"held-out accuracy {cell['accuracy']:.2f} "
                    f"[{cell['low']:.2f}, {cell['high']:.2f}] on {cell['n']} pairs "
                    "is not above chance"
                )
                excluded.append([task, dimension, reason])
    return excluded, untested


def evaluation_pairs(snapshot: Snapshot, split: str) -> list[Pair]:
    """Pairs, swaps and ties of a split; the same for every model, so that they can be compared."""
    swaps = Swaps(snapshot, good_pictures(snapshot, split))
    drawn = swaps.spread(np.random.default_rng(0), SWAPS_EACH)
    return pairs_of(snapshot, split) + drawn + tied_pairs(snapshot, split)


def evaluate(
    snapshot_dir: str | Path,
    location: str | Path,
    *,
    adapter: str | Path = "",
    split: str = "holdout",
    min_test_pairs: int = 10,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Any], list[Outcome]]:
    """Figures of an existing reward model on a snapshot's split, and the outcomes behind them."""
    snapshot = Snapshot(snapshot_dir)
    pairs = evaluation_pairs(snapshot, split)
    if not pairs:
        raise RunError(
            f"The snapshot has no pairs in its '{split}' split: label sets of more sources, "
            "of which some fall into that split."
        )
    vlm = load_reward_vlm(location, adapter=adapter, device=device, dtype=dtype)
    found = outcomes(vlm, pairs, Pictures(snapshot, vlm.view))
    report = figures(found, min_test_pairs=min_test_pairs, temperature=vlm.temperature)
    return report, found


def compare(parent: Sequence[Outcome], new: Sequence[Outcome]) -> dict[str, Any]:
    """Paired comparison of two reward models on the same held-out pairs.

    Returns accuracies with the 95 % paired bootstrap interval of `new - parent`: "overall" and
    "reward_accuracy" {task: {dimension: ...}} on best/worst pairs, "prompt_swap".
    """
    ours, theirs = ({o.key: o for o in found} for found in (new, parent))
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"The two reward models were evaluated on different pairs ({len(theirs)} and "
            f"{len(ours)}); evaluate both on one snapshot's split."
        )
    direct = [o for o in parent if o.relation == "direct"]
    cells: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in direct:
        cells[outcome.task][outcome.dimension].append(outcome)

    def paired(rows: Sequence[Outcome]) -> dict[str, Any]:
        return _difference(
            paired_difference([o.correct for o in rows], [ours[o.key].correct for o in rows])
        )

    swaps = [[result[3] for result in swap_results(found)] for found in (parent, new)]
    return {
        "overall": paired(direct),
        "reward_accuracy": {
            task: {dimension: paired(rows) for dimension, rows in sorted(row.items())}
            for task, row in sorted(cells.items())
        },
        "prompt_swap": _difference(paired_difference(swaps[0], swaps[1])),
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and np.isnan(value) else value
        for name, value in dataclasses.asdict(found).items()
    }


def write_outcomes(path: Path, found: Sequence[Outcome]) -> None:
    path.write_text("".join(json.dumps(dataclasses.asdict(o)) + "\n" for o in found))


def read_outcomes(path: Path) -> list[Outcome]:
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]


def table(report: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'task':<18}{'dimension':<18}{'n':>5}{'accuracy':>10}  95 % interval"]
    for task, row in report["reward_accuracy"].items():
        for dimension, cell in row.items():
            lines.append(f"{task:<18}{dimension:<18}{_cell(cell)}")
    lines.append(f"{'all':<36}{_cell(report['overall'])}")
    for task, row in report["prompt_swap"]["cells"].items():
        for dimension, cell in row.items():
            lines.append(f"{task:<18}{dimension + ' swap':<18}{_cell(cell)}")
    lines.append(f"{'prompt swap':<36}{_cell(report['prompt_swap']['overall'])}")
    lines.append(f"{'position consistency':<36}{_cell(report['position_consistency'])}")
    ties = report["ties"]
    if ties:
        lines.append(
            f"{'ties':<36}{ties['n_tied']:>5}{ties['auc']:>10.3f}  "
            f"[{ties['low']:.3f}, {ties['high']:.3f}]"
        )
    calibration = report["calibration"]
    if calibration["ece"] is not None:
        lines.append(
            f"calibration error {calibration['ece']:.3f} at temperature "
            f"{calibration['temperature']:.2f}"
        )
    for kind in ("excluded", "untested"):
        lines += [f"{kind}: {task} {name}: {reason}" for task, name, reason in report[kind]]
    return "\n".join(lines)


def _cell(cell: dict[str, Any]) -> str:
    if not cell["n"]:
        return f"{0:>5}{'-':>10}"
    return f"{cell['n']:>5}{cell['accuracy']:>10.3f}  [{cell['low']:.3f}, {cell['high']:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Held-out figures of a reward model.")
    parser.add_argument("--snapshot", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", default="")
    parser.add_argument("--split", default="holdout")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    try:
        report, _ = evaluate(
            given.snapshot,
            given.base,
            adapter=given.adapter,
            split=given.split,
            device=given.device,
            dtype=torch.bfloat16 if given.device.startswith("cuda") else torch.float32,
        )
    except (RunError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
