"""What a reader of a round's report must know before believing it: sentences from its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.models import Judgment
from modeling import lineage
from modeling.gates import FEW
from modeling.models import Evaluation, Round, Snapshot
from modeling.round_steps import Name

if TYPE_CHECKING:
    from modeling.governance_report import Collected

# Krippendorff (2004): below this alpha not even tentative conclusions should be drawn.
TENTATIVE = 0.667
# An expected calibration error above this makes P(Yes) misleading as a probability.
MISCALIBRATED = 0.1
Row = Mapping[str, Any]


def limits(
    round_: Round,
    collected: Sequence[Collected],
    measured: Evaluation | None,
    compared: Evaluation | None,
    learnt: Snapshot | None,
) -> list[str]:
    """`measured` is the reward model's evaluation, `compared` the policy's, where there is one."""
    found = [
        *_round(round_),
        *_labels(round_, collected),
        *_reward(round_, measured.figures if measured else None),
        *_policy(round_, compared.figures if compared else None),
        *_taints(round_, learnt),
    ]
    return list(dict.fromkeys(found))


def _round(round_: Round) -> Iterator[str]:
    if round_.finished_at is None:
        yield _("The round is not over: what is missing here may still come.")
    for step in round_.steps.all():
        reason = (step.result or {}).get("skipped")
        if reason and step.name != Name.HUMAN_CHECK:
            yield _("The step “%(step)s” was skipped: %(reason)s") % {
                "step": step.get_name_display(),
                "reason": reason,
            }


# Labels -------------------------------------------------------------------------------------------


def _labels(round_: Round, collected: Sequence[Collected]) -> Iterator[str]:
    labelled = next((one for one in collected if one.campaign.pk == round_.campaign_id), None)
    if labelled is None or not labelled.judgments:
        yield _("No labels were collected in this round.")
        return
    if labelled.campaign.simulated:
        yield _(
            "The labels come from simulated annotators, who read the starter world's ground truth "
            "with slips; they say nothing about people."
        )
    yield from _people(labelled)
    yield from _agreement(labelled)
    few = _few_labels(round_)
    if few:
        yield _("Fewer than %(few)s labels with a best and a worst: %(cells)s.") % {
            "few": FEW,
            "cells": _listed(few),
        }


def _people(labelled: Collected) -> Iterator[str]:
    given = [person.judgments for person in labelled.people]
    if len(given) == 1:
        yield _("All labels come from one annotator.")
    elif given and max(given) > sum(given) / 2:
        yield _("One of %(n)s annotators gave %(share)s of the judgments.") % {
            "n": len(given),
            "share": f"{max(given) / sum(given):.0%}",
        }


def _agreement(labelled: Collected) -> Iterator[str]:
    found = labelled.agreement
    if found is None or not found.labels.known:
        yield _(
            "No two annotators judged the same set, so it is not known whether others would agree."
        )
    elif found.labels.value < TENTATIVE:
        yield _(
            "Annotators agree little: Krippendorff's alpha is %(alpha)s (95 %% %(low)s … %(high)s, "
            "%(n)s candidates); from %(least)s on one may draw tentative conclusions."
        ) % {
            "alpha": f"{found.labels.value:.2f}",
            "low": f"{found.labels.low:.2f}",
            "high": f"{found.labels.high:.2f}",
            "n": found.labels.n,
            "least": TENTATIVE,
        }


def _few_labels(round_: Round) -> list[tuple[str, int]]:
    picked = Judgment.objects.counted().filter(
        assignment__item__campaign=round_.campaign, outcome=Judgment.Outcome.PICKED
    )
    cells = picked.values_list("set__source__task__slug", "dimension__slug")
    counts = Counter(f"{task} × {dimension}" for task, dimension in cells)
    return sorted((cell, n) for cell, n in counts.items() if n < FEW)


# The reward model ---------------------------------------------------------------------------------


def _reward(round_: Round, figures: Row | None) -> Iterator[str]:
    model = round_.reward_model
    if model is None:
        yield _("No reward model came out of this round.")
        return
    for task, dimension, reason in model.excluded:
        yield _("Left out of the policy's reward: %(cell)s, for %(reason)s.") % {
            "cell": f"{task} × {dimension}",
            "reason": reason,
        }
    if figures is None:
        yield _("The reward model was not measured on held-out labels.")
        return
    out = {f"{task} × {dimension}" for task, dimension, _reason in model.excluded}
    cells = {
        f"{task} × {dimension}": cell
        for task, row in (figures.get("reward_accuracy") or {}).items()
        for dimension, cell in row.items()
    }
    few = [(name, cell["n"]) for name, cell in cells.items() if cell["n"] < FEW]
    if few:
        yield _(
            "The reward model's accuracy rests on fewer than %(few)s held-out comparisons: "
            "%(cells)s."
        ) % {"few": FEW, "cells": _listed(few)}
    weak = [
        (name, f"{cell['accuracy']:.0%}")
        for name, cell in cells.items()
        if cell["n"] >= FEW and cell.get("low", 1.0) <= 0.5 and name not in out
    ]
    if weak:
        yield _("By itself not above chance, and rewarded all the same: %(cells)s.") % {
            "cells": _listed(weak)
        }
    if (error := figures.get("calibration_error")) is not None and error > MISCALIBRATED:
        yield _(
            "The reward model's confidence is off by %(points)s points on average; take P(Yes) for "
            "an order, not for a probability."
        ) % {"points": f"{100 * error:.0f}"}


# The policy ---------------------------------------------------------------------------------------


def _policy(round_: Round, figures: Row | None) -> Iterator[str]:
    if round_.policy is None:
        yield _("No policy came out of this round.")
        return
    if figures is None:
        yield _("The new policy was not compared with its parent.")
        return
    usable: Mapping[str, Row] = figures.get("usable") or {}
    if not usable:
        yield _("The sources carry no ground truth: only reward models judged the new pictures.")
    few = [(task, row["n"]) for task, row in usable.items() if task != "all" and row["n"] < FEW]
    if few:
        yield _("Compared on fewer than %(few)s held-out sources: %(cells)s.") % {
            "few": FEW,
            "cells": _listed(few),
        }
    if worse := figures.get("below_zero"):
        yield _(
            "The 95 %% interval of the difference from the parent lies below zero: %(cells)s."
        ) % {"cells": ", ".join(name.replace("/", " × ") for name in worse)}
    check = round_.steps.filter(name=Name.HUMAN_CHECK).first()
    if check is None or "passed" not in (check.result or {}):
        yield _("No person compared the new policy's pictures with its parent's.")


# What it learnt from ------------------------------------------------------------------------------


def _taints(round_: Round, learnt: Snapshot | None) -> Iterator[str]:
    rows = [(lineage.REWARD, round_.reward_model), (lineage.POLICY, round_.policy)]
    named = [(kind, row) for kind, row in rows if row is not None]
    graph = lineage.whole()
    tainted = lineage.taints(graph)
    for kind, row in named:
        for said in tainted.get((kind, row.pk), []):
            yield _("“%(name)s” is tainted: %(said)s") % {"name": row.name, "said": said}
    withdrawn = lineage.contents(learnt).withdrawn if learnt is not None else 0
    if withdrawn:
        yield ngettext(
            "%(n)s of the judgments that were learnt from was withdrawn since.",
            "%(n)s of the judgments that were learnt from were withdrawn since.",
            withdrawn,
        ) % {"n": withdrawn}


def _listed(cells: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} ({value})" for name, value in cells)
