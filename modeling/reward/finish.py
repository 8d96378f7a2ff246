"""What a finished reward training says of its model: card.json, and a model card beside the
weights."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from modeling.cards import RewardFacts, reward_card
from modeling.reward.config import RewardConfig
from modeling.rundir import RunDirectory


def write_cards(
    run: RunDirectory, config: RewardConfig, labels_hash: str, result: dict[str, Any]
) -> None:
    card = {
        "kind": "reward model",
        "base": config.base,
        "parent": config.adapter or config.base,
        "snapshot": labels_hash,
        "config": dataclasses.asdict(config),
        "metrics": {
            "accuracy": result["overall"],
            "prompt_swap_accuracy": result["prompt_swap_accuracy"],
            "position_consistency": result["position_consistency"],
            "calibration": result["calibration"],
            "ties": result["ties"],
        },
        "excluded": result["excluded"],
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("oneloop", "torch", "transformers", "peft", "accelerate")
        },
    }
    run.write("card.json", card)
    place = Path(result["output"]["adapter"] or result["output"]["location"])
    (place / "card.json").write_text(json.dumps(card, indent=1))
    facts = RewardFacts(
        name=run.path.name,
        location=config.base,
        labels={f"{name} questions": count for name, count in result["pairs"].items()},
        labels_hash=labels_hash,
        figures={
            **result,
            "position_consistency": result["position_consistency"]["accuracy"],
            "calibration_error": result["calibration"]["ece"],
        },
        excluded=result["excluded"],
    )
    is_lora = bool(result["output"]["adapter"])
    (place / "README.md").write_text(reward_card(facts, is_lora=is_lora))
