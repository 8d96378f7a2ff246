"""Decisions between the steps of a round: what passes, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from modeling.statistics import Interval, holm, wilson

# A cell of the accuracy table with fewer held-out comparisons than this says little by itself: .75
# on 16 is not above chance. With the other tasks' it is judged, and alone that it is not below.
FEW = 30
# From this many on its own figure must at least not speak against it.
SOME = 10
# From this many comparisons on a figure stands by itself.
ENOUGH = 60
PROMPT_SWAP = 0.85
# From this many of the newest labels on they may shut the gate.
LEAST = 10
# 5 % two-sided: "worse" is one side of it.
ALPHA = 0.025
# Outside the mask a new policy may lose this many dB against its parent.
PSNR_LOSS = 1.0


@dataclass(frozen=True)
class Gate:
    passed: bool
    reason: str
    figure: str = ""
    # Every figure that was looked at; see `check`.
    checks: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check(
    name: str, passed: bool | None, reason: str = "", *, asked: str = "", **figures: Any
) -> dict[str, Any]:
    """One figure of a gate: n, parent, new, difference, low, high, p as far as it has them.

    `asked` is what it must be; without a verdict (None) it is only shown.
    """
    return {"name": name, "passed": passed, "reason": reason, "asked": asked, **figures}


def _decide(checks: list[dict[str, Any]], gate: Gate) -> Gate:
    """The gate's own decision, unless one of the other figures speaks against it."""
    against = next((one for one in checks if one["passed"] is False), None)
    if not gate.passed or against is None:
        return replace(gate, checks=checks)
    return Gate(False, against["reason"], gate.figure, checks)


def unusable_dimensions(
    figures: Mapping[str, Any], inherited: Iterable[Sequence[str]] = ()
) -> list[list[str]]:
    """[[task, dimension, reason], …] whose held-out accuracy is not above chance.

    A cell with few comparisons is judged together with the same dimension of the other tasks; where
    that is little too, what was known of the model's parent stays.
    """
    table: Mapping[str, Mapping[str, Any]] = figures.get("reward_accuracy") or {}
    known = {(task, dimension): reason for task, dimension, reason in inherited}
    pooled: dict[str, tuple[float, int]] = {}
    for row in table.values():
        for dimension, cell in row.items():
            right, n = pooled.get(dimension, (0.0, 0))
            pooled[dimension] = (right + cell["accuracy"] * cell["n"], n + cell["n"])
    unusable = []
    for task, row in table.items():
        for dimension, cell in row.items():
            right, n = cell["accuracy"] * cell["n"], cell["n"]
            against = n >= SOME and cell["accuracy"] <= 0.5
            if n < FEW and not against:
                right, n = pooled[dimension]
            known_reason = known.get((task, dimension))
            reason = known_reason if n < SOME else _not_above_chance(right, n)
            if reason:
                unusable.append([task, dimension, reason])
            known.pop((task, dimension), None)
    # Cells without any held-out comparison keep their parent's verdict.
    return unusable + [[task, dimension, reason] for (task, dimension), reason in known.items()]


def _not_above_chance(right: float, n: int) -> str:
    interval = wilson(min(n, round(2 * right) / 2), n)
    if interval.low > 0.5:
        return ""
    return (
        f"its held-out accuracy of {interval.value:.0%} ({interval.low:.0%}–{interval.high:.0%}, "
        f"n = {n}) is not above chance"
    )


def reward_gate(
    *,
    new: Mapping[str, Any],
    last: Mapping[str, Any],
    comparison: Mapping[str, Any],
    excluded: Sequence[Sequence[str]],
    prompt_swap_threshold: float = PROMPT_SWAP,
    newest: Sequence[Interval] = (),
    newest_accuracy: float = 0.0,
) -> Gate:
    """Is the new reward model better than the last one on the same held-out pairs?

    `comparison` holds both accuracies over those pairs and the paired interval of their difference
    (`parent`, `new`, `difference`, `low`, `high`, `n`); `excluded` is what `unusable_dimensions`
    found; `newest` are both models' accuracies on the newest labels, the last one's first.
    """
    decided = _on_held_out_pairs(new, last, comparison, excluded, prompt_swap_threshold)
    keys = ("n", "parent", "new", "difference", "low", "high", "p")
    pairs = {key: comparison.get(key) for key in keys}
    swap = (new.get("prompt_swap") or {}).get("overall") or {"n": 0}
    checks = [check("pairs", decided.passed, decided.reason, asked="> 0", **pairs)]
    if newest:
        checks.append(_drift(*newest, floor=newest_accuracy))
        if checks[-1]["passed"] is False:
            # Labels that are wrong make every other figure say something else than it seems to.
            decided = Gate(False, checks[-1]["reason"], decided.figure)
    if swap["n"]:
        seen = not _blind(swap, prompt_swap_threshold)
        checks.append(
            check(
                "prompt_swap",
                seen,
                asked=f"≥ {prompt_swap_threshold:.0%}",
                n=swap["n"],
                parent=last.get("prompt_swap_accuracy"),
                new=swap["accuracy"],
                low=swap["low"],
                high=swap["high"],
                of_new=True,
            )
        )
    return _decide(checks, decided)


