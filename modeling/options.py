"""What the commands that train and measure have in common: settings in, tables and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper

from annotation import campaigns
from annotation.errors import Refused
from annotation.models import Campaign
from generation import policies
from generation.models import Policy
from modeling.models import RewardModel, Snapshot, TrainingRun


def add_settings(parser: CommandParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="JSON file of settings.")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="One setting, before the file's; may be repeated. Dots reach inside: policy.steps=50.",
    )


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of --config and --set together."""
    values: dict[str, Any] = {}
    if options.get("config"):
        path = Path(options["config"])
        try:
            values = json.loads(path.read_text())
        except OSError as error:
            raise CommandError(f"'{path}' cannot be read: {error.strerror}.") from error
        except json.JSONDecodeError as error:
            raise CommandError(f"'{path}' is not valid JSON: {error}.") from error
        if not isinstance(values, dict):
            raise CommandError(f"'{path}' must hold a JSON object of settings.")
    for text in options.get("set") or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise CommandError(f"--set {text}: write KEY=VALUE, for example --set steps=200.")
        _put(values, key.strip().split("."), _value(value))
    return values


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise CommandError(f"--set {'.'.join(path)}: '{name}' is a single value.")
    values[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def find_campaign(name: str) -> Campaign:
    """The campaign with this name or number."""
    try:
        return campaigns.named(name)
    except Refused as error:
        raise CommandError(error.message) from error


def find_reward(name: str | None) -> RewardModel:
    """The reward model with this name or number; without one the active model."""
    if not name:
        model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
        if model is None:
            raise CommandError("No reward model is active. Run `load_starter` first.")
        return model
    model = RewardModel.objects.filter(name=name).first()
    if model is None and name.isdecimal():
        model = RewardModel.objects.filter(pk=int(name)).first()
    if model is None:
        known = ", ".join(f"'{one}'" for one in RewardModel.objects.all()[:8]) or "none yet"
        raise CommandError(f"There is no reward model '{name}'. Registered: {known}.")
    return model


def find_policy(name: str | None) -> Policy:
    """The policy with this name or number; without one the active policy."""
    try:
        return policies.named(name) if name else policies.active()
    except policies.PolicyError as error:
        raise CommandError(str(error)) from error


def find_snapshot(text: str) -> Snapshot:
    """The snapshot whose content hash begins with `text`."""
    found = list(Snapshot.objects.filter(content_hash__startswith=text)[:2])
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"Several snapshots begin with '{text}'; write more of the hash.")
    known = ", ".join(s.content_hash[:12] for s in Snapshot.objects.order_by("-pk")[:8])
    raise CommandError(f"There is no snapshot '{text}'. Taken: {known or 'none yet'}.")


def find_run(text: str, kind: str) -> TrainingRun:
    """A run by its number or its directory."""
    runs = TrainingRun.objects.filter(kind=kind)
    run = runs.filter(directory=str(Path(text).expanduser().resolve())).first()
    if run is None and text.isdecimal():
        run = runs.filter(pk=int(text)).first()
    if run is None:
        known = ", ".join(str(one.pk) for one in runs[:8]) or "none yet"
        raise CommandError(f"There is no {kind} run '{text}'. Runs: {known}.")
    return run


def print_table(out: OutputWrapper, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the first to the left, figures to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.write("  ".join(cells).rstrip())
        if number == 0:
            out.write("  ".join("-" * width for width in widths))


def reward_tables(out: OutputWrapper, figures: Mapping[str, Any]) -> None:
    """Accuracy per task and dimension, and what else a reward model is judged by."""
    rows = [
        [
            f"{task} × {name}",
            f"{100 * cell['accuracy']:.1f}",
            f"{100 * cell['low']:.1f}–{100 * cell['high']:.1f}",
            str(cell["n"]),
        ]
        for task, row in figures.get("reward_accuracy", {}).items()
        for name, cell in row.items()
    ]
    print_table(out, ["task × dimension", "accuracy %", "95 %", "n"], rows)
    swap = figures.get("prompt_swap_accuracy")
    out.write(f"prompt-swap accuracy: {'not measured' if swap is None else f'{swap:.3f}'}")
    for key, label in (
        ("position_consistency", "position consistency"),
        ("calibration_error", "expected calibration error"),
    ):
        value = figures.get(key)
        out.write(f"{label}: {'not measured' if value is None else f'{value:.3f}'}")


def policy_tables(out: OutputWrapper, figures: Mapping[str, Any]) -> None:
    """Usable rate and scores per task, parent against new, with paired intervals."""

    def row(name: str, cell: Mapping[str, Any], scale: float, digits: int) -> list[str]:
        return [
            name,
            f"{scale * cell['parent']:.{digits}f}",
            f"{scale * cell['new']:.{digits}f}",
            f"{scale * (cell['new'] - cell['parent']):+.{digits}f}",
            f"{scale * cell['low']:+.{digits}f} to {scale * cell['high']:+.{digits}f}",
            str(cell["n"]),
        ]

    head = ["parent", "new", "difference", "95 %", "n"]
    usable = [row(task, cell, 100, 1) for task, cell in figures.get("usable", {}).items()]
    if usable:
        print_table(out, ["usable %", *head], usable)
        out.write("")
        scores = [
            row(f"{task} × {name}", cell, 1, 3)
            for task, cells in figures.get("dimensions", {}).items()
            for name, cell in cells.items()
        ]
        print_table(out, ["mean score", *head], scores)
    if figures.get("win_tie_lose"):
        win, tie, lose = figures["win_tie_lose"]
        out.write(f"win / tie / lose: {win:.2f} / {tie:.2f} / {lose:.2f}")
    outside = figures.get("outside_psnr") or {}
    if outside.get("n"):
        out.write(f"outside the mask: {outside['parent']:.1f} → {outside['new']:.1f} dB")
    judged = (figures.get("margin") or {}).get("all")
    if judged:
        out.write(
            f"margin of '{judged['judge']}', which did not train the policy: {judged['mean']:+.2f} "
            f"({judged['low']:+.2f} to {judged['high']:+.2f}); never evidence by itself"
        )
