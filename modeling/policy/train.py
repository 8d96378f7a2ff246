"""Multi-task ReFL on a flow-matching Fill model (OneReward, arXiv 2508.21066, section 3.3).

    accelerate launch -m modeling.policy.train --run DIR

One step: draw sources (a task by its weight, then a source); references x_ref from the frozen
parent (Algorithm 1, "frozen") or from the EMA (Algorithm 2, "dynamic"); policy images from *other*
noise, denoised without gradient to a random step, then one step to the endpoint x_0' with gradient;
decode; ask the reward VLM every question of the source's task in one packed pass; descend on the
capped hinge plus an anchor that holds the velocity field to the parent's. The EMA is the output.

Deliberate changes against the paper: the hinge acts on the logit margin by default, image order is
drawn, the source is composited outside the mask, references are cached, and the anchor and the
alarm (monitors.py) exist at all.

All randomness of a step comes from (seed, step, rank), so that a run killed at any moment and
started again with the same directory ends in the same weights.

Shapes: B samples, S tokens, C packed channels, D dimensions, H, W pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from generation.diffusion.loading import FillModels, load_models
from generation.diffusion.sampling import endpoint
from modeling.policy import monitors
from modeling.policy.adapters import BASE, EMA, POLICY, REFERENCE, AdapterRoles, CopiedRoles, Roles
from modeling.policy.config import PolicyConfig, gradient_steps
from modeling.policy.objective import (
    anchor_loss,
    capped_hinge,
    mean_over_dimensions,
    straight_through,
    tone_loss,
)
from modeling.policy.references import References
from modeling.policy.rollouts import SEED_LIMIT, Sampler, Scores, favourites, inside_tokens, score
from modeling.policy.samples import save_grid
from modeling.policy.sources import Batch, Sources, read_rows
from modeling.policy.watch import Watch, seed_of, spread, start_watch
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.rundir import RunDirectory, RunError, die_with_parent


@dataclasses.dataclass
class Trainer:
    """What a step needs, built once by `prepare`."""

    config: PolicyConfig
    accelerator: Accelerator
    run: RunDirectory
    models: FillModels
    vlm: RewardVLM
    roles: Roles
    sources: Sources
    references: References
    sampler: Sampler
    optimizer: torch.optim.Optimizer
    watch: Watch


def train(run_dir: str | Path) -> dict[str, Any]:
    """Train the run in `run_dir` to its end and return its result."""
    run = RunDirectory(run_dir)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    accelerator = Accelerator()
    with run.guarded() if accelerator.is_main_process else nullcontext():
        try:
            config = run.config(PolicyConfig)
            trainer = prepare(run, config, accelerator)
        except (FileNotFoundError, ValueError) as error:
            raise RunError(str(error)) from error
        first = resume(trainer)
        for step in range(first + 1, config.steps + 1):
            began = time.perf_counter()
            values = train_step(trainer, step)
            check(trainer, step, values)
            if accelerator.is_main_process:
                run.log(step, **values, seconds=round(time.perf_counter() - began, 3))
                run.progress(step, config.steps, f"P(Yes) {values['reward']:.2f}")
                if step % config.checkpoint_every == 0 or step == config.steps:
                    run.save_checkpoint(step, lambda path: save_checkpoint(trainer, path))
        accelerator.wait_for_everyone()
        return finish(trainer) if accelerator.is_main_process else {}


def prepare(run: RunDirectory, config: PolicyConfig, accelerator: Accelerator) -> Trainer:
    torch.manual_seed(config.seed)
    device, dtype = accelerator.device, getattr(torch, config.dtype)
    place = run.path / config.sources  # an absolute path stays as it is
    rows = read_rows(place)
    training = [row for row in rows if row.split == "train"]
    if not training:
        raise RunError(f"'{place}' holds no training source with a question for the reward model.")
    models = load_models(dataclasses.replace(config.policy, adapter=""), device=device, dtype=dtype)
    vlm = load_reward_vlm(
        config.reward.location, adapter=config.reward.adapter, device=device, dtype=dtype
    )
    sampler = Sampler(models, config)
    sources = Sources(training, models, max_pixels=config.max_pixels)
    held_out = [row for row in rows if row.split != "train"] or training
    watched = Sources(spread(held_out, config), models, max_pixels=config.max_pixels)
    # Every prompt is encoded: a T5 of 10 GB has no place beside the training.
    models.text_encoder = models.text_encoder_2 = None
    if config.gradient_checkpointing:
        models.transformer.enable_gradient_checkpointing()
    adapter = config.policy.adapter
    roles: Roles
    if config.full_finetune:
        roles = CopiedRoles(models.transformer, parent_adapter=adapter)
    else:
        roles = AdapterRoles(models.transformer, rank=config.lora_rank, parent_adapter=adapter)
    frozen = config.algorithm == "frozen"
    return Trainer(
        config=config,
        accelerator=accelerator,
        run=run,
        models=models,
        vlm=vlm,
        roles=roles,
        sources=sources,
        references=References(
            run.path / "references",
            staleness=None if frozen else config.reference_staleness,
            keep_steps=3 * config.checkpoint_every,
            rank=accelerator.process_index,
        ),
        sampler=sampler,
        optimizer=torch.optim.AdamW(
            roles.parameters(), lr=config.lr, weight_decay=config.weight_decay
        ),
        watch=start_watch(config, sampler, roles, watched),
    )


def learning_rate(config: PolicyConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay over the second half to `final_lr` of it."""
    if step <= config.warmup_steps:
        return config.lr * step / max(1, config.warmup_steps)
    done = max(0.0, 2 * step / config.steps - 1)
    return config.lr * (1 - (1 - config.final_lr) * done)


