"""What the pages of the loop show: database rows and run directories, shaped for templates."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from generation import shared
from generation.models import Image, Policy, Project, Source
from generation.ownership import JobState
from modeling.charts import Chart, line_chart
from modeling.models import Evaluation, EvaluationPair, Round, RoundStep, TrainingRun


@dataclass(frozen=True)
class Frame:
    """One cell of a filmstrip."""

    image: Image | None
    caption: str
    score: float | None = None


@dataclass
class Strip:
    """One row of a filmstrip: the same source and noise under one policy after another."""

    source: Source
    frames: list[Frame] = field(default_factory=list)
    change: float = 0.0


@dataclass(frozen=True)
class Filmstrip:
    columns: list[str]
    strips: list[Strip]


def lineage(policy: Policy) -> list[Policy]:
    """The policy and its ancestors, oldest first."""
    chain = [policy]
    while chain[-1].parent is not None:
        chain.append(chain[-1].parent)
    return chain[::-1]


def filmstrip(
    policy: Policy, *, projects: QuerySet[Project] | None = None, most: int = 24
) -> Filmstrip:
    """Rows are held-out sources, columns the lineage's policies; the worst regressions first.

    Sources of other projects than those given are left out.
    """
    chain = lineage(policy)
    found: dict[tuple[int, int], dict[int, tuple[Image, float | None]]] = defaultdict(dict)
    sources: dict[tuple[int, int], Source] = {}
    pairs = (
        EvaluationPair.objects.filter(evaluation__policy__in=chain)
        .select_related("source__task", "source__image", "image", "parent_image", "evaluation")
        .order_by("evaluation_id")
    )
    if projects is not None:
        pairs = pairs.filter(source__project__in=projects)
    for pair in pairs:
        key = (pair.source_id, pair.seed)
        sources[key] = pair.source
        evaluation = pair.evaluation
        if evaluation.parent_policy_id is not None:
            found[key].setdefault(
                evaluation.parent_policy_id, (pair.parent_image, mean_score(pair, "parent"))
            )
        if evaluation.policy_id is not None:
            found[key][evaluation.policy_id] = (pair.image, mean_score(pair, "new"))
    shown = [p for p in chain if any(p.pk in cells for cells in found.values())]
    strips = []
    for key, cells in found.items():
        if policy.pk not in cells:
            continue
        strip = Strip(source=sources[key])
        for one in shown:
            image, score = cells.get(one.pk, (None, None))
            strip.frames.append(Frame(image=image, caption=one.name, score=score))
        scores = [frame.score for frame in strip.frames if frame.score is not None]
        strip.change = scores[-1] - scores[-2] if len(scores) > 1 else 0.0
        strips.append(strip)
    strips.sort(key=lambda strip: (strip.change, strip.source.pk))
    # Half of what is shown are the worst regressions, half the best improvements.
    if len(strips) > most:
        strips = strips[: most // 2] + strips[-(most - most // 2) :]
    return Filmstrip(columns=[p.name for p in shown], strips=strips)


def mean_score(pair: EvaluationPair, side: str) -> float | None:
    scores = pair.scores.get(side) or {}
    values = [value for value in scores.values() if isinstance(value, int | float)]
    return sum(values) / len(values) if values else None


# --- the running training ---


def metrics(run: TrainingRun) -> list[dict[str, Any]]:
    """The run's metrics so far; a line that is just being written is left out."""
    path = shared.file_of(run.directory, "metrics.jsonl")
    rows = []
    if path is not None:
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


CURVES: dict[TrainingRun.Kind, list[tuple[str, Any, Any]]] = {
    TrainingRun.Kind.REWARD: [
        ("loss", lazy("Loss"), lazy("nats")),
        ("accuracy", lazy("Accuracy on the training pairs"), lazy("share")),
        ("eval_accuracy", lazy("Accuracy on held-out pairs"), lazy("share")),
    ],
    TrainingRun.Kind.POLICY: [
        (
            "reward",
            lazy("P(Yes): better than the reference, says the reward model"),
            lazy("probability"),
        ),
        ("margin", lazy("Reward margin"), lazy("logits")),
        ("accuracy", lazy("Accuracy on the training pairs"), lazy("share")),
        ("anchor", lazy("Distance from the frozen base"), lazy("velocity MSE")),
        ("outside_psnr", lazy("Kept outside the mask"), "dB"),
    ],
}


def curves(run: TrainingRun) -> list[Chart]:
    rows = metrics(run)
    charts = []
    for key, name, unit in CURVES[TrainingRun.Kind(run.kind)]:
        title = str(name)
        points = [
            (float(row["step"]), float(row[key]))
            for row in rows
            if isinstance(row.get(key), int | float)
        ]
        chart = line_chart(title=_finding(title, points), unit=str(unit), series={title: points})
        if chart is not None:
            charts.append(chart)
    return charts


