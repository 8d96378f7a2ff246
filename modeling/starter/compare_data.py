"""What the comparison of objectives learns from and is measured on: scenes with ground truth.

Training scenes with four candidates of the base each, drawn as the platform draws them; simulated
annotators name best and worst per dimension, with slips; the pairs follow as they do from people's
judgments. Held-out scenes come from other random streams.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generation.diffusion.generate import Generator, Request
from generation.diffusion.loading import PolicySpec, load_models
from modeling.starter import truth, world
from modeling.starter.annotators import JUST_NOTICEABLE, best_worst
from modeling.starter.reward_questions import query
from modeling.starter.reward_rollouts import draw
from modeling.starter.taxonomy import TASKS

WEIGHTS = Path(__file__).parent / "weights"
CANDIDATES = 4
SLIPS = 0.05
# As annotation.preferences weighs them.
WEIGHT = {"direct": 1.0, "implied": 0.5}
TRAINING, HELD_OUT, CANDIDATE_DRAWS, LABELS = 101, 102, 103, 104  # random streams


@dataclass(frozen=True)
class Data:
    directory: Path
    sources: int

    @property
    def rows(self) -> Path:
        return self.directory / "sources.jsonl"

    def pairs(self, seed: int) -> Path:
        """The pairs that the annotators of this seed leave."""
        path = self.directory / f"pairs-{seed}.jsonl"
        if not path.is_file():
            temporary = path.with_suffix(".new")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self._label(seed)))
            temporary.replace(path)
        return path

    def _label(self, seed: int) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng([seed, LABELS])
        for row in json.loads((self.directory / "scores.json").read_text()):
            pictures = [f"candidates/{row['id']}-{k}.png" for k in range(CANDIDATES)]
            for dimension in world.DIMENSIONS[row["task"]]:
                scores = [one[dimension] for one in row["scores"]]
                picked = best_worst(scores, rng, noise=SLIPS, tie=JUST_NOTICEABLE)
                for chosen, rejected, relation in pairs_of(picked):
                    yield {
                        "source": row["id"],
                        "task": row["task"],
                        "dimension": dimension,
                        "chosen": pictures[chosen],
                        "rejected": pictures[rejected],
                        "weight": WEIGHT[relation],
                        "relation": relation,
                        "split": "train",
                    }


def pairs_of(picked: tuple[int, int] | None) -> list[tuple[int, int, str]]:
    """(chosen, rejected, relation) from a best and a worst: one direct pair, and two implied ones
    of every candidate between them."""
    if picked is None:
        return []
    best, worst = picked
    pairs = [(best, worst, "direct")]
    for other in range(CANDIDATES):
        if other not in picked:
            pairs += [(best, other, "implied"), (other, worst, "implied")]
    return pairs


def make_data(directory: Path, per_task: int) -> Data:
    """Write the training scenes and their candidates; once, and whole or not at all."""
    data = Data(directory, per_task * len(world.TASKS))
    if directory.is_dir():
        return data
    draft = directory.with_name(f".{directory.name}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "candidates").mkdir(parents=True)
    generator = Generator(load_models(PolicySpec(location=str(WEIGHTS / "policy"))), 32)
    rows, scored = [], []
    for place, task in enumerate(world.TASKS):
        rng = np.random.default_rng([TRAINING, place])
        examples = [world.sample_example(rng, task) for _ in range(per_task)]
        names = [f"{task}-{number}" for number in range(per_task)]
        pictures = _candidates(generator, examples, np.random.default_rng([CANDIDATE_DRAWS, place]))
        for name, example, group in zip(names, examples, pictures, strict=True):
            rows.append(_row(draft, name, example))
            for k, picture in enumerate(group):
                picture.save(draft / "candidates" / f"{name}-{k}.png")
            scores = [truth.score(np.asarray(picture), example.scene) for picture in group]
            scored.append({"id": name, "task": task, "scores": scores})
    # Held-out rows are what the training watches on; they play no part in the comparison.
    for place, task in enumerate(world.TASKS):
        example = world.sample_example(np.random.default_rng([TRAINING, place, 1]), task)
        rows.append({**_row(draft, f"watched-{task}", example), "split": "holdout"})
    (draft / "sources.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (draft / "scores.json").write_text(json.dumps(scored))
    draft.rename(directory)
    return data


def _candidates(
    generator: Generator, examples: list[world.Example], rng: np.random.Generator
) -> list[list[Image.Image]]:
    requests = [
        Request(
            Image.fromarray(example.image),
            Image.fromarray(example.mask),
            example.prompt,
            draw(rng),
            key=f"{example.task}-{number}",
        )
        for number, example in enumerate(examples)
        for _ in range(CANDIDATES)
    ]
    made = generator.generate(requests)
    return [made[first : first + CANDIDATES] for first in range(0, len(made), CANDIDATES)]


def _row(directory: Path, name: str, example: world.Example) -> dict[str, Any]:
    Image.fromarray(example.image).save(directory / f"{name}.png")
    Image.fromarray(example.mask).save(directory / f"{name}-mask.png")
    return {
        "id": name,
        "task": example.task,
        "weight": TASKS[example.task]["weight"],
        "image": f"{name}.png",
        "mask": f"{name}-mask.png",
        "prompt": example.prompt,
        "split": "train",
        "queries": {
            dimension: query(example.task, dimension, example.prompt)
            for dimension in world.DIMENSIONS[example.task]
        },
    }


def held_out(per_task: int) -> list[world.Example]:
    """Scenes that no training saw, task by task."""
    found = []
    for place, task in enumerate(world.TASKS):
        rng = np.random.default_rng([HELD_OUT, place])
        found += [world.sample_example(rng, task) for _ in range(per_task)]
    return found