# --- one step ---


def train_step(trainer: Trainer, step: int) -> dict[str, Any]:
    config, roles = trainer.config, trainer.roles
    rng = np.random.default_rng([config.seed, step, trainer.accelerator.process_index])
    count = config.batch_size
    batch = trainer.sources.batch(trainer.sources.draw(rng, count))
    seeds = [int(seed) for seed in rng.integers(SEED_LIMIT, size=count)]
    at = torch.from_numpy(
        rng.choice(gradient_steps(config.num_inference_steps, config.t_range), size=count)
    )
    first = torch.from_numpy(_orders(rng, config.order, count))
    numbers = rng.integers(config.references_per_source, size=count)
    references, made = reference_images(trainer, step, batch, [int(n) for n in numbers])

    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    trainer.optimizer.zero_grad(set_to_none=True)
    size = config.micro_batch_size or count
    tally = Tally()
    for begin in range(0, count, size):
        part = slice(begin, begin + size)
        share = len(at[part]) / count
        tally.add(
            _forward_backward(
                trainer, batch[part], seeds[part], at[part], first[:, part], references[part], share
            ),
            share,
        )
    norm = _average_and_clip(trainer)
    trainer.optimizer.step()
    roles.update_ema(min(config.ema_decay, (1 + step) / (10 + step)))
    values = tally.values(cap=config.cap)
    if not math.isfinite(values["loss"]) or not math.isfinite(norm):
        raise RunError(
            f"The loss of step {step} is not a number. Lower lr ({config.lr}), or train in float32 "
            f"(dtype is {config.dtype})."
        )
    return values | {
        "grad_norm": norm,
        "adapter_norm": roles.distance(),
        "lr": learning_rate(config, step),
        "references_made": made,
    }


def _orders(rng: np.random.Generator, order: str, count: int) -> np.ndarray:
    """Where the policy's image stands first: (orders, count)."""
    drawn = rng.random(count) < 0.5
    if order == "both":
        return np.stack([drawn, ~drawn])
    return drawn[None] if order == "random" else np.ones((1, count), dtype=bool)


