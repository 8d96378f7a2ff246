"""The configuration of one reward training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from modeling.reward.quantisation import QUANTISATIONS
from modeling.reward.view_config import ViewConfig
from modeling.rundir import TRACKERS, RunError, load_config

CHOICES = {
    "order": ("both", "random"),
    "ties": ("off", "fixed", "trained"),
    "output": ("lora", "full"),
    "mixed_precision": ("auto", "no", "bf16"),
    "quantisation": QUANTISATIONS,
}


@dataclass(frozen=True)
class RewardConfig:
    """Every setting of `modeling.reward.train`, as `config.json` holds them."""

    # The dataset directory of the labels.
    snapshot: str
    # Directory or hub id of the VLM to start from, in transformers' layout.
    base: str
    # A LoRA to go on from, in peft's layout; "" starts a fresh one (or trains `base` itself).
    adapter: str = ""
    # "lora" trains low-rank maps beside frozen weights, "full" every weight.
    output: str = "lora"
    # Store the base's language model in "nf4" or "int8" (bitsandbytes), for a LoRA beside it.
    quantisation: str = ""
    # The value of the split column that is held out for the final figures.
    holdout: str = "holdout"
    # How pictures are shown; {} keeps the base's own view.
    view: dict[str, Any] = field(default_factory=dict)
    # Shrink larger pictures to this many pixels; 0 keeps the base's own limit.
    max_pixels: int = 0

    # Optimiser steps; 0 derives them from `epochs`.
    steps: int = 0
    # Passes over the pairs when `steps` is 0. Few and noisy labels are learnt by heart in three.
    epochs: float = 1.0
    # Pairs of pictures per step over all processes, each with all its questions and in both orders.
    batch_size: int = 16
    # Peak learning rate: linear warm-up, then linear decay to zero.
    lr: float = 2e-4
    # Share of the steps spent warming up.
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    # Share of each batch that shows pictures of two sources and asks for each of their prompts.
    swap_share: float = 0.25
    # "both" shows every pair in both orders, as the paper does; "random" in one that is drawn anew
    # for every step, which halves the work and leaves position bias to chance.
    order: str = "both"

    # What "no difference" answers teach: nothing ("off"), or a third answer (Davidson's model),
    # whose strength is a trained number or a fixed one.
    ties: str = "off"
    # That strength, at the start or for good; 0 takes it from the share of ties in the labels.
    tie_strength: float = 0.0
    # Learning rate of its logarithm, with the same schedule as the weights'.
    tie_lr: float = 0.02
    # Times the snapshot's weight (0.5) of relations that a best and a worst only imply; 0 leaves
    # them out.
    implied_weight: float = 1.0
    # Weigh answers by how reliable their annotator is, where `manage.py aggregate` estimated it.
    reliability: bool = False
    # Answers this many days older than the newest weigh half; 0 = age does not matter.
    half_life_days: float = 0.0

    # Share of the training sources kept back to fit the temperature.
    calibration_share: float = 0.1

    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    # Also put low-rank maps into the vision tower.
    lora_vision: bool = True

    # Fewer training pairs than this are refused.
    min_pairs: int = 16
    # A dimension is judged (and may be left out) from this many held-out pairs on.
    min_test_pairs: int = 10

    seed: int = 0
    # "auto" is bf16 on a GPU and full precision on a CPU.
    mixed_precision: str = "auto"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    # Log the held-out accuracy every so many steps; 0 only before and after.
    evaluate_every: int = 0
    # Trackers beside TensorBoard: "wandb", "mlflow", "trackio", where they are installed.
    trackers: tuple[str, ...] = ()
    # The project (experiment) that runs belong to there.
    tracker_project: str = "oneloop"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}"
                )
        if self.quantisation and self.output == "full":
            raise ValueError(
                "quantised weights cannot be trained: set output to lora, or quantisation to ''"
            )
        for name in ("snapshot", "base", "holdout", "tracker_project"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        for name in ("batch_size", "lora_rank", "min_pairs", "min_test_pairs", "checkpoint_every"):
            self._number(name, 1, math.inf, whole=True)
        for name in ("steps", "evaluate_every", "max_pixels", "seed"):
            self._number(name, 0, math.inf, whole=True)
        for name in ("warmup", "swap_share", "calibration_share", "lora_dropout"):
            self._number(name, 0, 0.9)
        for name in (
            "weight_decay",
            "max_grad_norm",
            "lora_alpha",
            "lr",
            "epochs",
            "tie_strength",
            "tie_lr",
            "implied_weight",
            "half_life_days",
        ):
            self._number(name, 0, math.inf)
        if self.lr == 0 or self.max_grad_norm == 0:
            raise ValueError("lr and max_grad_norm must be above 0")
        if not isinstance(self.reliability, bool):
            raise ValueError(f"reliability must be true or false, not {self.reliability!r}")
        if self.steps == 0 and self.epochs == 0:
            raise ValueError("give steps or epochs: both are 0")
        unknown = sorted(set(self.trackers) - set(TRACKERS))
        if unknown:
            raise ValueError(
                f"trackers may name {', '.join(TRACKERS)}, not {', '.join(map(repr, unknown))}"
            )
        try:
            load_config(ViewConfig, self.view)
        except RunError as error:
            raise ValueError(f"view: {error}") from error

    def _number(self, name: str, low: float, high: float, *, whole: bool = False) -> None:
        value = getattr(self, name)
        kind = int if whole else int | float
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            limit = f"from {low:g} on" if high == math.inf else f"between {low:g} and {high:g}"
            raise ValueError(f"{name} must be {what} {limit}, not {value!r}")
