"""How many comparisons reranking saves, and how often it names the best picture of all pairs.

    python -m modeling.starter.rerank_agreement --sets 300 [--seed 2] [--json FILE]

Sets of eight candidates of the shipped policy on fresh scenes of the starter world, drawn as the
starter plan draws, judged by the shipped reward model once with the tournament and once with all
pairs in both orders.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from generation.diffusion.generate import Generator, Request, image_tensor, mask_tensor
from generation.diffusion.loading import PolicySpec, load_models
from modeling.reward.query import render_query
from modeling.reward.rerank import Contest, rerank_all
from modeling.reward.view import reward_context, reward_view
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.starter import world
from modeling.starter.policy_eval import wilson
from modeling.starter.reward_rollouts import draw
from modeling.starter.taxonomy import DIMENSIONS, TASKS

WEIGHTS = Path(__file__).parent / "weights"
SIZE = 8
POOLED = 8  # contests that are asked together


def contests(vlm: RewardVLM, count: int, seed: int) -> Iterator[tuple[str, Contest]]:
    """Tasks in turn, each with a set of candidates of the shipped policy."""
    generator = Generator(load_models(PolicySpec(location=str(WEIGHTS / "policy"))))
    for number in range(count):
        task = world.TASKS[number % len(world.TASKS)]
        rng = np.random.default_rng([seed, number])
        example = world.sample_example(rng, task)
        image, mask = Image.fromarray(example.image), Image.fromarray(example.mask)
        asked = [Request(image, mask, example.prompt, draw(rng), str(number)) for _ in range(SIZE)]
        pictures = torch.cat([image_tensor(picture) for picture in generator.generate(asked)])
        sources = image_tensor(image).expand_as(pictures)
        masks = mask_tensor(mask).expand(SIZE, -1, -1, -1)
        queries = [
            render_query(
                task=TASKS[task]["wording"],
                question=DIMENSIONS[name]["query"],
                prompt=example.prompt if DIMENSIONS[name]["uses_prompt"] else None,
            )
            for name in world.DIMENSIONS[task]
        ]
        views = reward_view(pictures, sources, masks, vlm.view)
        context = reward_context(sources[:1], masks[:1], vlm.view)
        yield task, Contest(views, queries, context)


def measure(count: int, seed: int) -> dict[str, Any]:
    vlm = load_reward_vlm(str(WEIGHTS / "reward"))
    sets = list(contests(vlm, count, seed))
    same: dict[str, list[bool]] = {task: [] for task in world.TASKS}
    forwards, every, separate = 0, 0, 0
    for start in range(0, count, POOLED):
        part = sets[start : start + POOLED]
        found = rerank_all(vlm, [contest for _, contest in part])
        full = rerank_all(vlm, [contest for _, contest in part], every_pair=True)
        for (task, contest), mine, all_pairs in zip(part, found, full, strict=True):
            # Candidates that look alike to the model are as good as each other.
            first, best = contest.views[mine.order[0]], contest.views[all_pairs.order[0]]
            same[task].append(torch.equal(first, best))
            forwards += mine.forwards
            every += all_pairs.forwards
            separate += all_pairs.forwards * len(contest.queries)
    agreed = sum(sum(outcomes) for outcomes in same.values())
    low, high = wilson(agreed, count)
    return {
        "sets": count,
        "seed": seed,
        "same_best": agreed / count,
        "low": low,
        "high": high,
        "by_task": {task: sum(found) / len(found) for task, found in same.items() if found},
        "forwards": forwards / count,
        "forwards_all_pairs": every / count,
        "forwards_all_pairs_by_dimension": separate / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(given.sets, given.seed)
    text = json.dumps(found, indent=1)
    if given.json is not None:
        given.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