def reference_images(
    trainer: Trainer, step: int, batch: Batch, numbers: list[int]
) -> tuple[Tensor, int]:
    """x_ref (B, 3, H, W) from noise of its own, and how many were sampled for this step."""
    config = trainer.config
    frozen = config.algorithm == "frozen"
    keys = [
        (row.id, number if frozen else 0) for row, number in zip(batch.rows, numbers, strict=True)
    ]

    def make(indices: list[int]) -> Tensor:
        chosen = Batch(
            rows=[batch.rows[i] for i in indices],
            images=batch.images[indices],
            masks=batch.masks[indices],
            conditions=batch.conditions[indices],
        )
        # Frozen references are a property of the run; the EMA's are drawn anew each time.
        made = 0 if frozen else step
        drawn = []
        with trainer.roles.acting(REFERENCE if frozen else EMA) as transformer:
            for turn in range(config.reference_best_of):
                seeds = [seed_of("reference", config.seed, made, turn, *keys[i]) for i in indices]
                drawn.append(trainer.sampler.pictures(transformer, chosen, seeds))
        return favourites(trainer.vlm, drawn, chosen)

    return trainer.references.get(step, keys, make)


@dataclasses.dataclass
class Outcome:
    scores: Scores
    tasks: list[str]
    loss: float
    anchor: float
    outside_psnr: float


def _forward_backward(
    trainer: Trainer,
    batch: Batch,
    seeds: list[int],
    at: Tensor,  # (B,) the step of each sample that carries the gradient
    policy_first: Tensor,  # (orders, B)
    references: Tensor,  # (B, 3, H, W)
    share: float,  # of the whole batch, which the loss is the mean of
) -> Outcome:
    config, roles, sampler = trainer.config, trainer.roles, trainer.sampler
    noise = sampler.noise(batch, seeds)
    sigmas = sampler.sigmas(noise)
    stop = None if config.straight_through else int(at.max())
    with roles.acting(POLICY) as transformer:
        seen = sampler.trajectory(transformer, noise, batch, stop)  # (steps + 1, B, S, C)
        latents, sigma = seen[at, torch.arange(len(at))], sigmas[at.to(sigmas.device)]
    with torch.no_grad(), roles.acting(BASE if config.anchor == "base" else REFERENCE) as frozen:
        held = sampler.velocity(frozen, latents, sigma, batch)
    with roles.acting(POLICY) as transformer:
        predicted = sampler.velocity(transformer, latents, sigma, batch)
        pictures = sampler.decode(endpoint(latents, predicted, sigma), batch)

        shown = pictures
        if config.straight_through:
            shown = straight_through(sampler.decode(seen[-1], batch), pictures)
        # dR/dpixels first: the VLM's activations are gone before VAE and transformer go backward.
        pixels = shown.detach().requires_grad_(True)
        scores = score(trainer.vlm, pixels, references, batch, policy_first)
        hinge = capped_hinge(scores.margins, config.cap, config.reward_form).mean(0)  # (B, D)
        loss = mean_over_dimensions(hinge, scores.present).mean()
        (gradient,) = torch.autograd.grad(loss, pixels)
        anchor = anchor_loss(predicted, held).mean()
        tone = tone_loss(predicted, held, inside_tokens(batch.conditions)).mean()
        holding = config.anchor_weight * anchor + config.tone_weight * tone
        torch.autograd.backward((pictures, share * holding), (gradient * share, None))
    return Outcome(
        scores=Scores(scores.margins.detach(), scores.present, scores.dimensions),
        tasks=[row.task for row in batch.rows],
        loss=float(loss.detach()) + float(holding.detach()),
        anchor=float(anchor.detach()),
        outside_psnr=float(
            monitors.outside_psnr(pixels.detach(), batch.images, batch.masks).mean()
        ),
    )


def _average_and_clip(trainer: Trainer) -> float:
    """Mean gradient over all processes, clipped; returns the norm before clipping."""
    parameters = trainer.roles.parameters()
    if trainer.accelerator.num_processes > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = trainer.accelerator.reduce(parameter.grad, "mean")
    return float(torch.nn.utils.clip_grad_norm_(parameters, trainer.config.max_grad_norm))


