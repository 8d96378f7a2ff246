"""Figures from papers, taken over as they stand there, beside our own in a study's tables.

A row names system, task and metric: usable, success or reward_accuracy in per cent, mos from 1 to
5, or good, same and bad in per cent against the system in `versus`. `n` is the number of pictures.
`published/onereward.csv` holds those of the OneReward paper.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from generation.readers import ReadError, Record, read_records
from modeling.models import PublishedFigure, Study

Metric = PublishedFigure.Metric
MOST_ROWS = 5000
VERSUS = {Metric.GOOD.value, Metric.SAME.value, Metric.BAD.value}


class FigureError(ValueError):
    """A row that cannot be taken; the message says why."""


@dataclass
class Report:
    rows: int = 0
    created: int = 0
    changed: int = 0
    same: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        refused = [{"row": row, "reason": reason} for row, reason in self.refused]
        return {**vars(self), "refused": refused}


def from_path(path: str | Path) -> Iterable[Record]:
    """The rows of a .csv, .jsonl or .parquet file. Raises ReadError."""
    return read_records(Path(path).expanduser())


def from_csv(text: str) -> Iterable[Record]:
    """The rows of an uploaded CSV table."""
    reader = csv.DictReader(io.StringIO(text))
    return ((f"line {reader.line_num}", record) for record in reader)


def import_figures(study: Study, records: Iterable[Record], *, dry_run: bool = False) -> Report:
    """Store every good row; one that is there already takes the new value.

    With `dry_run` everything is checked and nothing kept.
    """
    report = Report()
    with transaction.atomic():
        for name, record in records:
            report.rows += 1
            if report.rows > MOST_ROWS:
                raise ReadError(
                    _("More than %(n)s rows are no table of a paper.") % {"n": MOST_ROWS}
                )
            try:
                if isinstance(record, str):
                    raise FigureError(f"This {record}.")
                _store(study, record, report)
            except FigureError as error:
                report.refused.append((name, str(error)))
        transaction.set_rollback(dry_run)
    return report


def _store(study: Study, record: dict[str, Any], report: Report) -> None:
    metric = _text(record, "metric")
    if metric not in Metric.values:
        raise FigureError(
            _("“%(metric)s” is no metric. Known: %(known)s.")
            % {"metric": metric, "known": ", ".join(Metric.values)}
        )
    system, task, versus = (_text(record, name) for name in ("system", "task", "versus"))
    if not system or not task:
        raise FigureError(_("It names no system or no task."))
    if (metric in VERSUS) != bool(versus):
        raise FigureError(
            _(
                "The column versus names the other system of good, same and bad, and is empty for "
                "the rest."
            )
        )
    value = _number(record, "value")
    n = _number(record, "n") if _text(record, "n") else None
    low, high = (1, 5) if metric == Metric.MOS else (0, 100)
    if value is None or not low <= value <= high:
        raise FigureError(
            _("Its value is not a number from %(low)s to %(high)s.") % {"low": low, "high": high}
        )
    if n is not None and (n != int(n) or not 0 < n < 10**9):
        raise FigureError(_("Its n is not a whole number above 0."))
    found, created = PublishedFigure.objects.get_or_create(
        study=study,
        system=system[:120],
        versus=versus[:120],
        task=task[:80],
        dimension=_text(record, "dimension")[:80],
        metric=metric,
        defaults=(
            said := {
                "value": value,
                "n": None if n is None else int(n),
                "citation": _text(record, "citation")[:300],
            }
        ),
    )
    if created:
        report.created += 1
    elif all(getattr(found, name) == wanted for name, wanted in said.items()):
        report.same += 1
    else:
        PublishedFigure.objects.filter(pk=found.pk).update(**said)
        report.changed += 1


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else str(value).strip()


def _number(record: dict[str, Any], name: str) -> float | None:
    try:
        value = float(_text(record, name))
    except ValueError:
        return None
    return value if isfinite(value) else None
