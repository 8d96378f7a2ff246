"""A policy step at the size of FLUX.1-Fill-dev and Qwen2.5-VL-7B, with random weights.

    python -m tests.benchmarks.flux_step                          # full size, one GPU, bf16, LoRA
    python -m tests.benchmarks.flux_step --size half --literal    # beside the paper's Algorithm 1
    python -m tests.benchmarks.flux_step --size tiny --literal    # on a CPU

Prints the step's time split by phase, peak memory, tokens and images per second, and the share of
the GPU's dense bf16 limit: operations counted by torch's FlopCounterMode, attention included, over
the measured time. `--literal` takes the literal step in the same run, where its three transformers
and two Adam moments fit: at full size they take 12 x 12 billion bytes and more. `half` has half of
FLUX's blocks and of the reward model's.

What random weights change: nothing of the above, but no reward is learned. Two things are not
FLUX's: prompts are encoded by a one-layer text encoder of T5's width (no encoder runs in a step),
and questions are cut by the starter project's tokenizer, into about as many tokens as Qwen's.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
)

from generation.diffusion.loading import FillModels
from generation.diffusion.spec import PolicySpec
from modeling.policy import rollouts, trainer
from modeling.policy.config import PolicyConfig, RewardSpec, rollout_steps
from modeling.policy.literal import LiteralConfig, LiteralStep
from modeling.policy.live_bytes import peak_bytes
from modeling.policy.objectives import onereward
from modeling.policy.step_bench import STARTER, moments_of, weights_of, write_run
from modeling.policy.train import train_step
from modeling.reward.preprocess import VisionLayout
from modeling.reward.view_config import ViewConfig
from modeling.reward.vision import batch_equal_images
from modeling.reward.vlm import RewardVLM, answer_ids
from modeling.rundir import RunDirectory
from tests.diffusion.tiny import (
    FLUX_FILL_TRANSFORMER,
    FLUX_VAE,
    clip_tokenizer,
    t5_tokenizer,
    tiny_pipeline,
)
from tests.reward.test_real_config import QWEN_7B

# Dense bf16, without sparsity, by the beginning of the name that the driver tells.
LIMITS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12}
SIZES = ("full", "half", "tiny")
PROMPT_TOKENS = 512
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# What a phase's time is the sum of: the outermost of these that is running.
PHASES: list[tuple[Any, str, str]] = [
    (rollouts.Sampler, "pictures", "references"),
    (rollouts.Sampler, "trajectory", "rollout"),
    (rollouts.Sampler, "velocity", "anchor and forward"),
    (rollouts.Sampler, "decode", "decoding"),
    (onereward, "score", "reward forward"),
    (torch.autograd, "grad", "reward backward"),
    (torch.autograd, "backward", "decoder and transformer backward"),
    (torch.optim.AdamW, "step", "optimiser"),
]


def sizes(size: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The transformer's configuration, the reward model's, and the side of the pictures."""
    if size == "tiny":
        fill = {k: v for k, v in tiny_pipeline().transformer.config.items() if k[0] != "_"}
        text = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        text |= {"num_key_value_heads": 1, "intermediate_size": 256}
        vision: dict[str, Any] = {
            "depth": 2,
            "hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 128,
        }
        vision |= {"out_hidden_size": 128, "fullatt_block_indexes": [1]}
        scaling = {"type": "mrope", "mrope_section": [8, 12, 12]}
        qwen = QWEN_7B | text | {"rope_scaling": scaling, "vocab_size": 1024}
        return fill, qwen | {"vision_config": QWEN_7B["vision_config"] | vision}, 64
    if size == "half":
        half = FLUX_FILL_TRANSFORMER | {"num_layers": 10, "num_single_layers": 19}
        return half, QWEN_7B | {"num_hidden_layers": 14}, 512
    return FLUX_FILL_TRANSFORMER, QWEN_7B, 512


