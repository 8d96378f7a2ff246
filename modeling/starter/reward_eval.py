"""Figures of a built reward base, asked exactly as reward training and RL ask it.

Every pair goes through `load_reward_vlm`, `reward_view` and `margins`, in both orders. The pairs
are what annotators would give: best and worst of four answers to one source by ground truth,
without noise. A prompt swap asks both prompts about the same two pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling.reward.evaluate import Outcome, figures
from modeling.reward.scoring import margins
from modeling.reward.view import reward_context, reward_view
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.starter.annotators import best_worst
from modeling.starter.reward_data import DIMENSIONS, PROMPTED, TIE, VARIANTS, Groups
from modeling.starter.reward_questions import Pair, Question, query

SET_SIZE = 4
# Both pictures of a swap must be good answers to their own prompt, bad ones to the other's.
GOOD, BAD = 0.8, 0.3


def judged_pairs(groups: Groups, seed: int, variants: Sequence[int] = ()) -> list[Pair]:
    """Best against worst of four answers, one pair per group and dimension that isn't a tie.

    The four are drawn from `variants`, by default from all answers.
    """
    rng = np.random.default_rng([seed, 31])
    pairs = []
    for index in range(len(groups)):
        chosen = rng.choice(variants or range(VARIANTS), SET_SIZE, replace=False)
        for d, name in enumerate(DIMENSIONS):
            scores = [float(groups.scores[index, k, d]) for k in chosen]
            if np.isnan(scores).any():
                continue
            found = best_worst(scores, rng, noise=0.0, tie=TIE)
            if found is not None:
                best, worst = int(chosen[found[0]]), int(chosen[found[1]])
                question = Question(name, groups.prompts[index], True)
                pairs.append(Pair(index, best, worst, [question]))
    return pairs


def swap_pairs(groups: Groups, seed: int) -> list[Pair]:
    """One pair per group where the prompt alone decides; the first picture answers `prompts`."""
    rng = np.random.default_rng([seed, 32])
    pairs = []
    for index in range(len(groups)):
        for d, name in enumerate(DIMENSIONS):
            own, other = groups.scores[index, :, d], groups.other_scores[index, :, d]
            if name not in PROMPTED or not groups.others[index] or np.isnan(own).any():
                continue
            first = np.flatnonzero((own >= GOOD) & (other <= BAD))
            second = np.flatnonzero((other >= GOOD) & (own <= BAD))
            if len(first) and len(second):
                pair = Pair(index, int(rng.choice(first)), int(rng.choice(second)))
                pair.questions = [
                    Question(name, groups.prompts[index], True),
                    Question(name, groups.others[index], False),
                ]
                pairs.append(pair)
    return pairs


@torch.no_grad()
def outcomes(
    vlm: RewardVLM, groups: Groups, pairs: Sequence[Pair], relation: str, batch_size: int = 32
) -> list[Outcome]:
    found = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        rows = [pair.group for pair in part]
        sources = torch.from_numpy(groups.sources[rows]).permute(0, 3, 1, 2) / 255
        masks = (torch.from_numpy(groups.masks[rows])[:, None] > 0).float()
        queries = [
            [query(groups.tasks[p.group], q.dimension, q.prompt) for q in p.questions] for p in part
        ]
        first, second = (
            reward_view(
                torch.from_numpy(groups.images[rows, columns]).permute(0, 3, 1, 2) / 255,
                sources,
                masks,
                vlm.view,
            )
            for columns in ([p.first for p in part], [p.second for p in part])
        )
        context = reward_context(sources, masks, vlm.view)
        shown = margins(vlm, first, second, queries, context).tolist()
        turned = margins(vlm, second, first, queries, context).tolist()
        for b, pair in enumerate(part):
            for d, question in enumerate(pair.questions):
                orders = shown[b][d], turned[b][d]
                number = f":{d}" if relation == "swap" else ""
                found.append(
                    Outcome(
                        key=f"{pair.group}:{question.dimension}{number}",
                        task=groups.tasks[pair.group],
                        dimension=question.dimension,
                        relation=relation,
                        winner_first=orders[0] if question.first_wins else orders[1],
                        winner_second=orders[1] if question.first_wins else orders[0],
                    )
                )
    return found


def judge(vlm: RewardVLM, groups: Groups, seed: int, variants: Sequence[int] = ()) -> list[Outcome]:
    found = outcomes(vlm, groups, judged_pairs(groups, seed, variants), "direct")
    return found + outcomes(vlm, groups, swap_pairs(groups, seed), "swap")


def evaluate(location: Path, groups: Groups, seed: int) -> dict[str, Any]:
    vlm = load_reward_vlm(location)
    return figures(judge(vlm, groups, seed), min_test_pairs=10, temperature=vlm.temperature)


def by_dimension(report: dict[str, Any]) -> dict[str, float]:
    """Accuracy per dimension over all tasks, weighted by pairs."""
    totals: dict[str, list[float]] = {}
    for row in report["reward_accuracy"].values():
        for name, cell in row.items():
            total = totals.setdefault(name, [0.0, 0.0])
            total[0] += cell["accuracy"] * cell["n"]
            total[1] += cell["n"]
    return {name: round(right / count, 4) for name, (right, count) in sorted(totals.items())}
