"""A step of policy training beside Algorithm 1 as the paper writes it, as ratios within one run.

    python -m modeling.policy.step_bench [--starter]

Both take the same sources, noise and steps. The literal step (literal.py) samples its references,
reads the pictures once per dimension, keeps one graph and trains one of three whole transformers.
Ours is a LoRA whose roles share one transformer, references made once, one reading, two halves,
and, on top of the paper, the anchor; all other settings are the defaults. Each gives one gradient
for each source.

At FLUX's proportions five sixths of a step of ours are the policy's own rollout. So it is
recommended there to roll out in 14 steps of second order, whose pictures lie nearer the flow's true
end than 28 of Euler's do (on 40 sources of the starter policy 0.0017 from it inside the mask, where
Euler's are 0.0029), and this is what "ours" is. `rl_step_speedup_same_steps` is with Euler's 28 on
both sides.

The models have random weights and FLUX's proportions: one evaluation of the transformer, one
question to the reward model and one decoding stand to each other about as those of FLUX.1-Fill-dev
and Qwen2.5-VL-7B at 512 x 512 (21.5, 12.8 and 2.5 TFLOP), 28 steps, four dimensions. With
`--starter` they are the shipped ones, where the VAE and the reward model weigh more.

Time is taken in turns; on a CPU it is the process's own, which neighbours hardly change. In a
whole run ours makes some of its references, too (`made_share`); their time is added in
`rl_step_speedup_whole_run`. Memory is that of the tensors alive at once (live_bytes.py), weights,
optimiser and averages included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, FluxFillPipeline, FluxTransformer2DModel
from PIL import Image
from torch import Tensor, nn

from generation.diffusion.loading import load_models
from modeling.policy.adapters import Roles
from modeling.policy.config import PolicyConfig
from modeling.policy.literal import LiteralConfig, LiteralStep
from modeling.policy.live_bytes import peak_bytes
from modeling.policy.objectives.onereward import OneReward
from modeling.policy.rollouts import Sampler
from modeling.policy.sources import Sources
from modeling.policy.train import train_step
from modeling.policy.trainer import Trainer, prepare
from modeling.reward.bench import bench_vlm
from modeling.reward.vlm import RewardVLM, load_reward_vlm, write_settings
from modeling.rundir import RunDirectory
from modeling.starter import world
from modeling.starter.reward_questions import query

STARTER = Path(__file__).parent.parent / "starter" / "weights"
SOURCES_A_TASK = 8
SIDE = 128
# 2.07, 0.99 and 0.18 GFLOP at 128 x 128.
FLUX_LIKE: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 64,
    "num_attention_heads": 6,
    "axes_dims_rope": (16, 24, 24),
    "vae_channels": (8, 8, 16, 16),
}


@dataclass(frozen=True)
class StepFigures:
    """Seconds and bytes of a step; `fresh` is ours where no reference was made before, `same`
    with the literal step's rollouts."""

    literal_seconds: float
    ours_seconds: float
    fresh_seconds: float
    same_seconds: float
    literal_bytes: int
    ours_bytes: int
    made_share: float  # of the references that a whole run draws, those that it makes

    def ratios(self) -> dict[str, float]:
        making = self.made_share * max(0.0, self.fresh_seconds - self.ours_seconds)
        return {
            "rl_step_speedup": self.literal_seconds / self.ours_seconds,
            "rl_step_speedup_whole_run": self.literal_seconds / (self.ours_seconds + making),
            "rl_step_speedup_same_steps": self.literal_seconds / self.same_seconds,
            "rl_memory_ratio": self.ours_bytes / self.literal_bytes,
        }


def starter_run(directory: Path, **changes: Any) -> RunDirectory:
    """A run directory of the starter models over a few scenes of every task."""
    models = {"policy": STARTER / "policy", "reward": STARTER / "reward"}
    return write_run(directory, models, world.SIZE, list(world.TASKS), changes)


def flux_like_run(directory: Path, **changes: Any) -> RunDirectory:
    """A run directory of random models with FLUX's proportions, every source with four questions,
    rollouts as recommended for FLUX.

    One source a step: there a GPU is full with one, here a larger batch would make the references,
    which are sampled together, cheaper than they are. The LoRA's rank is to the width as 16 to
    FLUX's 3072.
    """
    directory.mkdir(parents=True, exist_ok=True)
    models = {"policy": directory / "policy", "reward": directory / "reward"}
    save_policy(models["policy"], **FLUX_LIKE)
    save_reward(models["reward"])
    settings: dict[str, Any] = {"num_inference_steps": 28, "rollout_steps": 14}
    settings |= {"batch_size": 1, "lora_rank": 2, "lr": 1e-5, **changes}
    return write_run(directory, models, SIDE, ["fill"], settings)