def _drift(last: Interval, new: Interval, *, floor: float) -> dict[str, Any]:
    """Accuracy on the newest labels. A model that was good and is now wrong about most of them says
    that people began to judge otherwise, or that somebody judges the wrong way round."""
    against = last.n >= LEAST and last.high < 0.5
    weak = new.n >= LEAST and new.high < floor
    reason = ""
    if against:
        reason = (
            f"The active reward model is right on only {last.value:.0%} of the newest {last.n} "
            f"labels (95 % {last.low:.0%}–{last.high:.0%}), fewer than chance: labels and model "
            "contradict each other. Look whether somebody labels the wrong way round before a "
            "model learns from it."
        )
    elif weak:
        reason = (
            f"The new reward model is right on {new.value:.0%} of the newest {new.n} labels (95 % "
            f"{new.low:.0%}–{new.high:.0%}), and {floor:.0%} is asked for."
        )
    return check(
        "newest",
        not (against or weak),
        reason,
        asked=f"≥ {floor:.0%}" if floor else "",
        n=new.n,
        parent=last.value,
        new=new.value,
        low=new.low,
        high=new.high,
        of_new=True,
    )


def _on_held_out_pairs(
    new: Mapping[str, Any],
    last: Mapping[str, Any],
    comparison: Mapping[str, Any],
    excluded: Sequence[Sequence[str]],
    prompt_swap_threshold: float,
) -> Gate:
    if comparison["n"] == 0:
        return Gate(
            False,
            "There is no held-out pair to compare on: label sets of held-out sources too.",
            "no held-out pairs",
        )
    figure = f"{comparison['new']:.1%} held-out (last {comparison['parent']:.1%})"
    measured = (
        f"Held-out accuracy {comparison['parent']:.1%} → {comparison['new']:.1%} "
        f"(difference {100 * comparison['difference']:+.1f} points, 95 % "
        f"{100 * comparison['low']:+.1f} to {100 * comparison['high']:+.1f}, "
        f"n = {comparison['n']})."
    )
    table = new["reward_accuracy"]
    left_out = sum(name in table.get(task, {}) for task, name, _ in excluded)
    if left_out == sum(len(row) for row in table.values()):
        return Gate(
            False,
            f"{measured} The reward model is above chance on no dimension; label more sets.",
            figure,
        )
    swap = (new.get("prompt_swap") or {}).get("overall") or {"n": 0}
    if _blind(swap, prompt_swap_threshold):
        before = last.get("prompt_swap_accuracy")
        was = f" (last {before:.1%})" if before is not None else ""
        return Gate(
            False,
            f"{measured} Prompt-swap accuracy {swap['accuracy']:.1%}{was} is below "
            f"{prompt_swap_threshold:.0%}: the model does not see what the prompt asks for, and a "
            "policy would learn to ignore it.",
            figure,
        )
    alike = comparison["difference"] == 0 and comparison["n"] < ENOUGH
    if comparison["difference"] <= 0 and not alike:
        return Gate(
            False,
            f"{measured} That is not better than the last reward model, which is kept.",
            figure,
        )
    notes = [measured]
    if alike:
        notes.append("Too few pairs to tell the two apart; the newer one is taken.")
    if swap["n"]:
        notes.append(f"Prompt-swap accuracy {swap['accuracy']:.1%}.")
    if left_out:
        notes.append(f"{left_out} cells are left out as not above chance.")
    return Gate(True, " ".join(notes), figure)


def _blind(swap: Mapping[str, Any], threshold: float) -> bool:
    """Below the threshold, and not for want of pairs."""
    if not swap["n"] or swap["accuracy"] >= threshold:
        return False
    return swap["n"] >= ENOUGH or swap["high"] < threshold


def policy_gate(figures: Mapping[str, Any], *, alarm: str, psnr_loss: float = PSNR_LOSS) -> Gate:
    """May the new policy make the next candidates? Decided on ground truth where there is any.

    Without ground truth a judge that did not train the policy must prefer it. The reward alone
    never decides: the surroundings must be kept, the training's hacking alarm silent, and neither
    the reward nor the held-out judge may clearly prefer the parent on held-out sources.
    """
    decided = _by_ground_truth(figures) if figures.get("usable") else _by_judge(figures)
    said = f"The training's alarm for reward hacking went off: {alarm}" if alarm else ""
    checks = [
        check("alarm", not alarm, said),
        _surroundings(figures["outside_psnr"], psnr_loss),
        *_preferred(figures),
    ]
    if overall := (figures.get("usable") or {}).get("all"):
        keys = ("n", "parent", "new", "difference", "low", "high")
        found = {key: overall.get(key) for key in keys}
        checks.append(check("usable", decided.passed, decided.reason, asked="> 0", **found))
    # Of several reasons the plainest is told: what the policy did, then who prefers it.
    first = [one for one in checks[:2] if one["passed"] is False]
    if first:
        figure = "alarm" if alarm else "surroundings changed"
        return Gate(False, first[0]["reason"], figure, checks)
    return _decide(checks, decided)


