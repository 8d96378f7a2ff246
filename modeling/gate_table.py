"""The figures that a round's gates looked at, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as lazy

from modeling.models import Round

NAMES = {
    "pairs": lazy("Right on the same held-out pairs"),
    "newest": lazy("Right on the newest labels"),
    "prompt_swap": lazy("Right when the prompts are swapped"),
    "alarm": lazy("The training's alarm"),
    "outside_psnr": lazy("Kept outside the mask"),
    "reward_margin": lazy("Margin by the reward model that trained it"),
    "margin": lazy("Margin by a held-out reward model"),
    "usable": lazy("Usable by ground truth"),
    "human": lazy("Won of blind comparisons"),
    "reward_gap": lazy("Wins by the reward model that trained it, less those by people or truth"),
}


@dataclass(frozen=True)
class Row:
    gate: str
    name: str
    n: str
    before: str
    new: str
    difference: str
    interval: str
    p: str
    asked: str
    passed: bool
    reason: str


def rows(round_: Round) -> list[Row]:
    found = []
    for step in round_.steps.all():
        for one in (step.result or {}).get("checks", []):
            found.append(_row(step.get_name_display(), one))
    return found


def _row(gate: str, one: Mapping[str, Any]) -> Row:
    unit = one.get("unit", "share")
    signed = not one.get("of_new")
    low, high = (_number(one.get(key), unit, signed=signed) for key in ("low", "high"))
    p = one.get("p")
    name = str(NAMES.get(one["name"], one["name"]))
    return Row(
        gate=gate,
        name=f"{name}: {one['judge']}" if one.get("judge") else name,
        n=str(one.get("n", "–")),
        before=_number(one.get("parent"), unit),
        new=_number(one.get("new"), unit),
        difference=_number(one.get("difference"), unit, signed=True),
        interval=f"{low} … {high}" if low != "–" else "–",
        p="–" if p is None else f"{p:.2g}",
        asked=one["asked"],
        passed=one["passed"] is not False,
        reason=one["reason"],
    )


def _number(value: float | None, unit: str, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if unit == "share":
        return f"{100 * value:{sign}.1f} %"
    return f"{value:{sign}.2f}" if unit == "logits" else f"{value:{sign}.1f} {unit}"