def _finding(title: str, points: list[tuple[float, float]]) -> str:
    if len(points) < 4:
        return title
    part = max(1, len(points) // 5)
    first = sum(y for __, y in points[:part]) / part
    last = sum(y for __, y in points[-part:]) / part
    return f"{title}: {first:.3g} → {last:.3g}"


# --- a round's line of steps ---


STATES = {
    "done": lazy("done"),
    "passed": lazy("passed"),
    "running": lazy("running"),
    "waiting": lazy("waiting"),
    "queued": lazy("queued"),
    "later": lazy("later"),
    "failed": lazy("failed"),
    "stopped": lazy("stopped"),
    "skipped": lazy("skipped"),
}


@dataclass(frozen=True)
class StepCard:
    step: RoundStep
    label: str
    seconds: float | None
    percent: int | None
    figure: str
    reason: str
    state: str  # one of STATES

    @property
    def state_label(self) -> str:
        return str(STATES[self.state])

    @property
    def may_retry(self) -> bool:
        return self.step.state in (JobState.FAILED, JobState.CANCELLED)

    @property
    def may_change(self) -> bool:
        """It can be skipped or rolled back to, unless the round did not come so far."""
        return self.state != "later"


def step_cards(round_: Round) -> list[StepCard]:
    return [_step_card(step) for step in round_.steps.all()]


def _step_card(step: RoundStep) -> StepCard:
    seconds = None
    if step.started_at and step.finished_at:
        seconds = (step.finished_at - step.started_at).total_seconds()
    percent = None
    if step.state == JobState.RUNNING and step.total:
        percent = min(100, round(100 * step.progress / step.total))
    result = step.result or {}
    reasons = [step.error, result.get("skipped"), result.get("reason"), step.message]
    return StepCard(
        step=step,
        label=step.get_name_display(),
        seconds=seconds,
        percent=percent,
        figure=str(result.get("figure", "")),
        reason=next(filter(None, reasons), ""),
        state=_shown_state(step, result),
    )


def _shown_state(step: RoundStep, result: dict[str, Any]) -> str:
    if step.state == JobState.SUCCEEDED:
        if "skipped" in result:
            return "skipped"
        if "passed" in result:
            return "passed" if result["passed"] else "failed"
        return "done"
    if step.state == JobState.CANCELLED:
        return "stopped"
    if step.is_waiting:
        return "waiting"
    return str(step.state) if step.state != JobState.QUEUED or step.started_at else "later"


def running_training(round_: Round) -> TrainingRun | None:
    """The training of the newest training step that has one."""
    for step in reversed(list(round_.steps.all())):
        run_id = (step.result or {}).get("run")
        if run_id:
            return TrainingRun.objects.filter(pk=run_id).first()
    return None


# --- tables of figures ---


@dataclass(frozen=True)
class Cell:
    value: float
    low: float | None
    high: float | None
    n: int | None

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.0f}"

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{100 * self.low:.0f}–{100 * self.high:.0f}"

    @property
    def shade(self) -> int:
        """0 (chance) to 5 (perfect): how strongly the cell is tinted."""
        return max(0, min(5, round((self.value - 0.5) * 10)))


@dataclass(frozen=True)
class Matrix:
    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]


def accuracy_matrix(figures: dict[str, Any]) -> Matrix | None:
    """Task × dimension of {"reward_accuracy": {task: {dimension: {"accuracy", …}}}}."""
    table = figures.get("reward_accuracy") or {}
    columns = list(dict.fromkeys(dimension for row in table.values() for dimension in row))
    if not columns:
        return None
    rows: list[tuple[str, list[Cell | None]]] = []
    for task, row in table.items():
        cells = [
            Cell(row[c]["accuracy"], row[c].get("low"), row[c].get("high"), row[c].get("n"))
            if c in row
            else None
            for c in columns
        ]
        rows.append((task, cells))
    return Matrix(columns=columns, rows=rows)


@dataclass(frozen=True)
class Comparison:
    name: str
    parent: float
    new: float
    difference: float
    low: float
    high: float
    n: int | None
    of_all: bool = False

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no clear difference"


def usable_rows(evaluation: Evaluation) -> list[Comparison]:
    rows = []
    for name, row in (evaluation.figures.get("usable") or {}).items():
        rows.append(
            Comparison(
                name=_("all tasks") if name == "all" else name,
                parent=row["parent"],
                new=row["new"],
                difference=row["difference"],
                low=row["low"],
                high=row["high"],
                n=row.get("n"),
                of_all=name == "all",
            )
        )
    return rows


def dimension_rows(evaluation: Evaluation) -> list[Comparison]:
    rows = []
    for task, dimensions in (evaluation.figures.get("dimensions") or {}).items():
        for dimension, row in dimensions.items():
            rows.append(
                Comparison(
                    name=f"{task} · {dimension}",
                    parent=row["parent"],
                    new=row["new"],
                    difference=row["new"] - row["parent"],
                    low=row["low"],
                    high=row["high"],
                    n=row.get("n"),
                )
            )
    return rows