class Tally:
    """Means of a step over its micro-batches, and per task and dimension."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Outcome, float]] = []

    def add(self, outcome: Outcome, share: float) -> None:
        self.outcomes.append((outcome, share))

    def values(self, cap: float) -> dict[str, Any]:
        cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for outcome, _ in self.outcomes:
            found = outcome.scores.margins.mean(0).tolist()  # (B, D), the mean of the orders
            for task, names, row in zip(
                outcome.tasks, outcome.scores.dimensions, found, strict=True
            ):
                for name, margin in zip(names, row, strict=False):
                    cells[task][name].append(margin)
        every = [margin for task in cells.values() for row in task.values() for margin in row]
        return {
            "loss": sum(outcome.loss * share for outcome, share in self.outcomes),
            "anchor": sum(outcome.anchor * share for outcome, share in self.outcomes),
            "outside_psnr": sum(o.outside_psnr * share for o, share in self.outcomes),
            **_cell(every, cap),
            "tasks": {
                task: {name: _cell(row, cap) for name, row in sorted(rows.items())}
                for task, rows in sorted(cells.items())
            },
        }


def _cell(margins: list[float], cap: float) -> dict[str, Any]:
    count = len(margins)
    rewards = [1 / (1 + math.exp(-max(-60.0, margin))) for margin in margins]
    return {
        "reward": sum(rewards) / count,
        "margin": sum(margins) / count,
        "clipped": sum(reward >= cap for reward in rewards) / count,
        "n": count,
    }


# --- watching ---


def check(trainer: Trainer, step: int, values: dict[str, Any]) -> None:
    """Compare the policy with its parent where the schedule says so; adds to the step's values.
    Raises RunError when the alarm trips."""
    config, watch, run = trainer.config, trainer.watch, trainer.run
    monitoring = bool(config.monitor.every) and step % config.monitor.every == 0
    sampling = bool(config.sample_every) and step % config.sample_every == 0
    last = step == config.steps
    if not (monitoring or sampling or last):
        return
    images, signs = watch.look(trainer.sampler, trainer.roles, trainer.vlm)
    values["monitor"] = signs
    reason = watch.alarm.check(step, signs, signs["reward"]) if monitoring else ""
    main_process = trainer.accelerator.is_main_process
    if main_process and (sampling or last or reason):
        path = run.path / "samples" / f"step-{step:06d}.png"
        save_grid(path, watch.batch.images, watch.batch.masks, watch.parents, images)
    if not reason:
        return
    values["alarm"] = reason
    if config.monitor.stop:
        if main_process:
            run.log(step, **values)
            run.write("result.json", {"step": step, "alarm": reason, "monitor": signs})
        raise RunError(reason)


# --- keeping ---


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    save_file(trainer.roles.state(), path / "roles.safetensors")
    torch.save(trainer.optimizer.state_dict(), path / "optimizer.pt")
    (path / "alarm.json").write_text(json.dumps(trainer.watch.alarm.state()))


def resume(trainer: Trainer) -> int:
    """Load the newest checkpoint; the step that it ends."""
    found = trainer.run.latest_checkpoint()
    step = 0
    if found is not None:
        step, path = found
        trainer.roles.load_state(load_file(path / "roles.safetensors"))
        trainer.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
        trainer.watch.alarm.load_state(json.loads((path / "alarm.json").read_text()))
    if trainer.accelerator.is_main_process:
        trainer.run.drop_metrics_after(step)
        trainer.run.progress(step, trainer.config.steps, "resumed" if step else "started")
    return step


def finish(trainer: Trainer) -> dict[str, Any]:
    """Write the EMA, the card and the result."""
    config, run, roles = trainer.config, trainer.run, trainer.roles
    temporary = run.path / f".{roles.output}"
    shutil.rmtree(temporary, ignore_errors=True)
    roles.save(temporary)
    shutil.rmtree(run.path / roles.output, ignore_errors=True)
    temporary.rename(run.path / roles.output)
    rows = run.metrics()
    checks = [row for row in rows if "monitor" in row]
    tail = rows[-20:]
    result = {
        "step": config.steps,
        "output": roles.output,
        "reward": sum(row["reward"] for row in tail) / len(tail),
        "margin": sum(row["margin"] for row in tail) / len(tail),
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
        "libraries": {name: _version(name) for name in ("torch", "diffusers", "peft")},
        "metrics": result,
    }
    run.write("card.json", card)
    run.write("result.json", result)
    run.progress(config.steps, config.steps, "finished")
    return result


def code_version() -> str:
    """The commit of the code, "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", required=True, help="run directory with config.json")
    options = parser.parse_args(arguments)
    die_with_parent()
    try:
        result = train(options.run)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
