"""How often a reward model is right about the newest labels, before it has learnt from them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from annotation.models import Judgment, JudgmentQuerySet
from generation.models import Split
from modeling import snapshots
from modeling.evaluation import EvaluationError
from modeling.judging import Judge
from modeling.models import RewardModel
from modeling.statistics import Interval, wilson


def unseen(model: RewardModel, *, simulated: bool) -> JudgmentQuerySet:
    """Best/worst labels that neither the model nor one before it learnt from, newest first."""
    learnt = Judgment.objects.filter(
        snapshots__in=_snapshots(model), set__source__split=Split.TRAIN
    )
    return (
        Judgment.objects.counted()
        .filter(outcome=Judgment.Outcome.PICKED, assignment__item__campaign__simulated=simulated)
        .exclude(pk__in=learnt.values("pk"))
        .order_by("-pk")
    )


def _snapshots(model: RewardModel) -> list[int]:
    """What the model and its ancestors were trained on."""
    found, one = [], model
    while True:
        if one.snapshot_id is not None:
            found.append(one.snapshot_id)
        if one.parent is None:
            return found
        one = one.parent


def accuracy(models: list[RewardModel], judgments: list[int]) -> list[Interval]:
    """Of each model: the share of these labels' best/worst pairs it orders as people did.

    The pairs are those that a training would see; nothing but this figure is kept of them.
    """
    from annotation import datasets
    from modeling.reward.data import Pictures, Snapshot, pairs_of
    from modeling.reward.evaluate import outcomes
    from modeling.rundir import RunError

    snapshots.root().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".newest-", dir=snapshots.root()))
    try:
        datasets.write(folder, Judgment.objects.filter(pk__in=judgments))
        snapshot = Snapshot(folder)
        pairs = [pair for split in Split.values for pair in pairs_of(snapshot, split)]
        found = []
        for model in models:
            vlm = Judge(model.location, model.adapter).vlm
            answers = outcomes(vlm, pairs, Pictures(snapshot, vlm.view))
            right = [one.correct for one in answers if one.relation == "direct"]
            found.append(wilson(sum(right), len(right)))
        return found
    except (RunError, FileNotFoundError) as error:
        raise EvaluationError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
