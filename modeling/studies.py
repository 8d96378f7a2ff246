"""A study's tables: usability, scores and success per task and system, good/same/bad of two.

Measured figures come from rating and comparison campaigns, with intervals from clusters; those of a
paper stand beside them as they were published, with Wilson's interval where n is known. In each
table every system is tested against the best measured one of its row, with Holm's correction over
the whole table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.translation import gettext as _

from annotation.models import Dimension
from generation.models import Policy, Task
from modeling import leaderboard
from modeling.clusters import Answers, difference, mean, share
from modeling.leaderboard import Scope
from modeling.models import Evaluation, PublishedFigure, Study
from modeling.statistics import Interval, holm, p_worse, wilson
from modeling.strengths import FIRST, SECOND

Metric = PublishedFigure.Metric
# Of 1 to 5, what counts as success where a paper asks yes or no.
SUCCESS = 4
SUCCESS_DIMENSIONS = ("text_rendering", "removal_quality")
SIGNIFICANT = 0.05
GSB = (Metric.GOOD, Metric.SAME, Metric.BAD)


@dataclass(frozen=True)
class Cell:
    interval: Interval
    published: bool = False
    citation: str = ""
    best: bool = False
    p: float | None = None  # against the row's best, after Holm

    @property
    def bounded(self) -> bool:
        return self.interval.low == self.interval.low

    @property
    def clearly_below(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


@dataclass
class Table:
    """`rows` name the task, the dimension where there is one, and each system's cell."""

    key: str
    title: str
    note: str
    systems: list[str]
    percent: bool
    rows: list[tuple[str, str, list[Cell | None]]] = field(default_factory=list)

    @property
    def tested(self) -> bool:
        return any(cell and cell.p is not None for _, _, cells in self.rows for cell in cells)


@dataclass(frozen=True)
class Versus:
    """Good, same and bad of one policy against another."""

    task: str
    dimension: str
    good: Interval
    same: Interval
    bad: Interval
    net: Interval  # good - bad
    p: float | None  # two-sided, after Holm; None where it was published
    published: bool = False

    @property
    def n(self) -> int:
        return self.good.n

    @property
    def verdict(self) -> str:
        if self.p is None or self.p >= SIGNIFICANT:
            return ""
        return "better" if self.net.value > 0 else "worse"


def scope_of(study: Study) -> Scope:
    return Scope(project=study.project, campaigns=tuple(study.campaigns.all()))


def tasks_of(study: Study) -> list[Task]:
    return list(study.tasks.all()) or list(Task.objects.all())


def tables(study: Study) -> list[Table]:
    """Those with anything in them, in the order of a paper."""
    made = [_usable(study), _scores(study), *_successes(study), _reward_accuracy(study)]
    return [table for table in made if table.rows]


def _usable(study: Study) -> Table:
    return _table(
        study,
        Table("usable", _("Usability rate"), _("Share of pictures called usable."), [], True),
        Metric.USABLE,
        [None],
        share,
    )


def _scores(study: Study) -> Table:
    return _table(
        study,
        Table("mos", _("Mean opinion score"), _("Mean of the scores 1 to 5."), [], False),
        Metric.MOS,
        list(Dimension.objects.all()),
        mean,
    )


def _successes(study: Study) -> list[Table]:
    note = _("Share of pictures scored 4 or 5.")
    made = []
    for dimension in Dimension.objects.filter(slug__in=SUCCESS_DIMENSIONS):
        title = _("Success of %(dimension)s") % {"dimension": dimension.name.lower()}
        table = Table(f"success-{dimension.slug}", title, note, [], True)
        made.append(_table(study, table, Metric.SUCCESS, [dimension], share, at_least=SUCCESS))
    return made


Found = dict[tuple[str, str], dict[str, Cell]]