def build_policy(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> FillModels:
    torch.manual_seed(0)
    width, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
    tiny = width < 100
    with _born(device, dtype):
        transformer: Any = FluxTransformer2DModel(**config)
        vae: Any = tiny_pipeline().vae if tiny else AutoencoderKL(**FLUX_VAE)
        clip = CLIPTextConfig(
            hidden_size=pooled,
            intermediate_size=pooled,
            num_hidden_layers=1,
            num_attention_heads=4,
        )
        text_encoder: Any = CLIPTextModel(clip)
        t5 = T5Config(d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        text_encoder_2: Any = T5EncoderModel(t5)
    tokenizer_2 = t5_tokenizer()
    tokenizer_2.model_max_length = 12 if tiny else PROMPT_TOKENS
    for module in (transformer, vae, text_encoder, text_encoder_2):
        module.to(device, dtype).eval().requires_grad_(False)
    return FillModels(
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=clip_tokenizer(),
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        device=device,
        dtype=dtype,
    )


def build_reward(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> RewardVLM:
    torch.manual_seed(0)
    starter: Any = AutoConfig.from_pretrained(STARTER / "reward")
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = config | {name: getattr(starter, name) for name in ids}
    vision = config["vision_config"]
    with _born(device, dtype):
        model: Any = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model("qwen2_5_vl", **config), dtype=dtype
        )
    model = model.to(device).eval().requires_grad_(False)
    batch_equal_images(model)
    tokenizer: Any = AutoTokenizer.from_pretrained(STARTER / "reward")
    yes_id, no_id = answer_ids(tokenizer)
    return RewardVLM(
        model=model,
        tokenizer=tokenizer,
        layout=VisionLayout(
            patch_size=vision["patch_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            merge_size=vision["spatial_merge_size"],
            min_pixels=3136,
            max_pixels=12845056,
            mean=CLIP_MEAN,
            std=CLIP_STD,
        ),
        view=ViewConfig(),
        temperature=1.0,
        yes_id=yes_id,
        no_id=no_id,
    )


@contextmanager
def _born(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Weights are made where and as they stay: in fp32 on the host they would take 80 GB."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def built_not_loaded(models: FillModels, vlm: RewardVLM) -> Iterator[None]:
    """`prepare` takes these where it would load checkpoints."""
    loaders = {"load_models": models, "load_reward_vlm": vlm}
    kept = {name: getattr(trainer, name) for name in loaders}
    for name, made in loaders.items():
        setattr(trainer, name, lambda *_, made=made, **__: made)
    try:
        yield
    finally:
        for name, loader in kept.items():
            setattr(trainer, name, loader)


class Clock:
    """Seconds of each phase, a GPU's queue emptied at its ends; nested phases count once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._inside = False

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in PHASES]
        for owner, name, label in PHASES:
            setattr(owner, name, self._timed(getattr(owner, name), label))
        try:
            yield
        finally:
            for owner, name, method in kept:
                setattr(owner, name, method)

    def _timed(self, method: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside = True
            began = self.now()
            try:
                return method(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[label] = self.seconds.get(label, 0.0) + self.now() - began

        # Accelerate and schedulers look at the optimiser's method.
        call.__dict__.update(getattr(method, "__dict__", {}))
        return call


@dataclass(frozen=True)
class Shown:
    """What a step was given, for the other one."""

    batch: Any
    seeds: list[int]
    at: torch.Tensor


def measure(
    size: str, *, device: torch.device, dtype: torch.dtype, steps: int, batch: int, literal: bool
) -> dict[str, Any]:
    """One step's figures, and the literal step's in the same run where it fits."""
    _, _, side = sizes(size)
    settings = {
        "dtype": str(dtype).removeprefix("torch."),
        "gradient_checkpointing": device.type == "cuda",
        "batch_size": batch,
        "micro_batch_size": 1,
        "num_inference_steps": 4 if size == "tiny" else 28,
        "rollout_steps": 4 if size == "tiny" else 14,
        "references_per_source": 1,
        "lr": 1e-5,
        "max_pixels": side * side,
    }
    found: dict[str, Any] = {"size": size, "device": name_of(device), "dtype": settings["dtype"]}
    with tempfile.TemporaryDirectory() as folder:
        places = {"policy": Path("-"), "reward": Path("-")}
        run = write_run(Path(folder), places, side, ["fill"], settings)
        ours, shown = measure_ours(run, size, device, dtype, steps)
    found |= ours
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if literal:
        found |= measure_literal(shown, run_config(settings), size, device, dtype)
        if "literal_seconds" in found:
            found["step_speedup"] = found["literal_seconds"] / found["seconds"]
            found["memory_ratio"] = found["peak_gib"] / found["literal_peak_gib"]
    return found


def measure_ours(
    run: RunDirectory, size: str, device: torch.device, dtype: torch.dtype, steps: int
) -> tuple[dict[str, Any], list[Shown]]:
    fill, qwen, _ = sizes(size)
    models, vlm = build_policy(fill, device, dtype), build_reward(qwen, device, dtype)
    config = run.config(PolicyConfig)
    with built_not_loaded(models, vlm):
        made = trainer.prepare(run, config, Accelerator(cpu=device.type == "cpu"))
    numbers = range(1, steps + 1)
    first, clock = Clock(device), Clock(device)
    with first.watching():
        for step in numbers:
            train_step(made, step)  # makes the references, and warms up
    began = clock.now()
    with clock.watching():
        for step in numbers:
            train_step(made, step)
    seconds = (clock.now() - began) / steps
    shown = [material_of(made, step) for step in numbers]
    # Counted apart, since counting costs time.
    with FlopCounterMode(display=False) as counter, evaluations(models.transformer) as seen:
        for step in numbers:
            train_step(made, step)
    operations = counter.get_total_flops() / steps
    held = weights_of(models.transformer, models.vae, vlm.model) + moments_of(made.optimizer)
    peak = peak_bytes(lambda: train_step(made, 1), held, device)
    conditions = shown[0].batch.conditions
    tokens = conditions.masked_image.shape[1] + conditions.prompt_embeds.shape[1]
    limit = next((v for k, v in LIMITS.items() if name_of(device).startswith(k)), None)
    figures = {
        "transformer_parameters": sum(p.numel() for p in fill_weights(models.transformer)),
        "reward_parameters": sum(p.numel() for p in vlm.model.parameters()),
        "seconds": seconds,
        "phases": {name: value / steps for name, value in clock.seconds.items()},
        "references_seconds": first.seconds["references"] / steps,
        "peak_gib": peak / 2**30,
        "images_per_second": config.batch_size / seconds,
        "tokens_per_second": tokens * sum(seen) / steps / seconds,
        "tflop": operations / 1e12,
        "tflop_per_second": operations / seconds / 1e12,
        "share_of_bf16_limit": operations / seconds / limit if limit else None,
    }
    return figures, shown


def measure_literal(
    shown: Sequence[Shown],
    config: PolicyConfig,
    size: str,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    fill, qwen, _ = sizes(size)
    clock, total = Clock(device), 0.0
    try:
        models, vlm = build_policy(fill, device, dtype), build_reward(qwen, device, dtype)
        models.text_encoder = models.text_encoder_2 = None
        if config.gradient_checkpointing:
            models.transformer.enable_gradient_checkpointing()
        literal = LiteralStep(
            models,
            vlm,
            LiteralConfig(
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                cap=config.cap,
                lr=config.lr,
                micro_batch_size=config.micro_batch_size,
            ),
        )

        def take(one: Shown) -> None:
            literal.take(one.batch, one.seeds, [seed + 1 for seed in one.seeds], one.at)

        take(shown[0])  # warms up
        for one in shown:
            began = clock.now()
            take(one)
            total += clock.now() - began
        held = weights_of(literal.policy, literal.ema, literal.reference, models.vae, vlm.model)
        peak = peak_bytes(lambda: take(shown[0]), held + moments_of(literal.optimizer), device)
    except torch.OutOfMemoryError:
        return {"literal": "does not fit on this device"}
    return {"literal_seconds": total / len(shown), "literal_peak_gib": peak / 2**30}


def run_config(settings: dict[str, Any]) -> PolicyConfig:
    return PolicyConfig(policy=PolicySpec("-"), reward=RewardSpec("-"), **settings)


def material_of(made: trainer.Trainer, step: int) -> Shown:
    rng = np.random.default_rng([made.config.seed, step, 0])
    material: Any = made.objective.prepare(step, rng)
    config = made.config
    # The same noise level among the literal step's own, which are more.
    at = material.at[0] * config.num_inference_steps // rollout_steps(config)
    return Shown(material.batch, material.seeds, at)


def fill_weights(transformer: Any) -> list[torch.Tensor]:
    """The transformer's own weights, without adapters."""
    return [p for name, p in transformer.named_parameters() if ".lora_" not in name]


@contextmanager
def evaluations(transformer: Any) -> Iterator[list[int]]:
    """How many samples each of the transformer's forwards had, recomputation not counted."""
    seen: list[int] = []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(len(kwargs["hidden_states"]))

    handle = transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def table(found: dict[str, Any]) -> Iterator[str]:
    for key, value in found.items():
        if key == "phases":
            for phase, seconds in sorted(value.items(), key=lambda item: -item[1]):
                share = 100 * seconds / found["seconds"]
                yield f"  {phase:36}{seconds:>12.4g} s{share:>8.1f} %"
        elif isinstance(value, float):
            yield f"{key:38}{value:>12.4g}"
        elif value is not None:
            yield f"{key:38}{value!s:>12}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="full" if on_gpu else "tiny")
    parser.add_argument("--literal", action="store_true", help="Also the literal Algorithm 1.")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="Sources of a step.")
    parser.add_argument("--dtype", default="bfloat16" if on_gpu else "float32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    found = measure(
        given.size,
        device=torch.device("cuda" if on_gpu else "cpu"),
        dtype=getattr(torch, given.dtype),
        steps=given.steps,
        batch=given.batch,
        literal=given.literal,
    )
    print("\n".join(table(found)))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
