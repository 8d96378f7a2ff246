"""Small snapshots whose labels follow a rule that a tiny model can learn."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TAXONOMY = {
    "tasks": {"fill": {"name": "Image fill", "wording": "image fill"}},
    "dimensions": {
        "structure": {
            "name": "Structure",
            "question": "Which is brighter?",
            "query": "Is the first image brighter?",
            "uses_prompt": False,
        },
        "text_alignment": {
            "name": "Text alignment",
            "question": "Which follows the prompt?",
            "query": "Does the first image show {prompt}?",
            "uses_prompt": True,
        },
    },
}
COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def store(directory: Path, array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    folder = directory / "images" / digest[:2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest}.png").write_bytes(buffer.getvalue())
    return digest


def snapshot(
    directory: Path, *, sources: int = 12, holdout: int = 4, size: int = 32, seed: int = 0
) -> Path:
    """Sets of three candidates: structure prefers the brighter, text alignment the asked colour."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    names = list(COLOURS)
    for number in range(sources):
        source = store(directory, rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        inside = np.zeros((size, size), np.uint8)
        inside[8:24, 8:24] = 255
        mask = store(directory, inside)
        asked = names[number % 2]
        shared = {
            "set": f"set-{number}",
            "task": "fill",
            "prompt": f"a {asked} square",
            "source": source,
            "mask": mask,
            "split": "holdout" if number < holdout else "train",
            "annotator": "a1",
        }
        levels = [40, 128, 220]
        greys = [store(directory, _picture(rng, (v, v, v), size)) for v in levels]
        rows += _best_worst(shared, "structure", greys)
        wrong = COLOURS[names[1 - number % 2]]
        middle = (115, 30, 115)
        colours = [
            store(directory, _picture(rng, c, size)) for c in (wrong, middle, COLOURS[asked])
        ]
        rows += _best_worst(shared, "text_alignment", colours)
    write(directory, rows)
    return directory


def _picture(rng: np.random.Generator, colour: tuple[int, int, int], size: int) -> np.ndarray:
    noise = rng.integers(-10, 11, (size, size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def _best_worst(shared: dict[str, Any], dimension: str, images: list[str]) -> list[dict[str, Any]]:
    worst, middle, best = images
    return [
        {**shared, "dimension": dimension, "chosen": a, "rejected": b, "relation": r, "weight": w}
        for a, b, r, w in (
            (best, worst, "direct", 1.0),
            (best, middle, "implied", 0.5),
            (middle, worst, "implied", 0.5),
        )
    ]


def write(directory: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), directory / "preferences.parquet")
    card = {"schema_version": 1, "content_hash": "ab" * 32, "taxonomy": TAXONOMY}
    (directory / "card.json").write_text(json.dumps(card))


def write_ties(directory: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), directory / "ties.parquet")


def tie(row: dict[str, Any], first: str, second: str, weight: float = 0.5) -> dict[str, Any]:
    """That the annotator of a preference found no difference between two pictures of its set."""
    kept = {k: v for k, v in row.items() if k not in ("chosen", "rejected", "relation")}
    return {**kept, "first": first, "second": second, "weight": weight}


def rows_of(directory: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(directory / "preferences.parquet").to_pylist()
    return rows