def _table(
    study: Study,
    table: Table,
    metric: Metric,
    dimensions: Sequence[Dimension | None],
    estimate: Callable[[Answers], Interval],
    *,
    at_least: int | None = None,
) -> Table:
    systems = set(study.systems.values_list("pk", flat=True))
    names = dict(Policy.objects.values_list("pk", "name"))
    scope = scope_of(study)
    found: Found = {}
    p_values: dict[str, float] = {}
    for task in tasks_of(study):
        for dimension in dimensions:
            said = leaderboard.ratings(
                replace(scope, task=task), dimension=dimension, at_least=at_least
            )
            said = {key: rows for key, rows in said.items() if not systems or key in systems}
            if not said:
                continue
            row = (task.name, dimension.name if dimension else "")
            cells = {names[key]: Cell(estimate(rows)) for key, rows in said.items()}
            best = max(said, key=lambda key: said[key].value.mean())
            cells[names[best]] = replace(cells[names[best]], best=True)
            for key, rows in said.items():
                if key != best:
                    p_values["\n".join([*row, names[key]])] = difference(rows, said[best])[1]
            found[row] = cells
    adjusted = holm(p_values)
    for row, cells in found.items():
        for name, cell in cells.items():
            if (p := adjusted.get("\n".join([*row, name]))) is not None:
                cells[name] = replace(cell, p=p)
    wanted = {one.slug for one in dimensions if one} | {one.name for one in dimensions if one}
    _add_published(study, metric, found, lambda name: not name or name in wanted)
    return _filled(table, found)


def _add_published(study: Study, metric: Metric, found: Found, fits: Callable[[str], bool]) -> None:
    tasks = dict(Task.objects.values_list("slug", "name"))
    dimensions = dict(Dimension.objects.values_list("slug", "name"))
    for figure in study.published.filter(metric=metric):
        if not fits(figure.dimension):
            continue
        row = (
            tasks.get(figure.task, figure.task),
            dimensions.get(figure.dimension, figure.dimension),
        )
        cell = Cell(published_interval(figure), published=True, citation=figure.citation)
        found.setdefault(row, {}).setdefault(_as_published(figure.system), cell)


def _as_published(system: str) -> str:
    return _("%(system)s (published)") % {"system": system}


def published_interval(figure: PublishedFigure) -> Interval:
    """The figure with Wilson's interval, computed here from its n; mean scores have none."""
    if figure.metric == Metric.MOS:
        return Interval(figure.value, float("nan"), float("nan"), figure.n or 0)
    value = figure.value / 100
    if not figure.n:
        return Interval(value, float("nan"), float("nan"), 0)
    computed = wilson(value * figure.n, figure.n)
    return Interval(value, computed.low, computed.high, figure.n)


def _filled(table: Table, found: Found) -> Table:
    systems = list(dict.fromkeys(name for cells in found.values() for name in cells))
    table.systems = sorted(systems, key=lambda name: name.endswith(_as_published("")))
    for (task, dimension), cells in found.items():
        table.rows.append((task, dimension, [cells.get(name) for name in table.systems]))
    return table


def _reward_accuracy(study: Study) -> Table:
    title = _("Accuracy of the reward model")
    note = _("Share of held-out pairs whose winner the model names.")
    names = dict(Task.objects.values_list("slug", "name"))
    dimensions = dict(Dimension.objects.values_list("slug", "name"))
    found: Found = {}
    # With published figures alone the table is the paper's; ours stand beside it.
    latest = (
        Evaluation.objects.filter(kind=Evaluation.Kind.REWARD, reward_model__state="active")
        .select_related("reward_model")
        .first()
    )
    if latest is not None and latest.reward_model is not None:
        for task, row in (latest.figures.get("reward_accuracy") or {}).items():
            for dimension, one in row.items():
                if one.get("accuracy") is None:
                    continue
                interval = Interval(one["accuracy"], one["low"], one["high"], one["n"])
                place = (names.get(task, task), dimensions.get(dimension, dimension))
                found.setdefault(place, {})[latest.reward_model.name] = Cell(interval)
    _add_published(study, Metric.REWARD_ACCURACY, found, lambda name: True)
    return _filled(Table("reward-accuracy", title, note, [], True), found)


# Good, same, bad --------------------------------------------------------------------------------


def versus(study: Study, a: Policy, b: Policy) -> list[Versus]:
    """A against B, per task over all dimensions and per dimension; corrected over all of them."""
    scope = scope_of(study)
    tasks = {task.pk: task.name for task in tasks_of(study)}
    dimensions = dict(Dimension.objects.values_list("pk", "name"))
    said: dict[tuple[str, str], list[tuple[float, int, int]]] = defaultdict(list)
    for compared in leaderboard.compared(leaderboard.judgments(scope)):
        if compared.task not in tasks:
            continue
        for one, other, outcome in compared.pairs:
            if {one, other} != {a.pk, b.pk}:
                continue
            sign = {FIRST: 1.0, SECOND: -1.0}.get(outcome, 0.0) * (1 if one == a.pk else -1)
            for name in ("", dimensions[compared.dimension]):
                said[tasks[compared.task], name].append((sign, compared.source, compared.person))
    rows = {
        place: Answers.of(*(list(column) for column in zip(*answers, strict=True)))
        for place, answers in sorted(said.items())
    }
    adjusted = holm({"\n".join(place): _p_of(answers) for place, answers in rows.items()})
    return [
        _measured(place, answers, adjusted["\n".join(place)]) for place, answers in rows.items()
    ]


