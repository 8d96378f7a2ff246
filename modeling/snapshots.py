"""Immutable datasets: the exact judgments that a training saw, addressed by their content."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, Max, Min, OuterRef, Q

from annotation.models import ASKED_HERE, Feedback, Judgment, JudgmentQuerySet
from generation import shared
from generation.models import CandidateSet, Split
from modeling.models import Snapshot


class SnapshotError(Exception):
    """One readable sentence: what is missing or damaged, and the remedy."""


def root() -> Path:
    return Path(settings.DATA_DIR) / "snapshots"


def take(
    judgments: JudgmentQuerySet,
    *,
    feedback_weight: float | None = None,
    imported_weight: float | None = None,
) -> Snapshot:
    """Write those of `judgments` that count as a dataset; the same ones give the same snapshot.

    With `feedback_weight` what production says goes along, at that weight beside people's answers;
    with `imported_weight` what was imported, of training pictures alone: held-out figures stay
    those of people asked here.
    """
    # It brings pyarrow, which is large; the web imports this module and writes no dataset.
    from annotation import datasets

    counted = judgments.counted(imported=imported_weight is not None)
    if imported_weight is not None:
        counted = counted.filter(Q(**ASKED_HERE) | _learnable())
    picked = counted.filter(outcome=Judgment.Outcome.PICKED).count()
    if picked == 0:
        raise SnapshotError(
            f"There is no label to learn from: {counted.count()} judgments, none with a best and a "
            "worst candidate. Label some sets first."
        )
    root().mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".taking-", dir=root()))
    try:
        implied = None
        if feedback_weight is not None:
            implied = datasets.WeightedFeedback(Feedback.objects.counted(), feedback_weight)
        # Judgments that arrive while it is written belong to the next snapshot.
        with datasets.one_moment():
            ids = list(counted.order_by("pk").values_list("pk", flat=True))
            written = datasets.write(
                temporary,
                counted,
                implied=implied,
                imported_weight=1.0 if imported_weight is None else imported_weight,
            )
        directory = root() / written.content_hash
        temporary.chmod(0o755)
        try:
            temporary.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise the same judgments were taken before
                raise
        with transaction.atomic():
            snapshot, created = Snapshot.objects.get_or_create(
                content_hash=written.content_hash,
                defaults={"directory": shared.publish(directory), "counts": written.counts},
            )
            if created:
                snapshot.judgments.add(*ids)
        return snapshot
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def left_out(judgments: JudgmentQuerySet) -> int:
    """How many imported ones a training does not see, even where it is asked to."""
    imported = judgments.counted(imported=True).exclude(**ASKED_HERE)
    return imported.exclude(_learnable()).count()


def _learnable() -> Q:
    """Imported judgments of training pictures whose candidates are of one size, as pairs must be.

    A model that others asked about may have answered in any size.
    """
    sizes = CandidateSet.objects.annotate(
        narrow=Min("candidates__width"),
        wide=Max("candidates__width"),
        low=Min("candidates__height"),
        high=Max("candidates__height"),
    )
    alike = sizes.filter(narrow=F("wide"), low=F("high"), pk=OuterRef("set"))
    return Q(Exists(alike), set__source__split=Split.TRAIN)


def check(snapshot: Snapshot) -> None:
    """Raise SnapshotError unless the snapshot's files are where its row says."""
    if not shared.exists(snapshot.directory):
        raise SnapshotError(
            f"The files of {snapshot} are missing from '{snapshot.directory}'. Restore that "
            "directory from a backup, or take a new snapshot of the judgments."
        )
