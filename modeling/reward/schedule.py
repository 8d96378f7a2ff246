"""What a reward training learns from, and which of it every step sees."""

from __future__ import annotations

import dataclasses

import numpy as np

from modeling.reward import evaluate as evaluation
from modeling.reward.config import RewardConfig
from modeling.reward.data import (
    Pair,
    Snapshot,
    Swaps,
    batches_of_epoch,
    calibration_split,
    count_questions,
    good_pictures,
    pairs_of,
    steps_for,
    turned,
)
from modeling.reward.labels import weigh
from modeling.rundir import RunError


@dataclasses.dataclass
class Data:
    snapshot: Snapshot
    train: list[Pair]
    calibration: list[Pair]
    holdout: list[Pair]  # with their swaps
    swaps: Swaps


def load_data(config: RewardConfig) -> Data:
    snapshot = Snapshot(config.snapshot)
    weigh(snapshot, config)
    ties = config.ties != "off"
    splits = sorted({row["split"] for row in snapshot.rows})
    everything = [
        p for s in splits if s != config.holdout for p in pairs_of(snapshot, s, ties=ties)
    ]
    found = count_questions(everything)
    if found < config.min_pairs:
        raise RunError(
            f"Training needs at least {config.min_pairs} labelled pairs; the snapshot has {found} "
            "outside its holdout. Label more sets."
        )
    train, calibration = calibration_split(everything, config.calibration_share, config.seed)
    sources = {pair.source for pair in train}
    goods = [
        good
        for split in splits
        if split != config.holdout
        for good in good_pictures(snapshot, split)
        if good.shown.source in sources
    ]
    return Data(
        snapshot=snapshot,
        train=train,
        calibration=decided(calibration) if ties else calibration,
        holdout=evaluation.evaluation_pairs(snapshot, config.holdout),
        swaps=Swaps(snapshot, goods),
    )


class Schedule:
    """Which pairs each step sees: a function of the step, so that a resumed run sees the same."""

    def __init__(self, data: Data, config: RewardConfig) -> None:
        self.data, self.config = data, config
        self.swap_count = round(config.swap_share * config.batch_size) if data.swaps else 0
        self.batch_size = max(1, config.batch_size - self.swap_count)
        self.per_epoch = steps_for(data.train, steps=0, epochs=1, batch_size=self.batch_size)
        self.steps = steps_for(
            data.train, steps=config.steps, epochs=config.epochs, batch_size=self.batch_size
        )
        self.epoch, self.batches = -1, list[list[Pair]]()

    def pairs(self, step: int) -> list[Pair]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches = batches_of_epoch(
                self.data.train, batch_size=self.batch_size, seed=self.config.seed, epoch=epoch
            )
        pairs = list(self.batches[place])
        if self.swap_count:
            rng = np.random.default_rng([self.config.seed, 3, step])
            pairs += self.data.swaps.draw(rng, self.swap_count, pairs[0].size)
        if self.config.order == "random":
            drawn = np.random.default_rng([self.config.seed, 5, step]).random(len(pairs)) < 0.5
            pairs = [
                turned(pair) if turn else pair for pair, turn in zip(pairs, drawn, strict=True)
            ]
        return pairs

    def warmed(self, step: int) -> float:
        """The share of the peak learning rate at this step."""
        warm = max(1, round(self.config.warmup * self.steps))
        rising, falling = (step + 1) / warm, (self.steps - step) / max(1, self.steps - warm)
        return min(1.0, rising, falling)


def decided(pairs: list[Pair]) -> list[Pair]:
    """The questions of which most decided answers name one winner, which calibration needs."""
    found = []
    for pair in pairs:
        questions = tuple(q for q in pair.questions if q.tie < 1 and q.target != 0.5)
        if questions:
            found.append(dataclasses.replace(pair, questions=questions))
    return found


def share_of_ties(pairs: list[Pair]) -> float:
    """Of the answers to judged questions, by weight."""
    questions = [question for pair in pairs for question in pair.questions]
    total = sum(question.weight for question in questions)
    return sum(question.weight * question.tie for question in questions) / total