def save_policy(directory: Path, *, vae_channels: tuple[int, ...], **transformer: Any) -> None:
    """A Fill pipeline with random transformer and VAE and the starter's text encoders."""
    torch.manual_seed(0)
    pipeline: Any = FluxFillPipeline.from_pretrained(
        STARTER / "policy", use_safetensors=True, trust_remote_code=False
    )
    factor, latents = 8, 4
    pipeline.transformer = FluxTransformer2DModel(
        in_channels=8 * latents + 4 * factor**2,
        out_channels=4 * latents,
        joint_attention_dim=pipeline.text_encoder_2.config.d_model,
        pooled_projection_dim=pipeline.text_encoder.config.hidden_size,
        guidance_embeds=True,
        **transformer,
    )
    pipeline.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=vae_channels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=8,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    pipeline.save_pretrained(directory)


def save_reward(directory: Path) -> None:
    vlm = bench_vlm(hidden=192, layers=3)
    vlm.model.save_pretrained(directory)
    vlm.tokenizer.save_pretrained(directory)
    shutil.copy(STARTER / "reward" / "preprocessor_config.json", directory)
    write_settings(directory, vlm)


def write_run(
    directory: Path,
    models: Mapping[str, Path],
    side: int,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
) -> RunDirectory:
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for task in tasks:
        dimensions = world.DIMENSIONS[task]
        for number in range(SOURCES_A_TASK):
            example = world.sample_example(rng, task)
            name = f"{task}-{number}"
            for pixels, file in ((example.image, name), (example.mask, f"{name}-mask")):
                picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
                picture.save(directory / f"{file}.png")
            rows.append(
                {
                    "id": name,
                    "task": task,
                    "weight": 1.0,
                    "image": f"{name}.png",
                    "mask": f"{name}-mask.png",
                    "prompt": example.prompt,
                    "queries": {one: query(task, one, example.prompt) for one in dimensions},
                }
            )
    (directory / "sources.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "policy": {"location": str(models["policy"])},
        "reward": {"location": str(models["reward"])},
        "monitor": {"every": 0, "sources": 1},
        "sample_every": 0,
        **settings,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return RunDirectory(directory)


def measure(run: RunDirectory, *, repeats: int = 5) -> StepFigures:
    """Both steps on the run's models; the default settings of whatever its configuration omits."""
    config = run.config(PolicyConfig)
    trainer = prepare(run, config, Accelerator(cpu=not torch.cuda.is_available()))
    device, dtype = trainer.accelerator.device, getattr(torch, config.dtype)
    literal = LiteralStep(
        load_models(config.policy, device=device, dtype=dtype),
        load_reward_vlm(config.reward.location, device=device, dtype=dtype),
        LiteralConfig(
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            cap=config.cap,
            lr=config.lr,
            micro_batch_size=config.micro_batch_size,
        ),
    )
    same = _as_sampled(trainer)
    seconds: dict[str, list[float]] = {"literal": [], "ours": [], "fresh": [], "same": []}
    for step in range(1, repeats + 2):
        shown = _material(same, step)

        def as_paper(shown: Any = shown, step: int = step) -> None:
            seeds = [step * 1000 + number for number in range(len(shown))]
            literal.take(shown.batch, shown.seeds, seeds, shown.at[0])

        def ours(step: int = step) -> None:
            train_step(trainer, step)

        def with_their_steps(step: int = step) -> None:
            train_step(same, step)

        _forget_references(run, trainer)
        turns = {
            "literal": _seconds(as_paper, device),
            "fresh": _seconds(ours, device),
            "ours": _seconds(ours, device),  # the same step again: its references are there
            "same": _seconds(with_their_steps, device),
        }
        if step > 1:  # the first warms up
            for name, taken in turns.items():
                seconds[name].append(taken)
    # Means, since the steps draw different lengths of rollout.
    means = {name: statistics.mean(taken) for name, taken in seconds.items()}
    return StepFigures(
        literal_seconds=means["literal"],
        ours_seconds=means["ours"],
        fresh_seconds=means["fresh"],
        same_seconds=means["same"],
        literal_bytes=peak_bytes(as_paper, _held_by_literal(literal), device),
        ours_bytes=peak_bytes(ours, _held_by(trainer), device),
        made_share=made_share(),
    )


def loader_share(run: RunDirectory, *, steps: int = 8) -> float:
    """Share of the steps' time that goes into drawing, reading and encoding sources, the first
    sight of each source included."""
    config = run.config(PolicyConfig)
    trainer = prepare(run, config, Accelerator(cpu=not torch.cuda.is_available()))
    device = trainer.accelerator.device
    total = 0.0
    with _timed(Sources, ("draw", "batch"), device) as loading:
        for step in range(1, steps + 1):
            began = time.perf_counter()
            train_step(trainer, step)
            _wait(device)
            total += time.perf_counter() - began
    return sum(loading) / total


def made_share(sources: int = 1000, each: int = 2, steps: int = 2000, batch: int = 8) -> float:
    """Of the references that a run draws, the share that it has to make; the sizes are those of
    the starter project's sources and of the settings recommended for FLUX."""
    drawn = np.random.default_rng(0).integers(sources * each, size=steps * batch)
    return len(np.unique(drawn)) / len(drawn)


def _as_sampled(trainer: Trainer) -> Trainer:
    """The same models, with rollouts as the literal step has them. Steps are drawn from the same
    random numbers, so that both take their gradients at the same noise levels."""
    objective: Any = trainer.objective
    config = replace(trainer.config, rollout_steps=0)
    sampler = Sampler(trainer.models, config, training=True)
    directory = objective.parts.directory / "as-sampled"  # of its references
    parts = replace(objective.parts, config=config, sampler=sampler, directory=directory)
    return replace(
        trainer, config=config, sampler=sampler, objective=OneReward(parts, moving=False)
    )


def _material(trainer: Trainer, step: int) -> Any:
    """What our step of this number draws."""
    rng = np.random.default_rng([trainer.config.seed, step, 0])
    return trainer.objective.prepare(step, rng)


def _forget_references(run: RunDirectory, trainer: Trainer) -> None:
    store: Any = trainer.objective
    for path in (run.path / "references").glob("*.safetensors"):
        path.unlink()
    store.references.store._places.clear()


def _seconds(
    work: Callable[[], object], device: torch.device, clock: Callable[[], float] | None = None
) -> float:
    clock = clock or (time.perf_counter if device.type == "cuda" else time.process_time)
    _wait(device)
    began = clock()
    work()
    _wait(device)
    return clock() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _timed(owner: type, names: Iterable[str], device: torch.device) -> Iterator[list[float]]:
    """Seconds of each call of these methods meanwhile."""
    taken: list[float] = []
    kept = {name: getattr(owner, name) for name in names}

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            read = _seconds(
                lambda: found.append(method(*args, **kwargs)), device, time.perf_counter
            )
            taken.append(read)
            return found[0]

        return call

    for name, method in kept.items():
        setattr(owner, name, timed(method))
    try:
        yield taken
    finally:
        for name, method in kept.items():
            setattr(owner, name, method)


def weights_of(*modules: nn.Module) -> list[Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def moments_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]


def _held_by_literal(literal: LiteralStep) -> list[Tensor]:
    parts = (literal.policy, literal.ema, literal.reference, literal.models.vae)
    return weights_of(*parts, literal.vlm.model) + moments_of(literal.optimizer)


def _held_by(trainer: Trainer) -> list[Tensor]:
    vlm: RewardVLM = trainer.vlm
    roles: Roles = trainer.roles
    return [
        *weights_of(trainer.models.transformer, trainer.models.vae, vlm.model),
        *roles.parameters(),
        *moments_of(trainer.optimizer),
    ]


def figures(*, starter: bool = False, repeats: int = 6, **changes: Any) -> dict[str, float]:
    """The keys of `make bench`, and the CPU seconds behind them; `changes` are the run's settings.

    The share of loading is the starter models', whose steps are the shortest.
    """
    make = starter_run if starter else flux_like_run
    with tempfile.TemporaryDirectory() as folder:
        found = measure(make(Path(folder) / "step", **changes), repeats=repeats)
        share = loader_share(starter_run(Path(folder) / "loader"))
    seconds = {
        f"rl_{key}": value for key, value in asdict(found).items() if key.endswith("seconds")
    }
    return found.ratios() | seconds | {"loader_share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description="A policy step beside the literal Algorithm 1.")
    parser.add_argument("--starter", action="store_true", help="On the shipped starter models.")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--batch-size", type=int)
    given = parser.parse_args()
    changes = {"batch_size": given.batch_size} if given.batch_size else {}
    found = figures(starter=given.starter, repeats=given.repeats, **changes)
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
