"""What a finished policy training leaves: the EMA of its end or of its best check with a model card
and sample pictures beside it, card.json and the result."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from generation.diffusion.spec import HUB_ID, LORA_FILE
from modeling.cards import PolicyFacts, policy_card
from modeling.policy.best import folder
from modeling.policy.config import keeps_best
from modeling.policy.trainer import Trainer

SAMPLES = "samples.png"
WEIGHTS = "diffusion_pytorch_model.safetensors"
TAIL = 20  # steps at the end whose means are the result
RESULTS = ("loss", "reward", "margin", "accuracy", "score")


def finish(trainer: Trainer, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Write the EMA, whose weights these are, the card and the result."""
    config, run, roles = trainer.config, trainer.run, trainer.roles
    temporary = run.path / f".{roles.output}"
    shutil.rmtree(temporary, ignore_errors=True)
    best = trainer.watch.best if keeps_best(config) and trainer.watch.best.step else None
    if best is None:
        roles.save(temporary, weights)
    else:
        shutil.copytree(folder(run, best.step), temporary)
    shutil.rmtree(run.path / roles.output, ignore_errors=True)
    temporary.rename(run.path / roles.output)
    rows = run.metrics()
    checks = [row for row in rows if "monitor" in row]
    tail = rows[-TAIL:]
    means = {key: sum(row[key] for row in tail) / len(tail) for key in RESULTS if key in tail[-1]}
    result: dict[str, Any] = {
        "step": config.steps,
        "kept_step": config.steps if best is None else best.step,
        "output": roles.output,
        **means,
        "monitor": checks[-1]["monitor"] if checks else {},
        "seconds": sum(row["seconds"] for row in rows),
        "alarm": next((row["alarm"] for row in rows if "alarm" in row), ""),
    }
    card = {
        "kind": "policy",
        "base": dataclasses.asdict(config.policy),
        "parent": config.policy.adapter or config.policy.transformer or config.policy.location,
        "reward": dataclasses.asdict(config.reward),
        "config": dataclasses.asdict(config),
        "code_version": code_version(),
        "libraries": {name: version(name) for name in ("torch", "diffusers", "peft")},
        "metrics": result,
    }
    write_model_card(trainer, run.path / roles.output, card)
    run.write("card.json", card)
    run.write("result.json", result)
    run.progress(config.steps, config.steps, "finished")
    return result


def write_model_card(trainer: Trainer, directory: Path, card: dict[str, Any]) -> None:
    """README.md beside the weights, with the newest sample grid."""
    config, is_lora = trainer.config, trainer.roles.output == "adapter"
    grids = sorted((trainer.run.path / "samples").glob("step-*.png"))
    if grids:
        shutil.copyfile(grids[-1], directory / SAMPLES)
    models = trainer.models
    alone = models.transformer.config.in_channels == 4 * models.vae.config.latent_channels
    facts = PolicyFacts(
        name=trainer.run.path.name,
        location=config.policy.location,
        transformer=config.policy.transformer,
        subfolder=config.policy.subfolder,
        parent=_shown(card["parent"]),
        judge=_shown(config.reward.adapter or config.reward.location),
        card={**card, "text_to_image": alone},
    )
    text = policy_card(
        facts,
        form="diffusers",
        weights=LORA_FILE if is_lora else WEIGHTS,
        is_lora=is_lora,
        samples=SAMPLES if grids else "",
        folder="",
    )
    (directory / "README.md").write_text(text)


def _shown(location: str) -> str:
    """A hub id, or of a directory, which says nothing elsewhere, its name or that of its run."""
    if HUB_ID.match(location):
        return location
    path = Path(location)
    return path.parent.name if path.name in ("adapter", "transformer", "model") else path.name


def code_version() -> str:
    """The commit of the code, "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
