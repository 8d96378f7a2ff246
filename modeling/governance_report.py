"""What the printable report of a round says: data, people, figures, decisions and known limits.

Everything is read from rows. Those who labelled are pseudonyms; those who decided have a name, as
on the round's own page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils.translation import gettext_lazy as lazy

from annotation import annotators, figures, judged
from annotation.annotators import Share
from annotation.figures import Agreement
from annotation.models import Campaign, Judgment
from annotation.pseudonyms import pseudonym
from generation.models import Source, Split
from modeling import gate_table, governance_limits, lineage, pages, round_steps
from modeling.models import Evaluation, Round, RoundTransition, Snapshot
from modeling.round_steps import Name
from modeling.statistics import Interval, wilson
from modeling.transitions import State

Outcome = Judgment.Outcome
# What is written down of a round's everyday, and is no decision.
EVERYDAY = (State.QUEUED, State.RUNNING, State.WAITING, State.DONE)


@dataclass(frozen=True)
class Collected:
    """A campaign of the round, and who judged how in it."""

    campaign: Campaign
    sets: int
    sources: int
    held_out: int  # of the sources
    outcomes: dict[str, int]  # counted judgments
    agreement: Agreement | None  # over all tasks and dimensions
    people: list[Labeller]

    @property
    def judgments(self) -> int:
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Labeller:
    pseudonym: str
    turns: int
    judgments: int
    others: Share  # of other people's picks on the same sets that were the same
    gold: Share
    no_difference: Share

    @property
    def shares(self) -> list[Share]:
        return [self.others, self.gold, self.no_difference]


@dataclass(frozen=True)
class Figure:
    name: str
    interval: Interval


def context(round_: Round) -> dict[str, Any]:
    collected = [collect(campaign) for campaign in round_steps.campaigns_of(round_)]
    measured = reward_evaluation(round_)
    compared = policy_evaluation(round_)
    learnt = snapshot_of(round_)
    return {
        "round": round_,
        "collected": collected,
        "snapshot": learnt,
        "contents": lineage.contents(learnt) if learnt else None,
        "matrix": pages.accuracy_matrix(measured.figures) if measured else None,
        "reward_figures": measured.figures if measured else {},
        "evaluation": compared,
        "usable": pages.usable_rows(compared) if compared else [],
        "dimensions": pages.dimension_rows(compared) if compared else [],
        "outcomes": list(win_tie_lose(compared)) if compared else [],
        "margins": list(margins(compared)) if compared else [],
        "outside": compared.figures.get("outside_psnr") if compared else None,
        "gates": [card for card in pages.step_cards(round_) if card.step.name in round_steps.GATES],
        "checks": gate_table.rows(round_),
        "decisions": decisions(round_),
        "limits": governance_limits.limits(round_, collected, measured, compared, learnt),
    }


# Data and people ----------------------------------------------------------------------------------


def collect(campaign: Campaign) -> Collected:
    counted = Judgment.objects.counted().filter(assignment__item__campaign=campaign)
    outcomes = counted.aggregate(
        **{one.value: Count("pk", filter=Q(outcome=one)) for one in Outcome}
    )
    sources = Source.objects.filter(sets__items__campaign=campaign).distinct()
    columns = judged.load(campaign)
    found = figures.agreements(columns)
    lines = [
        Labeller(
            pseudonym(person.user),
            person.turns,
            person.judgments,
            person.others,
            person.gold,
            person.no_difference,
        )
        for person in annotators.people(columns, campaign)
    ]
    return Collected(
        campaign=campaign,
        sets=campaign.items.count(),
        sources=sources.count(),
        held_out=sources.filter(split=Split.HOLDOUT).count(),
        outcomes={str(one.value): outcomes[one.value] for one in Outcome},
        agreement=found[0] if found else None,
        people=sorted(lines, key=lambda line: -line.judgments),
    )


def snapshot_of(round_: Round) -> Snapshot | None:
    """What the round's reward model learnt from."""
    taken = _result(round_, Name.TRAIN_REWARD).get("snapshot")
    if taken is None and round_.reward_model is not None:
        return round_.reward_model.snapshot
    return Snapshot.objects.filter(pk=taken).first() if taken is not None else None


def _result(round_: Round, name: Name) -> dict[str, Any]:
    step = round_.steps.filter(name=name).first()
    return (step.result or {}) if step is not None else {}


# Figures ------------------------------------------------------------------------------------------


def reward_evaluation(round_: Round) -> Evaluation | None:
    return round_.reward_model.evaluations.first() if round_.reward_model is not None else None


def policy_evaluation(round_: Round) -> Evaluation | None:
    """The comparison that the policy gate saw, or the newest of the round's policy."""
    if round_.policy is None:
        return None
    rows = Evaluation.objects.filter(policy=round_.policy).select_related("parent_policy")
    noted = _result(round_, Name.EVALUATE).get("evaluation")
    seen = rows.filter(pk=noted).first() if noted is not None else None
    return seen or rows.first()


OUTCOMES = (lazy("Better"), lazy("Alike"), lazy("Worse"))


def win_tie_lose(evaluation: Evaluation) -> Iterable[Figure]:
    """The shares with Wilson's intervals over the sources that they were counted on."""
    made = evaluation.figures
    of = (made.get("usable") or {}).get("all") or (made.get("margin") or {}).get("all") or {}
    n = of.get("n") or 0
    for name, share in zip(OUTCOMES, made.get("win_tie_lose") or [], strict=False):
        if n:
            yield Figure(str(name), wilson(round(share * n), n))


def margins(evaluation: Evaluation) -> Iterable[Figure]:
    """Log-odds for the new pictures, by the reward model that trained it and by another one."""
    for key in ("margin", "reward_margin"):
        row = (evaluation.figures.get(key) or {}).get("all")
        if row:
            yield Figure(
                str(gate_table.NAMES[key]) + f": {row['judge']}",
                Interval(row["mean"], row["low"], row["high"], row["n"]),
            )


# Decisions ----------------------------------------------------------------------------------------


def decisions(round_: Round) -> QuerySet[RoundTransition]:
    """What people did, and what the gates and the round's end decided, oldest first."""
    rows = round_.transitions.select_related("actor").order_by("pk")
    return rows.filter(Q(actor__isnull=False) | ~Q(to_state__in=EVERYDAY))
