"""Answers of fixed models to fixed questions about fixed pictures, kept in a file.

    python -m tests.reward.parity            # compare, and say where they differ
    python -m tests.reward.parity --write    # after a change that is meant

A new version of transformers that changes an attention mask, a rotary position, a norm or a chat
template changes them, and with them the meaning of every trained reward model. Weights and pictures
come from integer arithmetic, so that no library's random numbers take part; the tokenizer and the
weights of the starter are the shipped ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from tests.reward.tiny import save_tiny

FIXTURE = Path(__file__).parent / "fixtures" / "parity.json"
STARTER = Path("modeling/starter/weights/reward")
# Computed in float64 but for the norms, which transformers computes in float32.
TOLERANCE = 1e-5
QUERIES = [
    "Task: image fill. Is the first image better in structure? Answer Yes or No.",
    "Task: object removal. Is the first image cleaner? Answer Yes or No.",
]


def models() -> Iterator[tuple[str, RewardVLM]]:
    yield "starter", load_reward_vlm(STARTER, dtype=torch.float64)
    for family in ("qwen2_5_vl", "qwen3_vl"):
        with tempfile.TemporaryDirectory() as folder:
            vlm = load_reward_vlm(save_tiny(Path(folder), family=family), dtype=torch.float64)
        fill(vlm.model)
        yield family, vlm


def numbers(count: int, seed: int) -> np.ndarray:
    """`count` fixed numbers in [-1, 1), by splitmix64."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 20)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 2**52 - 1


@torch.no_grad()
def fill(model: Any) -> None:
    """Fixed weights of a sensible size: by a parameter's name and its number of inputs."""
    for name, parameter in model.named_parameters():
        values = torch.from_numpy(numbers(parameter.numel(), zlib.crc32(name.encode())))
        if parameter.ndim == 1:
            scaled = 0.1 * values + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            scaled = values * 3 * (parameter.numel() / parameter.shape[0]) ** -0.5
        parameter.copy_(scaled.view(parameter.shape))


def pictures() -> Tensor:
    """Four pictures (4, 3, 64, 64) in [0, 1]: a slope, rings, stripes, a disc, in other colours."""
    y, x = np.mgrid[0:64, 0:64]
    far = (x - 32) ** 2 + (y - 24) ** 2
    shapes = [(x + y) * 2, far // 4 % 256, (x // 8 % 2) * 200 + 20, (far < 256) * 180 + 40]
    colours = np.array([[255, 128, 64], [64, 255, 160], [200, 90, 255], [128, 220, 40]])
    coloured = [
        shape[None] * colour[:, None, None] // 255
        for shape, colour in zip(shapes, colours, strict=True)
    ]
    return torch.from_numpy(np.stack(coloured)).double() / 255


@torch.no_grad()
def answers(vlm: RewardVLM) -> dict[str, Any]:
    shown = [(0, 1), (1, 0), (2, 3), (0, 3)]
    logits = answer_logits(vlm, pictures(), shown, [QUERIES] * len(shown))
    return {
        "margin": margins_of(vlm, logits).tolist(),
        "yes": logits[..., vlm.yes_id].tolist(),
        "no": logits[..., vlm.no_id].tolist(),
    }


def measure() -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in ("transformers", "torch")},
        "models": {name: answers(vlm) for name, vlm in models()},
    }


def differences(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """One sentence for each model whose answers moved."""
    lines = []
    for name, values in kept["models"].items():
        gap = max(
            float(np.abs(np.subtract(found["models"][name][key], values[key])).max())
            for key in values
        )
        if not gap <= TOLERANCE:
            lines.append(
                f"{name}: answers moved by up to {gap:.2g} since transformers "
                f"{kept['versions']['transformers']} (now {found['versions']['transformers']})."
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare or rewrite the kept answers.")
    parser.add_argument("--write", action="store_true", help="keep today's answers")
    found = measure()
    if parser.parse_args().write:
        FIXTURE.parent.mkdir(exist_ok=True)
        FIXTURE.write_text(json.dumps(found, indent=1) + "\n")
        print(f"Kept the answers of {len(found['models'])} models in {FIXTURE.name}.")
        return 0
    moved = differences(found, json.loads(FIXTURE.read_text()))
    print("\n".join(moved) or "All answers are as kept.")
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
