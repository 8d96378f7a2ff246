"""What came out of a round: the entry of `run_round --json`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from generation.models import Policy
from modeling import round_steps
from modeling.models import Evaluation, EvaluationPair, Round, RoundStep
from modeling.round_steps import Name
from modeling.statistics import paired_difference, wilson


def report(round_: Round) -> dict[str, Any]:
    """One entry of `run_round --json`."""
    figures: dict[str, Any] = {}
    if round_.reward_model is not None:
        measured = round_.reward_model.evaluations.first()
        if measured is not None:
            figures = measured.figures
    evaluated = Evaluation.objects.filter(policy=round_.policy, kind="policy").first()
    made = evaluated.figures if round_.policy is not None and evaluated is not None else {}
    steps = {step.name: step for step in round_.steps.all()}
    gates = {
        name.removeprefix("gate_"): {key: step.result[key] for key in ("passed", "reason")}
        for name, step in steps.items()
        if name in round_steps.GATES and "passed" in step.result
    }
    return {
        "round": round_.number,
        "seed": round_.seed,
        "prompt_swap_accuracy": figures.get("prompt_swap_accuracy"),
        "reward_accuracy": {
            task: {
                name: {key: cell[key] for key in ("accuracy", "low", "high", "n")}
                for name, cell in row.items()
            }
            for task, row in figures.get("reward_accuracy", {}).items()
        },
        "usable": made.get("usable", {}),
        "dimensions": made.get("dimensions", {}),
        "win_tie_lose": list(made.get("win_tie_lose", [])),
        "outside_psnr": made.get("outside_psnr"),
        "gates": gates,
        "promoted": bool(steps[Name.PROMOTE].result.get("promoted")),
        "outcome": round_.outcome,
        "seconds": {name: round(seconds(step), 1) for name, step in steps.items()},
    }


def seconds(step: RoundStep) -> float:
    if step.started_at is None or step.finished_at is None:
        return 0.0
    return (step.finished_at - step.started_at).total_seconds()


# --- over several rounds ---

# Of a policy: which held-out sources (with their noise) it answered usably.
Outcomes = dict[tuple[int, int], bool]


def usable_over_rounds(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The usable rate, by ground truth, of the policy that each round left active.

    The first row is the policy that the first round started from. Rates have Wilson's interval;
    "difference" is against that first policy, paired over the sources that both were measured on,
    which are the same while nobody adds sources or changes `evaluation_seed`.
    """
    measured = _outcomes(rounds)
    rows: list[dict[str, Any]] = []
    for round_ in rounds:
        if not rows:
            rows.append(_rate(round_.parent_policy, measured, round_.parent_policy))
        step = round_.steps.filter(name=Name.PROMOTE).first()
        promoted = bool(step and step.result.get("promoted") and round_.policy)
        policy = round_.policy if promoted and round_.policy else round_.parent_policy
        row = _rate(policy, measured, rounds[0].parent_policy)
        new = measured.get(round_.policy_id or 0)
        row |= {"round": round_.number, "promoted": promoted}
        row["new"] = sum(new.values()) / len(new) if new else None
        rows.append(row)
    return rows


def _outcomes(rounds: Sequence[Round]) -> dict[int, Outcomes]:
    from modeling.starter import truth

    found: dict[int, Outcomes] = defaultdict(dict)
    pairs = EvaluationPair.objects.filter(
        evaluation__policy__in=[one.policy_id for one in rounds if one.policy_id]
    ).select_related("evaluation")
    for pair in pairs.order_by("evaluation_id"):
        sides = (("parent", pair.evaluation.parent_policy_id), ("new", pair.evaluation.policy_id))
        for side, policy in sides:
            if policy is not None and pair.scores.get(side):
                found[policy][pair.source_id, pair.seed] = truth.usable(pair.scores[side])
    return found


def _rate(policy: Policy, measured: dict[int, Outcomes], first: Policy) -> dict[str, Any]:
    mine, start = measured.get(policy.pk, {}), measured.get(first.pk, {})
    row: dict[str, Any] = {"round": None, "policy": policy.name, "promoted": False, "new": None}
    row |= dict.fromkeys(["usable", "low", "high", "difference"])
    row |= {"difference_low": None, "difference_high": None, "n": len(mine)}
    if mine:
        found = wilson(sum(mine.values()), len(mine))
        row |= {"usable": found.value, "low": found.low, "high": found.high}
    both = sorted(mine.keys() & start.keys())
    if both:
        step = paired_difference([start[key] for key in both], [mine[key] for key in both])
        row |= {"difference": step.difference}
        row |= {"difference_low": step.low, "difference_high": step.high}
    return row
