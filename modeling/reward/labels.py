"""What each answer weighs in a training: its relation, its annotator, its age.

The snapshot weighs a direct relation 1, an implied one and a tie 0.5. A training may scale implied
relations, trust reliable annotators more and old answers less:

    weight x implied_weight (implied relations only) x reliability x 2^(-age / half-life)

Reliability is how much better than guessing an annotator is on the dimension, as the one-coin
Dawid-Skene model of `annotation.aggregation` estimates it; answers of annotators that it knows
nothing about count as the average of the others'. Age counts from the snapshot's newest answer, so
that training the same snapshot later gives the same model. Only ratios matter: the loss is a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from modeling.reward.config import RewardConfig
from modeling.reward.data import Snapshot
from modeling.rundir import RunError

Row = dict[str, Any]


def weigh(snapshot: Snapshot, config: RewardConfig) -> None:
    """Weigh the answers outside the holdout as `config` says; those that weigh nothing go.

    The holdout keeps its own weights, so that models trained in different ways are compared on the
    same answers.
    """
    if config.implied_weight == 1 and not config.reliability and not config.half_life_days:
        return
    rows = snapshot.rows + snapshot.ties
    newest = max((row["judged_at"] for row in rows if row.get("judged_at")), default=None)
    if config.half_life_days and newest is None:
        raise RunError(
            "The snapshot does not say when people judged. Take it again, or set half_life_days to "
            "0."
        )
    known = [row["reliability"] for row in rows if row.get("reliability") is not None]
    if config.reliability and not known:
        raise RunError(
            "The snapshot does not say how reliable its annotators are. Run `manage.py aggregate` "
            "for its campaigns and take it again, or set reliability to false."
        )
    average = sum(known) / len(known) if known else 1.0

    def factor(row: Row) -> float:
        found = config.implied_weight if row.get("relation") == "implied" else 1.0
        if config.reliability:
            own = row.get("reliability")
            found *= average if own is None else own
        if config.half_life_days and newest is not None:
            # An answer without a time is taken for a new one.
            age = newest - (row.get("judged_at") or newest)
            found *= 0.5 ** (age / timedelta(days=config.half_life_days))
        return found

    def weighed(found: Sequence[Row]) -> list[Row]:
        kept = [
            row
            if row["split"] == config.holdout
            else {**row, "weight": row["weight"] * factor(row)}
            for row in found
        ]
        return [row for row in kept if row["weight"] > 0]

    snapshot.rows, snapshot.ties = weighed(snapshot.rows), weighed(snapshot.ties)
