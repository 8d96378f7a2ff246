"""The policy loop: one optimiser, EMA, watch and checkpoint for every objective.

    accelerate launch -m modeling.policy.train --run DIR

What a step computes is an objective (modeling/policy/objectives), chosen by `algorithm`: OneReward
(arXiv 2508.21066, section 3.3) with a frozen reference or with the EMA as the reference, and the
methods it argues with. A step: the objective draws its material; micro-batch by micro-batch it adds
to the gradients; they are added up over the processes and clipped; AdamW; EMA. The EMA is the
output.

All randomness of a step comes from (seed, step), so that a run killed at any moment and started
again with the same directory ends in the same weights. On several processes each computes a part of
the step's batch, and the same comes of it up to the order of sums.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from modeling import tracking
from modeling.policy import monitors
from modeling.policy.best import forget_others, keep_weights
from modeling.policy.checkpoints import gather, resume, save_checkpoint
from modeling.policy.config import PolicyConfig, keeps_best
from modeling.policy.finish import finish
from modeling.policy.objectives.protocol import Tally, step_rng
from modeling.policy.samples import save_grid
from modeling.policy.sharding import clip_gradients
from modeling.policy.trainer import Trainer, prepare
from modeling.rundir import RunDirectory, RunError, die_with_parent


def train(run_dir: str | Path) -> dict[str, Any]:
    """Train the run in `run_dir` to its end and return its result."""
    run = RunDirectory(run_dir)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    # Several processes on a machine without an accelerator talk through gloo.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    with run.guarded(leads=accelerator.is_main_process):
        try:
            config = run.config(PolicyConfig)
            tracking.check(config.trackers)
            trainer = prepare(run, config, accelerator)
        except (FileNotFoundError, ValueError) as error:
            raise RunError(str(error)) from error
        label, key = trainer.objective.headline
        first = resume(trainer)
        accelerator.wait_for_everyone()
        for step in range(first + 1, config.steps + 1):
            began, loaded = time.perf_counter(), trainer.sources.loading_seconds
            values = train_step(trainer, step)
            loading = round(trainer.sources.loading_seconds - loaded, 4)
            check(trainer, step, values)
            saves = step % config.checkpoint_every == 0 or step == config.steps
            state = gather(trainer) if saves else {}
            if accelerator.is_main_process:
                taken = round(time.perf_counter() - began, 3)
                run.log(step, **values, seconds=taken, loading_seconds=loading)
                run.progress(step, config.steps, f"{label} {values[key]:.2f}")
                if saves:
                    run.save_checkpoint(step, partial(save_checkpoint, trainer, state=state))
                    forget_others(run, trainer.watch.best)
        accelerator.wait_for_everyone()
        weights = trainer.roles.weights(keep=accelerator.is_main_process)
        return finish(trainer, weights) if accelerator.is_main_process else {}


def learning_rate(config: PolicyConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay over the second half to `final_lr` of it."""
    if step <= config.warmup_steps:
        return config.lr * step / max(1, config.warmup_steps)
    done = max(0.0, 2 * step / config.steps - 1)
    return config.lr * (1 - (1 - config.final_lr) * done)


# --- one step ---


def train_step(trainer: Trainer, step: int) -> dict[str, Any]:
    """Take one step; returns its figures. Raises RunError where the loss is not a number."""
    config, roles, objective = trainer.config, trainer.roles, trainer.objective
    processes = trainer.processes
    trainer.sources.at(step)
    material = objective.prepare(step, step_rng(config, step))
    count = len(material)

    rate = learning_rate(config, step)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    trainer.optimizer.zero_grad(set_to_none=True)
    size = config.micro_batch_size or count
    tally = Tally()
    for begin in range(0, count, size):
        part = material[begin : begin + size]
        share = len(part) / (count * processes.count)
        tally.add(objective.forward_backward(part, share), share)
    tally.outcomes = processes.gather(tally.outcomes)
    processes.sum_gradients(roles.parameters())
    norm = clip_gradients(roles.parameters(), config.max_grad_norm)
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
        "lr": rate,
        **processes.mean_figures(material.figures),
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
    images, signs = watch.look(trainer.watch_sampler, trainer.roles, trainer.vlm)
    values["monitor"] = signs
    reason = watch.alarm.check(step, signs, signs["reward"]) if monitoring else ""
    reason = trainer.processes.decide(reason)
    main_process = trainer.processes.is_main
    if main_process and (sampling or last or reason):
        path = run.path / "samples" / f"step-{step:06d}.png"
        save_grid(path, watch.batch.images, watch.batch.masks, watch.parents[0], images)
        run.picture(step, path)
    if monitoring and keeps_best(config):
        _keep_best(trainer, step, signs)
    if not reason:
        return
    if watch.best.step:
        reason += f" The best check, of step {watch.best.step}, is kept in best/."
    values["alarm"] = reason
    if config.monitor.stop:
        if main_process:
            run.log(step, **values)
            run.write("result.json", {"step": step, "alarm": reason, "monitor": signs})
        raise RunError(reason)


def _keep_best(trainer: Trainer, step: int, signs: dict[str, Any]) -> None:
    """Judge the EMA; adds to the signs."""
    best = trainer.watch.best
    signs["ema_margin"] = trainer.watch.judge_ema(trainer.watch_sampler, trainer.roles, trainer.vlm)
    past = monitors.beyond(signs, trainer.config.monitor)
    if trainer.processes.decide(best.improves(signs["ema_margin"], past)):
        best.load_state({"step": step, "score": signs["ema_margin"], "signs": signs})
        roles, main_process = trainer.roles, trainer.processes.is_main
        weights = roles.weights(keep=main_process)
        if main_process:
            keep_weights(trainer.run, best, partial(roles.save, weights=weights))


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
