"""What came out of a round: the entry of `run_round --json`."""

from __future__ import annotations

from typing import Any

from modeling import round_steps
from modeling.models import Evaluation, Round, RoundStep
from modeling.round_steps import Name


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
