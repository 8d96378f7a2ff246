"""Order pictures by a reward model; which pairs it compares is decided in `tournament`.

The pictures take part in the order of their content's hash: the order in which they were given
changes nothing. Pictures that look the same to the model take part once. Several contests are
asked together, so that their comparisons share batches.

Shapes: N pictures of one source, D questions, M members of an ensemble.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.tournament import Floats, Margins, Pair, flipped, strengths, tournament
from modeling.reward.uncertainty import Ensemble, each, spread
from modeling.reward.vlm import RewardVLM

PAIRS_PER_BATCH = 32
# Two pictures whose scores differ by less stand in the order of their hashes: the last bits of a
# score depend on what else was in its batch.
DECIMALS = 4


@dataclass(frozen=True)
class Ranking:
    order: list[int]  # indices from best to worst
    # (N, D) each picture's mean margin over the others, half the difference of both orders; an
    # estimate of it for those far from the lead. Mean over the members.
    scores: Tensor
    std: Tensor  # (N, D) of the scores over the members; 0 for a single model
    flipped: Tensor  # (N, D) share of its comparisons in both orders whose winner changes
    forwards: int  # comparisons that were asked, of all members together


@dataclass(frozen=True)
class Contest:
    """Reward views (N, 3, H, W) of one source's pictures and its dimensions' rendered queries."""

    views: Tensor
    queries: Sequence[str]
    # (1, 3, H, W) from `reward_context`, for a model whose view shows one; else None.
    context: Tensor | None = None


def rerank(
    judges: RewardVLM | Ensemble,
    views: Tensor,
    queries: list[str],
    context: Tensor | None = None,
    *,
    caution: float = 0.0,
    every_pair: bool = False,
) -> Ranking:
    """Rank the pictures of one source; the arguments are those of `Contest` and `rerank_all`."""
    contest = Contest(views, queries, context)
    return rerank_all(judges, [contest], caution=caution, every_pair=every_pair)[0]


@torch.no_grad()
def rerank_all(
    judges: RewardVLM | Ensemble,
    contests: Sequence[Contest],
    *,
    caution: float = 0.0,
    every_pair: bool = False,
) -> list[Ranking]:
    """Rank the pictures of each contest.

    Args:
        caution: order by score - caution * std over an ensemble's members instead of by score.
        every_pair: compare all pairs in both orders.
    """
    running = [_Running.of(contest, every_pair) for contest in contests]
    while waiting := [one for one in running if one.wanted]:
        asked = [(one, pair) for one in waiting for pair in one.wanted]
        answers = [_compare(vlm, asked) for vlm in each(judges)]  # M lists, one row per pair
        for one in waiting:
            mine = [
                np.stack([row for (who, _), row in zip(asked, rows, strict=True) if who is one])
                for rows in answers
            ]
            one.go_on(mine)
    return [one.ranking(caution) for one in running]


@dataclass(eq=False)
class _Running:
    contest: Contest
    digests: list[bytes]  # of the pictures, as they were given
    places: list[int]  # where the distinct pictures lie among them, by their hashes
    stages: Generator[list[Pair], Floats, Margins]
    wanted: list[Pair] = field(default_factory=list)
    members: list[Margins] = field(default_factory=list)

    @classmethod
    def of(cls, contest: Contest, every_pair: bool) -> _Running:
        views = contest.views.detach().float().cpu().contiguous()
        digests = [hashlib.sha256(view.numpy().tobytes()).digest() for view in views]
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        places = [first[digest] for digest in sorted(first)]
        one = cls(contest, digests, places, tournament(len(places), every_pair=every_pair))
        if len(places) > 1:
            one.wanted = next(one.stages)
        return one

    def go_on(self, answers: list[Floats]) -> None:
        self.members = self.members or [{} for _ in answers]
        for known, margins in zip(self.members, answers, strict=True):
            known.update(zip(self.wanted, margins, strict=True))
        try:
            self.wanted = self.stages.send(np.mean(answers, axis=0))
        except StopIteration:
            self.wanted = []

    def ranking(self, caution: float) -> Ranking:
        count = len(self.places)
        if not self.members:
            nothing = torch.zeros(len(self.digests), len(self.contest.queries))
            return Ranking(list(range(len(nothing))), nothing, nothing, nothing, 0)
        by_member = torch.from_numpy(np.stack([strengths(k, count) for k in self.members]))
        turned = torch.from_numpy(np.stack([flipped(k, count) for k in self.members]))
        mean, std = by_member.mean(0), spread(by_member)  # (distinct pictures, D)
        # One decision for a picture: the members' disagreement about its mean over the questions.
        safe = mean.mean(1) - caution * spread(by_member.mean(2))
        rank = sorted(range(count), key=lambda k: (-round(float(safe[k]), DECIMALS), k))
        place_of = {self.digests[place]: k for k, place in enumerate(self.places)}
        mine = [place_of[digest] for digest in self.digests]  # each picture among the distinct
        return Ranking(
            order=sorted(range(len(mine)), key=lambda i: (rank.index(mine[i]), i)),
            scores=mean[mine].float(),
            std=std[mine].float(),
            flipped=turned.mean(0)[mine].float(),
            forwards=sum(len(known) for known in self.members),
        )


def _compare(vlm: RewardVLM, asked: list[tuple[_Running, Pair]]) -> list[Floats]:
    """For each pair the margins (D,) that its first picture is the better one."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (one, _) in enumerate(asked):
        by_size[tuple(one.contest.views.shape[-2:])].append(number)
    found: dict[int, Floats] = {}
    for same_size in by_size.values():
        for start in range(0, len(same_size), PAIRS_PER_BATCH):
            part = same_size[start : start + PAIRS_PER_BATCH]
            found |= zip(part, _batch(vlm, [asked[number] for number in part]), strict=True)
    return [found[number] for number in range(len(asked))]


def _batch(vlm: RewardVLM, asked: list[tuple[_Running, Pair]]) -> list[Floats]:
    images: list[Tensor] = []
    index_of: dict[tuple[int, int], int] = {}

    def index(one: _Running, place: int) -> int:
        """Where the picture lies among those of this batch; the context's place is -1."""
        if (key := (id(one), place)) not in index_of:
            index_of[key] = len(images)
            shown = one.contest.context
            picture = one.contest.views[place] if place >= 0 or shown is None else shown[0]
            images.append(picture.to(vlm.device))
        return index_of[key]

    rows = []
    for one, pair in asked:
        before = () if one.contest.context is None else (index(one, -1),)
        rows.append((*before, *(index(one, one.places[k]) for k in pair)))
    queries = [list(one.contest.queries) for one, _ in asked]
    margins = margins_of(vlm, answer_logits(vlm, torch.stack(images), rows, queries))
    answers = margins.double().cpu().numpy()  # (B, the most questions)
    return [row[: len(texts)] for row, texts in zip(answers, queries, strict=True)]
