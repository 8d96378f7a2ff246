"""How much more often a reward model sees the policy that it trained win than people do.

A policy that learns to please its judge wins by the judge and not by the people whom it stands for.
Both are asked about the same pictures, new against parent, source by source and dimension by
dimension; ties are half a win, and a source counts once. The truth of a drawn world stands where
people were not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from annotation.models import Dimension
from modeling import gates, leaderboard
from modeling.models import Evaluation
from modeling.statistics import Difference, paired_difference
from modeling.strengths import FIRST, TIE

LIMIT = 0.25
# Ground-truth scores closer than this, and margins closer than that, count as alike.
SCORE_TIE = 0.02
MARGIN_TIE = 0.25

Wins = Mapping[tuple[int, str], float]  # source, dimension: 1 where the new one wins, 1/2 for a tie
Scores = Mapping[str, Mapping[str, float]]  # of an evaluation's pair


def by_people(
    evaluation: Evaluation, scope: leaderboard.Scope, *, new: int, parent: int
) -> Difference:
    """Of two policies that people compared: the reward model's share of wins less theirs."""
    pairs = evaluation.pairs.values_list("source_id", "scores")
    return _gap(_claimed(pairs), _said(scope, new, parent))


def by_truth(pairs: Iterable[tuple[int, Scores]]) -> dict[str, Any]:
    """The same against the truth of drawn scenes, as figures; {} where either is unknown."""
    known = list(pairs)
    true = {
        (source, name): _win(value - scores["parent"][name], SCORE_TIE)
        for source, scores in known
        for name, value in scores.get("new", {}).items()
    }
    found = _gap(_claimed(known), true)
    return asdict(found) if found.n else {}


def _claimed(pairs: Iterable[tuple[int, Scores]]) -> Wins:
    return {
        (source, name): _win(margin, MARGIN_TIE)
        for source, scores in pairs
        for name, margin in scores.get("reward_margin", {}).items()
    }


def _said(scope: leaderboard.Scope, new: int, parent: int) -> Wins:
    answers: dict[tuple[int, str], list[float]] = defaultdict(list)
    slugs = dict(Dimension.objects.values_list("pk", "slug"))
    for said in leaderboard.compared(leaderboard.judgments(scope)):
        for ours, theirs, outcome in said.pairs:
            if {ours, theirs} == {new, parent}:
                won = 0.5 if outcome == TIE else float((outcome == FIRST) == (ours == new))
                answers[said.source, slugs[said.dimension]].append(won)
    return {key: sum(values) / len(values) for key, values in answers.items()}


def _win(difference: float, tie: float) -> float:
    return 0.5 if abs(difference) <= tie else float(difference > 0)


def _gap(claimed: Wins, said: Wins) -> Difference:
    """Over the questions that both answered; its interval is over sources."""
    sources: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for key in sorted(claimed.keys() & said.keys()):
        sources[key[0]].append((said[key], claimed[key]))
    means = [
        tuple(sum(values) / len(values) for values in zip(*answers, strict=True))
        for answers in sources.values()
    ]
    return paired_difference([people for people, _ in means], [model for _, model in means])


def shut_if_wide(gate: gates.Gate, gap: Difference, *, limit: float) -> gates.Gate:
    """The gate with the gap among what it looked at; shut where that is clearly above the limit."""
    if gap.n == 0:
        return gate
    passed = gap.low <= limit
    reason = (
        f"The reward model that trained the policy sees it win {gap.new:.0%} where people do "
        f"{gap.parent:.0%} (ties count half; difference {100 * gap.difference:+.0f} points, 95 % "
        f"{100 * gap.low:+.0f} to {100 * gap.high:+.0f}, n = {gap.n})."
    )
    if not passed:
        reason += (
            f" That is more than {100 * limit:.0f} points: the policy pleases its judge and not "
            "people. Have pictures of this policy labelled and train the reward model on them."
        )
    checks = [*gate.checks, gates.check("reward_gap", passed, reason, **_shown(asdict(gap), limit))]
    if gate.passed and not passed:
        return gates.Gate(False, reason, "reward model and people disagree", checks)
    return replace(gate, checks=checks)


def shown(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gap to the truth for a gate's table, without a verdict: there the truth decides."""
    found = figures.get("reward_gap")
    return [gates.check("reward_gap", None, **_shown(found, None))] if found else []


def _shown(gap: Mapping[str, Any], limit: float | None) -> dict[str, Any]:
    numbers = {key: gap[key] for key in ("n", "difference", "low", "high")}
    numbers |= {"people": gap["parent"], "model": gap["new"]}
    return numbers | {"asked": "" if limit is None else f"not clearly above {limit:.0%}"}
