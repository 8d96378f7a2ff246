"""The history of sampling plans: versions, who made them, their weights, and what they led to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation import charts
from annotation.charts import Chart
from annotation.models import Judgment
from generation.bandit import PARAMETERS
from generation.models import CandidateSet, SamplingPlan, Task
from modeling import sampling
from modeling.models import RewardModel
from modeling.sampling import Said
from modeling.statistics import Interval, wilson

MOST_SETS = 2000  # a task's newest labelled sets
NAMES = {
    "steps": lazy("Steps"),
    "strength": lazy("Strength"),
    "guidance_scale": lazy("Guidance scale"),
    "true_cfg_scale": lazy("True CFG scale"),
    "negative_prompts": lazy("Negative prompts"),
}


@dataclass(frozen=True)
class Value:
    shown: str
    percent: int


@dataclass(frozen=True)
class Drawn:
    name: str
    values: list[Value]


@dataclass(frozen=True)
class Version:
    plan: SamplingPlan
    drawn: list[Drawn]
    picked: Interval  # share of a set's labels with a best and a worst, mean over sets
    informative: Interval  # the same, of those that were close under the reward model, too


@dataclass(frozen=True)
class History:
    task: Task
    versions: list[Version]  # the newest first
    chart: Chart | None


def histories(*, simulated: bool, model: RewardModel | None) -> list[History]:
    tasks = Task.objects.active().filter(plans__isnull=False).distinct()
    found = [_history(task, simulated=simulated, model=model) for task in tasks]
    return sorted(found, key=lambda one: one.chart is None)  # those with something to see first


def only_simulated() -> bool:
    """Whether nobody but simulated annotators has labelled what was drawn from a plan."""
    drawn = Judgment.objects.filter(set__plan__isnull=False)
    by_people = drawn.filter(assignment__item__campaign__simulated=False)
    return drawn.exists() and not by_people.exists()


def _history(task: Task, *, simulated: bool, model: RewardModel | None) -> History:
    judged = sampling.labels(task, simulated=simulated)
    newest = CandidateSet.objects.filter(pk__in=judged.values("set")).order_by("-pk")[:MOST_SETS]
    plan_of = dict(newest.values_list("pk", "plan"))
    judged = judged.filter(set__in=plan_of)
    picked = _by_plan(sampling.said_of(judged), plan_of)
    informative = _by_plan(sampling.said_of(judged, model), plan_of) if model else {}
    nothing = wilson(0, 0)
    versions = [
        Version(
            plan=plan,
            drawn=_drawn(plan),
            picked=picked.get(plan.pk, nothing),
            informative=informative.get(plan.pk, nothing),
        )
        for plan in task.plans.order_by("-version")
    ]
    return History(task, versions, _chart(versions[::-1], model))


def _by_plan(said: dict[int, Said], plan_of: dict[int, Any]) -> dict[int, Interval]:
    shares: dict[int, list[float]] = defaultdict(list)
    for set_id, one in said.items():
        shares[plan_of[set_id]].append(one.informative / one.labels)
    return {plan: wilson(sum(of_plan), len(of_plan)) for plan, of_plan in shares.items()}


def _drawn(plan: SamplingPlan) -> list[Drawn]:
    """The parameters that have a choice; where nothing was learnt each value is as likely."""
    found = []
    for name in PARAMETERS:
        values = getattr(plan, name)
        weights = plan.weights.get(name) or [1.0] * len(values)
        if len(values) > 1:
            shown = [
                Value(str(value) or _("none"), round(100 * weight / sum(weights)))
                for value, weight in zip(values, weights, strict=True)
            ]
            found.append(Drawn(str(NAMES[name]), shown))
    return found


def _chart(versions: list[Version], model: RewardModel | None) -> Chart | None:
    """By the reward model's opinion where there is one, else by what people picked alone."""
    scored = any(version.informative.n for version in versions)
    shares = [
        (version, share)
        for version in versions
        for share in [version.informative if scored else version.picked]
        if share.n
    ]
    if not shares:
        return None
    last = shares[-1][1]
    return charts.band_chart(
        title=_("%(share)s %% of the labels of the newest judged version say something")
        % {"share": last.percent},
        unit=(
            _("close under %(model)s, 95 %% interval by version") % {"model": model}
            if scored
            # xgettext:no-python-format
            else _("a best and a worst picked, 95 % interval by version")
        ),
        # xgettext:no-python-format
        head=[_("Version"), _("Since"), _("Share"), _("95 % interval"), "n"],
        names=[str(version.plan.version) for version, _share in shares],
        points=[(share.value, share.low, share.high) for _version, share in shares],
        rows=[
            [
                str(version.plan.version),
                date_format(version.plan.created_at, "Y-m-d"),
                f"{share.percent} %",
                share.bounds,
                str(share.n),
            ]
            for version, share in shares
        ],
        ticks=8,
    )