def _surroundings(outside: Mapping[str, Any], loss: float) -> dict[str, Any]:
    kept = not outside["n"] or outside["new"] >= outside["parent"] - loss
    reason = ""
    if not kept:
        reason = (
            f"Outside the mask the new policy keeps the source worse: {outside['parent']:.1f} → "
            f"{outside['new']:.1f} dB."
        )
    keys = ("n", "parent", "new", "difference", "low", "high")
    found = {key: outside.get(key) for key in keys}
    return check("outside_psnr", kept, reason, asked=f"≥ −{loss:g} dB", unit="dB", **found)


def _preferred(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the reward model says that trained the policy, and what one says that did not."""
    who = {"reward_margin": "reward model that trained it", "margin": "held-out reward model"}
    found = []
    for key, name in who.items():
        judged = (figures.get(key) or {}).get("all")
        if not judged:
            continue
        worse = judged["high"] < 0
        reason = ""
        if worse:
            reason = (
                f"On held-out sources the {name}, '{judged['judge']}', prefers the parent (margin "
                f"{judged['mean']:+.2f}, 95 % {judged['low']:+.2f} to {judged['high']:+.2f}, "
                f"n = {judged['n']})."
            )
        numbers = {one: judged[one] for one in ("n", "low", "high")}
        numbers |= {"difference": judged["mean"], "judge": judged["judge"]}
        asked = "> 0" if key == "margin" and not figures.get("usable") else "not below 0"
        found.append(check(key, not worse, reason, asked=asked, unit="logits", **numbers))
    return found


def _by_ground_truth(figures: Mapping[str, Any]) -> Gate:
    overall = figures["usable"]["all"]
    figure = f"usable {overall['parent']:.1%} → {overall['new']:.1%}"
    measured = (
        f"Usable rate {overall['parent']:.1%} → {overall['new']:.1%} (difference "
        f"{100 * overall['difference']:+.1f} points, 95 % {100 * overall['low']:+.1f} to "
        f"{100 * overall['high']:+.1f}, n = {overall['n']})."
    )
    adjusted = holm(figures.get("p_worse") or {})
    worse = [name for name, p in adjusted.items() if p <= ALPHA]
    if worse:
        return Gate(False, f"{measured} Significantly worse: {', '.join(sorted(worse))}.", figure)
    if overall["difference"] <= 0:
        return Gate(False, f"{measured} That is no improvement over the parent.", figure)
    watched = [name for name in below_zero(figures) if name not in worse]
    note = (
        f" No task and no dimension is significantly worse (Holm over {len(adjusted)} comparisons)."
    )
    if watched:
        note += f" To watch, interval below zero by itself: {', '.join(watched)}."
    return Gate(True, measured + note, figure)


def below_zero(figures: Mapping[str, Any]) -> list[str]:
    """Tasks and dimensions whose own 95 % interval of the difference lies below zero."""
    found = [
        task
        for task, row in figures["usable"].items()
        if task != "all" and row["n"] and row["high"] < 0
    ]
    for task, dimensions in figures["dimensions"].items():
        found += [f"{task}/{name}" for name, row in dimensions.items() if row["high"] < 0]
    return found


def _by_judge(figures: Mapping[str, Any]) -> Gate:
    judged = figures.get("margin", {}).get("all")
    if not judged:
        return Gate(
            False,
            "Nothing says whether the pictures got better: the sources carry no ground truth and "
            "no reward model judges them.",
        )
    win, tie, lose = figures["win_tie_lose"]
    figure = f"{win:.0%} better, {lose:.0%} worse"
    outside = figures["outside_psnr"]
    kept = f"; {outside['new']:.1f} dB outside the mask" if outside["n"] else ""
    measured = (
        f"The held-out judge '{judged['judge']}' finds {win:.0%} better, {tie:.0%} alike, "
        f"{lose:.0%} worse (margin {judged['mean']:+.2f}, 95 % {judged['low']:+.2f} to "
        f"{judged['high']:+.2f}, n = {judged['n']}){kept}."
    )
    if judged["low"] > 0:
        return Gate(True, measured, figure)
    return Gate(False, f"{measured} That is no clear improvement over the parent.", figure)
