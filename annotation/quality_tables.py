"""The quality page's tables as CSV, written row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from math import isnan
from typing import Any

from django.http import StreamingHttpResponse

from annotation import figures, quality_page
from annotation.agreement import Estimate
from annotation.judged import Filters, Judged, standing
from annotation.models import Campaign, Consensus, Judgment
from annotation.quality_page import Names

Table = Iterator[Sequence[Any]]
MOST_ITEMS = 10_000


class Echo:
    def write(self, value: str) -> str:
        return value


def download(rows: Iterable[Sequence[Any]], name: str) -> StreamingHttpResponse:
    writer = csv.writer(Echo())
    response = StreamingHttpResponse(
        (writer.writerow([_cell(value) for value in row]) for row in rows),
        content_type="text/csv; charset=utf-8",
    )
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    # A spreadsheet takes text that begins so for a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _estimate(found: Estimate) -> tuple[float, float, float, int]:
    return found.value, found.low, found.high, found.n


def _head(*names: str) -> list[str]:
    return [part for name in names for part in (name, f"{name}_low", f"{name}_high", f"{name}_n")]


def annotators(campaign: Campaign, judged: Judged, names: Names) -> Table:
    yield [
        *("annotator", "turns", "judgments", "gold", "gold_n", "attention_failed", "attention_n"),
        *("self_consistency", "self_consistency_n", "agreement_with_others", "comparisons"),
        *("estimated_reliability", "position_p", "position_n", "median_seconds", "speed_z"),
        *("speed_outliers", "timed_turns", "no_difference", "cannot_judge", "paused", "signs"),
    ]
    for line in quality_page.lines(campaign, judged, names, sort="name"):
        person = line.person
        yield [
            *(line.name, person.turns, person.judgments, person.gold.value, person.gold.n),
            *(person.failed_attention, person.attention.n),
            *(person.repeats.value, person.repeats.n, person.others.value, person.others.n),
            *(line.reliability, person.bias.p_value, person.bias.n),
            *(person.seconds, person.speed_z, person.outliers.points, person.outliers.n),
            *(person.no_difference.value, person.cannot_judge.value),
            *(line.paused, "; ".join(line.signs)),
        ]


def agreement(judged: Judged) -> Table:
    yield [
        *("task", "dimension", "judgments"),
        *_head("pairwise", "alpha_nominal", "alpha_ordinal"),
    ]
    for line in quality_page.agreement_lines(judged):
        found = line.figures
        yield [
            line.task.slug if line.task else "all",
            line.dimension.slug if line.dimension else "all",
            found.judgments,
            *_estimate(found.pairwise),
            *_estimate(found.picks),
            *_estimate(found.labels),
        ]


def hours(judged: Judged) -> Table:
    yield ["hour", "labels"]
    for start, n in figures.hourly(judged, quality_page.local_offset()):
        yield [datetime.fromtimestamp(start, tz=UTC), n]


def over_time(judged: Judged) -> Table:
    yield ["from", "days", *_head("pairwise")]
    found, weekly = quality_page.spells(judged)
    for spell in found:
        start = datetime.fromtimestamp(spell.start, tz=UTC)
        yield [start, 7 if weekly else 1, *_estimate(spell.pairwise)]


def places(campaign: Campaign, judged: Judged, names: Names) -> Table:
    yield ["annotator", "place", "picks", "share", "expected_share", "p_value"]
    crowd = quality_page.campaign_bias(judged)
    lines = quality_page.lines(campaign, judged, names, sort="name")
    for name, bias in [("all", crowd), *((line.name, line.person.bias) for line in lines)]:
        for place, picks in enumerate(bias.picks):
            share, even = bias.shares[place], bias.expected[place] / bias.n
            yield [name, place + 1, picks, share, even, bias.p_value]


def hardest(judged: Judged, by: str) -> Table:
    yield ["item", "people", "disagreement", "no_difference", "median_seconds"]
    for hard in figures.hardest(judged, by, MOST_ITEMS):
        yield [hard.item, hard.people, hard.disagreement, hard.no_difference, hard.seconds]


def consensus(campaign: Campaign) -> Table:
    yield [
        *("item", "set", "task", "dimension", "best", "worst", "confidence", "people"),
        *("majority", "majority_share"),
    ]
    rows = Consensus.objects.filter(item__campaign=campaign).values_list(
        *("item", "item__set", "item__set__source__task__slug", "dimension__slug"),
        *("best__index", "worst__index", "confidence", "people"),
        *("majority__index", "majority_share"),
    )
    for row in rows.order_by("item", "dimension").iterator(chunk_size=2000):
        said = list(row)
        for column in (4, 8):
            said[column] = "no_difference" if said[column] is None else said[column]
        yield said


def labels(judgments: Any, names: Names) -> Table:
    yield [
        *("judgment", "item", "set", "task", "dimension", "annotator", "kind", "answer"),
        *("best", "worst", "seconds", "submitted"),
    ]
    rows = judgments.values_list(
        *("pk", "assignment__item", "set", "set__source__task__slug", "dimension__slug"),
        *("assignment__annotator", "assignment__kind", "outcome", "best__index", "worst__index"),
        *("assignment__seconds_spent", "assignment__submitted_at"),
    )
    for row in rows.iterator(chunk_size=2000):
        said = list(row)
        said[5] = names(said[5])
        yield said


def labelled(campaign: Campaign, filters: Filters, outcome: str = "", kind: str = "") -> Any:
    """The judgments that stand, newest first."""
    rows = standing(campaign, filters)
    if outcome in Judgment.Outcome.values:
        rows = rows.filter(outcome=outcome)
    if kind:
        rows = rows.filter(assignment__kind=kind)
    return rows.order_by("-assignment__submitted_at", "-pk")