def _measured(place: tuple[str, str], answers: Answers, p: float) -> Versus:
    good, same, bad = (
        share(replace(answers, value=chosen.astype(float)))
        for chosen in (answers.value > 0, answers.value == 0, answers.value < 0)
    )
    net = mean(answers)
    if net.low != net.low:
        # Where everybody said the same, as far as the shares themselves are known.
        net = Interval(net.value, good.low - bad.high, good.high - bad.low, net.n)
    return Versus(*place, good, same, bad, net, p)


def _p_of(answers: Answers) -> float:
    """Two-sided p of no difference: as often good as bad, source by source."""
    by_source: dict[int, list[float]] = defaultdict(list)
    for value, source in zip(answers.value.tolist(), answers.source.tolist(), strict=True):
        by_source[source].append(value)
    net = [sum(values) / len(values) for values in by_source.values()]
    zero = [0.0] * len(net)
    return min(1.0, 2 * min(p_worse(zero, net), p_worse(net, zero)))


def published_versus(study: Study) -> list[tuple[str, str, list[Versus]]]:
    """Published good/same/bad as (system, other, rows); a row needs all three figures."""
    tasks = dict(Task.objects.values_list("slug", "name"))
    found: dict[tuple[str, str, str, str], dict[str, Interval]] = defaultdict(dict)
    for figure in study.published.filter(metric__in=GSB):
        key = (figure.system, figure.versus, figure.task, figure.dimension)
        found[key][figure.metric] = published_interval(figure)
    made: dict[tuple[str, str], list[Versus]] = defaultdict(list)
    for (system, other, task, dimension), parts in found.items():
        if set(parts) != set(GSB):
            continue
        good, same, bad = (parts[name] for name in GSB)
        nan = float("nan")
        net = Interval(good.value - bad.value, nan, nan, good.n)
        made[system, other].append(
            Versus(tasks.get(task, task), dimension, good, same, bad, net, None, published=True)
        )
    return [(system, other, rows) for (system, other), rows in made.items()]


def rivals(study: Study) -> list[tuple[Policy, Policy]]:
    """The pairs of systems that were compared in the study's campaigns, most often first."""
    wanted = set(study.systems.values_list("pk", flat=True))
    times: dict[tuple[int, int], int] = defaultdict(int)
    for compared in leaderboard.compared(leaderboard.judgments(scope_of(study))):
        for one, other, _outcome in compared.pairs:
            if not wanted or {one, other} <= wanted:
                times[min(one, other), max(one, other)] += 1
    known = Policy.objects.in_bulk({key for pair in times for key in pair})
    # The newer of two is the one that is asked about.
    return [
        (known[newer], known[older])
        for (older, newer), _n in sorted(times.items(), key=lambda pair: -pair[1])
    ]


# For programs -----------------------------------------------------------------------------------

HEAD = ["table", "task", "dimension", "system", "versus", "published", "value", "low", "high", "n"]
HEAD += ["p_holm"]


def records(study: Study) -> Iterable[dict[str, Any]]:
    """Every figure of the study as a flat row, under the names of `HEAD`."""
    for table in tables(study):
        for task, dimension, cells in table.rows:
            for system, cell in zip(table.systems, cells, strict=True):
                if cell is not None:
                    about = (table.key, task, dimension, system, "", cell.published)
                    yield _record(about, cell.interval, cell.p)
    groups = [(a.name, b.name, versus(study, a, b)) for a, b in rivals(study)]
    for system, other, rows in [*groups, *published_versus(study)]:
        for row in rows:
            for name, interval in zip(GSB, (row.good, row.same, row.bad), strict=True):
                about = (name.value, row.task, row.dimension, system, other, row.published)
                yield _record(about, interval, row.p)


def _record(
    about: tuple[str, str, str, str, str, bool], interval: Interval, p: float | None
) -> dict[str, Any]:
    figures = [
        None if one != one else round(one, 4)
        for one in (interval.value, interval.low, interval.high)
    ]
    return dict(zip(HEAD, [*about, *figures, interval.n or None, p], strict=True))
