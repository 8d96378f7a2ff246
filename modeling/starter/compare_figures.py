"""Figures of the comparison: usable rates and dimensions, with intervals over scenes and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.starter import truth
from modeling.statistics import holm, p_worse

BASE = "base"
RESAMPLES = 4000
ALPHA = 0.025  # one side of 5 %
Scores = list[dict[str, float]]  # of every scene
Floats = NDArray[np.float64]


def figures(
    cells: Mapping[str, Mapping[int, Scores]], tasks: Sequence[str], *, ours: str
) -> dict[str, Any]:
    """Of every method with a seed: usable rate, its difference from the base and from `ours`, and
    every dimension against the base. A method is compared on the seeds that it has."""
    found: dict[str, Any] = {"n": len(tasks), "methods": {}}
    for method, by_seed in cells.items():
        row: dict[str, Any] = {"seeds": sorted(by_seed)}
        row["usable"] = _interval(usable(by_seed, row["seeds"]))
        if method != BASE:
            row["difference"] = _between(cells, method, BASE)
            if method != ours and ours in cells:
                row["ours_minus_this"] = _between(cells, ours, method)
            row["tasks"] = _tasks(cells, method, tasks)
            row["dimensions"] = _dimensions(by_seed, cells[BASE])
            row["worse"] = [name for name, one in row["dimensions"].items() if one["worse"]]
        found["methods"][method] = row
    return found


def usable(by_seed: Mapping[int, Scores], seeds: Sequence[int]) -> Floats:
    """(seeds, scenes), 0 or 1."""
    return np.array([[float(truth.usable(one)) for one in by_seed[seed]] for seed in seeds])


def dimension(by_seed: Mapping[int, Scores], seeds: Sequence[int], name: str) -> Floats:
    """(seeds, scenes that have the dimension)."""
    return np.array([[one[name] for one in by_seed[seed] if name in one] for seed in seeds])


def _between(
    cells: Mapping[str, Mapping[int, Scores]], new: str, old: str
) -> dict[str, Any] | None:
    seeds = sorted(set(cells[new]) & set(cells[old]))
    if not seeds:
        return None
    return _interval(usable(cells[new], seeds) - usable(cells[old], seeds))


def _tasks(
    cells: Mapping[str, Mapping[int, Scores]], method: str, tasks: Sequence[str]
) -> dict[str, Any]:
    seeds = sorted(cells[method])
    gained = usable(cells[method], seeds) - usable(cells[BASE], seeds)
    kinds = np.asarray(tasks)
    return {task: _interval(gained[:, kinds == task]) for task in dict.fromkeys(tasks)}


def _dimensions(new: Mapping[int, Scores], base: Mapping[int, Scores]) -> dict[str, Any]:
    seeds = sorted(new)
    names = list(dict.fromkeys(name for one in new[seeds[0]] for name in one))
    p_values, found = {}, {}
    for name in names:
        after, before = dimension(new, seeds, name), dimension(base, seeds, name)
        found[name] = {"base": float(before.mean()), "new": float(after.mean())}
        found[name]["difference"] = _interval(after - before)  # type: ignore[assignment]
        # Over seeds a scene is one observation, not several.
        p_values[name] = p_worse(list(before.mean(0)), list(after.mean(0)))
    for name, p in holm(p_values).items():
        found[name] |= {"p_worse": p, "worse": p < ALPHA}
    return found


def _interval(values: Floats) -> dict[str, Any]:
    """The mean of (seeds, scenes) and its 95 % interval: both are drawn again."""
    rng = np.random.default_rng(0)
    seeds, scenes = values.shape
    means = np.empty(RESAMPLES)
    for turn in range(RESAMPLES):
        rows = rng.integers(seeds, size=seeds)
        columns = rng.integers(scenes, size=scenes)
        means[turn] = values[np.ix_(rows, columns)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "value": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "by_seed": [float(row.mean()) for row in values],
    }


def table(found: Mapping[str, Any]) -> str:
    """The comparison in Markdown."""
    head = ["method", "steps", "TFLOP", "seeds", "usable %", "against the base, points"]
    head += ["dynamic minus this", "dimensions worse"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = sorted(found["methods"], key=lambda name: -found["methods"][name]["usable"]["value"])
    for name in order:
        row = found["methods"][name]
        cells = [name, f"{row['steps']:,}", f"{row['flops'] / 1e12:.1f}", str(len(row["seeds"]))]
        cells.append(_percent(row["usable"]))
        cells.append(_percent(row.get("difference"), signed=True))
        cells.append(_percent(row.get("ours_minus_this"), signed=True))
        cells.append(", ".join(row["worse"]) or "none" if "worse" in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{found['n']} held-out scenes; 95 % paired bootstrap over scenes and seeds.", ""]
    names = list(
        dict.fromkeys(n for row in found["methods"].values() for n in row.get("dimensions", {}))
    )
    if names:
        lines += ["| mean score, new − base | " + " | ".join(names) + " |"]
        lines += ["|" + "---|" * (len(names) + 1)]
    for method in order:
        by_name = found["methods"][method].get("dimensions")
        if by_name:
            cells = [
                f"{one['difference']['value']:+.3f} ({one['difference']['low']:+.3f} to "
                f"{one['difference']['high']:+.3f})"
                for one in (by_name[name] for name in names)
            ]
            lines.append("| " + " | ".join([method, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _percent(interval: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    sign = "+" if signed else ""
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"
