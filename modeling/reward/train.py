"""Fine-tune a reward VLM on people's best/worst judgments.

    accelerate launch -m modeling.reward.train --run DIR

Method (OneReward, section 3.2): both orders of every judged pair, x_w better than x_l,

    L = -1/2 E[ log P(Yes | x_w, x_l, q) + log P(No | x_l, x_w, q) ]

with q = Phi(task, dimension, prompt). Changed here, on purpose: P is taken over the two answers
alone, as the RL reward sigmoid(log P(Yes) - log P(No)) does, so that no step is spent on words that
are no answers (the margin form, see `objective`); all dimensions of a pair are asked behind one
shared image prefix; pairs that best and worst imply are used too; contradicting annotators make a
soft target; a share of each batch asks both prompts over the same two pictures (see `data`);
pictures pass through the very view and preprocessing that the RL reward uses; and one temperature,
fitted on training sources kept back, calibrates the margins. By configuration: "no difference" as a
third answer (Davidson's model), weights by relation, annotator and age (see `labels`), and one
order of every pair drawn at random instead of both.

In: config.json (`RewardConfig`). Out: `adapter/` (peft) or `model/` (transformers) with
reward.json, result.json with the held-out figures, holdout.jsonl with every held-out question,
card.json. A killed run that is started again goes on from its newest checkpoint: batches, learning
rate and random numbers are functions of the step and the process alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from transformers import AutoImageProcessor

from modeling import tracking
from modeling.reward import evaluate as evaluation
from modeling.reward.config import RewardConfig
from modeling.reward.data import Batch, Pair, Pictures, count_questions, make_batch, shard
from modeling.reward.finish import write_cards
from modeling.reward.objective import (
    answer_loss,
    batch_accuracy,
    davidson_loss,
    strength_of,
)
from modeling.reward.schedule import Schedule, load_data, share_of_ties
from modeling.reward.scoring import answer_logits, margins_of
from modeling.reward.state import WHOLE, gather_state, load_state, write_state
from modeling.reward.view_config import ViewConfig
from modeling.reward.vlm import RewardVLM, attach_lora, load_reward_vlm, write_settings
from modeling.rundir import RunDirectory, RunError, die_with_parent

# --- model ---


class AnswerModel(nn.Module):
    """The whole forward as one module, for the wrappers of parallel training."""

    def __init__(self, vlm: RewardVLM, log_strength: Tensor | None = None) -> None:
        super().__init__()
        self.vlm = vlm
        self.model = vlm.model
        # log nu of Davidson's model, (1,), where ties are learnt from.
        self.log_strength = None if log_strength is None else nn.Parameter(log_strength)

    def forward(
        self, images: Tensor, orders: list[tuple[int, ...]], queries: list[list[str]]
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, D, V), and log nu: a wrapper gathers sharded weights in here alone."""
        logits = answer_logits(self.vlm, images, orders, queries)
        return logits, None if self.log_strength is None else self.log_strength.clone()


def tie_strength(config: RewardConfig, pairs: list[Pair]) -> Tensor | None:
    """log nu (1,) to start from; None where no tie is to be learnt from."""
    share = share_of_ties(pairs)
    if config.ties == "off" or share == 0:
        return None
    strength = config.tie_strength or strength_of(min(share, 0.9))
    return torch.tensor([math.log(strength)])


def load_model(config: RewardConfig, accelerator: Accelerator) -> RewardVLM:
    lora = config.output == "lora"
    low = accelerator.mixed_precision == "bf16" and lora
    try:
        vlm = load_reward_vlm(
            config.base,
            adapter=config.adapter,
            trainable=True,
            # Frozen weights may be stored low; trained ones are kept in full precision.
            dtype=torch.bfloat16 if low else torch.float32,
            device=accelerator.device if config.quantisation else "cpu",
            quantisation=config.quantisation,
        )
    except (FileNotFoundError, ValueError) as error:
        raise RunError(str(error)) from error
    if config.view:
        vlm.view = ViewConfig(**config.view)
    if config.max_pixels:
        try:
            vlm.layout = dataclasses.replace(vlm.patches, max_pixels=config.max_pixels)
        except ValueError as error:
            raise RunError(f"max_pixels cannot be set: {error}") from error
    if lora and not config.adapter:
        vlm.model = attach_lora(
            vlm.model,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            vision=config.lora_vision,
        )
    elif not lora and config.adapter:
        vlm.model = vlm.model.merge_and_unload()
    if not lora:
        vlm.model.requires_grad_(True)
    if config.gradient_checkpointing:
        vlm.core.gradient_checkpointing_enable({"use_reentrant": False})
    return vlm


# --- the loop ---


def _seed(seed: int, step: int, process: int) -> int:
    """Of the random numbers (dropout) that a process draws in a step."""
    return int(np.random.SeedSequence([seed, 4, step, process]).generate_state(1, np.uint64)[0])


def train(run_dir: str | Path) -> dict[str, Any]:
    """Train in `run_dir` from its config.json to its result.json, and return the result."""
    run = RunDirectory(run_dir)
    main_process = int(os.environ.get("RANK", "0")) == 0
    with run.guarded(leads=main_process):
        config = run.config(RewardConfig)
        tracking.check(config.trackers)
        precision = config.mixed_precision
        if precision == "auto":
            precision = "bf16" if torch.cuda.is_available() else "no"
        # Several processes on a machine without an accelerator talk through gloo.
        accelerator = Accelerator(
            mixed_precision=precision, cpu=not torch.accelerator.is_available()
        )
        return Training(run, config, accelerator).run_to_the_end()


class Training:
    """One run: what its steps share."""

    def __init__(self, run: RunDirectory, config: RewardConfig, accelerator: Accelerator) -> None:
        self.run, self.config, self.accelerator = run, config, accelerator
        self.started = time.monotonic()
        torch.manual_seed(config.seed)
        self.data = load_data(config)
        self.schedule = Schedule(self.data, config)
        self.vlm = load_model(config, accelerator)
        # The margins are trained as they are; the temperature is fitted again afterwards.
        self.base_temperature, self.vlm.temperature = self.vlm.temperature, 1.0
        if not config.quantisation:
            self.vlm.model.to(accelerator.device)
        scorer = AnswerModel(self.vlm, tie_strength(config, self.data.train))
        groups, self.rates = self._parameters(scorer)
        optimizer = torch.optim.AdamW(
            groups, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.scorer, prepared = accelerator.prepare(scorer, optimizer)
        self.optimizer: torch.optim.Optimizer = getattr(prepared, "optimizer", prepared)
        self.pictures = Pictures(self.data.snapshot, self.vlm.view)

    def _parameters(self, scorer: AnswerModel) -> tuple[list[dict[str, Any]], list[float]]:
        """The optimiser's groups and their peak learning rates."""
        weights = [p for p in scorer.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights}]
        rates = [self.config.lr]
        if scorer.log_strength is not None:
            scorer.log_strength.requires_grad_(self.config.ties == "trained")
            if self.config.ties == "trained":
                groups.append({"params": [scorer.log_strength], "weight_decay": 0.0})
                rates.append(self.config.tie_lr)
        return groups, rates

    @property
    def leads(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def run_to_the_end(self) -> dict[str, Any]:
        finished = self.run.path / "result.json"
        if finished.is_file():
            result: dict[str, Any] = json.loads(finished.read_text())
            return result
        before = self._before()
        start = self._resume()
        for step, batch in self._batches(start):
            self._step(step, batch)
            done = step + 1
            if done % self.config.checkpoint_every == 0 or done == self.schedule.steps:
                self._checkpoint(done)
            every = self.config.evaluate_every
            if every and done % every == 0 and done < self.schedule.steps:
                self._log_holdout(done, self._holdout())
        return self._finish(before)

    def _resume(self) -> int:
        latest = self.run.intact_checkpoint()
        start = 0
        if latest:
            start, folder = latest
            load_state(folder, self.scorer, self.optimizer)
        if self.leads:
            self.run.drop_metrics_after(start)
            tracking.attach(
                self.run,
                names=self.config.trackers,
                project=self.config.tracker_project,
                config=dataclasses.asdict(self.config),
            )
        return start

    def _batches(self, start: int) -> Iterator[tuple[int, Batch]]:
        """Batches from step `start` on; the next is decoded while one is trained on."""
        index, count = self.accelerator.process_index, self.accelerator.num_processes

        def make(step: int) -> Batch:
            pairs = shard(self.schedule.pairs(step), index, count)
            return make_batch(pairs, self.pictures, both=self.config.order == "both")

        with ThreadPoolExecutor(1) as pool:
            coming: Future[Batch] | None = None
            for step in range(start, self.schedule.steps):
                coming = coming or pool.submit(make, step)
                batch = coming.result()
                last = step + 1 == self.schedule.steps
                coming = None if last else pool.submit(make, step + 1)
                yield step, batch

    def _step(self, step: int, batch: Batch) -> None:
        began = time.monotonic()
        accelerator, vlm = self.accelerator, self.vlm
        device = accelerator.device
        warmed = self.schedule.warmed(step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warmed
        self.scorer.train()
        torch.manual_seed(_seed(self.config.seed, step, accelerator.process_index))
        total = accelerator.reduce(batch.weight.sum().to(device))
        with accelerator.autocast():
            logits, strength = self.scorer(batch.images.to(device), batch.orders, batch.queries)
        loss = self._loss(batch, logits, strength)
        # Parallel processes average their gradients; the loss is a mean over all their questions.
        accelerator.backward(loss * accelerator.num_processes / total)
        norm = accelerator.clip_grad_norm_(self.scorer.parameters(), self.config.max_grad_norm)
        mean_loss = float(accelerator.reduce(loss.detach()) / total)
        self._stop_at_nan(step + 1, mean_loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        margins = margins_of(vlm, logits.detach()).cpu()
        both = self.config.order == "both"
        accuracy = batch_accuracy(margins, batch.target, batch.weight, both=both)
        right, asked = accelerator.reduce(accuracy.to(device)).tolist()
        if self.leads:
            self.run.log(
                step + 1,
                loss=mean_loss,
                accuracy=right / max(1, asked),
                questions=int(asked),
                lr=self.config.lr * warmed,
                grad_norm=float(norm) if norm is not None else None,
                **({} if strength is None else {"tie_strength": math.exp(strength.item())}),
                seconds=time.monotonic() - began,
            )
            self.run.progress(step + 1, self.schedule.steps, f"loss {mean_loss:.3f}")

    def _loss(self, batch: Batch, logits: Tensor, log_strength: Tensor | None) -> Tensor:
        yes, no, device = self.vlm.yes_id, self.vlm.no_id, logits.device
        target, weight = batch.target.to(device), batch.weight.to(device)
        if log_strength is None:
            return answer_loss(logits, yes, no, target, weight)
        tie, judged = batch.tie.to(device), batch.judged.to(device)
        return davidson_loss(logits, yes, no, target, weight, tie, judged, log_strength)

    def _stop_at_nan(self, step: int, loss: float, norm: Tensor | None) -> None:
        if math.isfinite(loss) and (norm is None or math.isfinite(float(norm))):
            return
        raise RunError(
            f"The loss of step {step} is not a number. Lower lr ({self.config.lr}), or train in "
            f"full precision (mixed_precision is {self.config.mixed_precision})."
        )

    def _checkpoint(self, done: int) -> None:
        # Every process takes part in gathering sharded weights, one writes.
        state = gather_state(self.scorer, self.optimizer)
        if self.leads:
            self.run.save_checkpoint(done, lambda folder: write_state(folder, state))
        self.accelerator.wait_for_everyone()

    # --- figures and outputs ---

    def _holdout(self) -> list[evaluation.Outcome]:
        return self._outcomes(self.data.holdout)

    def _outcomes(self, pairs: list[Pair]) -> list[evaluation.Outcome]:
        self.scorer.eval()
        pictures = Pictures(self.data.snapshot, self.vlm.view)
        with self.accelerator.autocast():
            return evaluation.outcomes(
                self.vlm, pairs, pictures, forward=lambda *shown: self.scorer(*shown)[0]
            )

    def _figures(
        self, found: list[evaluation.Outcome], temperature: float, strength: float | None = None
    ) -> dict[str, Any]:
        return evaluation.figures(
            found,
            min_test_pairs=self.config.min_test_pairs,
            temperature=temperature,
            tie_strength=strength,
        )

    def _tie_strength(self) -> float | None:
        """nu as it is now; of a sharded model every process must ask."""
        named = dict(self.scorer.named_parameters())
        found = next((p for name, p in named.items() if name.endswith("log_strength")), None)
        if found is None:
            return None
        whole: Any = found.detach()
        return math.exp(float(whole.full_tensor() if hasattr(whole, "full_tensor") else whole))

    def _log_holdout(self, step: int, found: list[evaluation.Outcome]) -> None:
        report = self._figures(found, 1.0)
        if self.leads and report["overall"]["n"]:
            self.run.log(
                step,
                eval_accuracy=report["overall"]["accuracy"],
                eval_prompt_swap=report["prompt_swap_accuracy"],
            )

    def _before(self) -> dict[str, Any]:
        """Figures of the model that the run starts from, kept for a resumed run."""
        path = self.run.path / "before.json"
        known = path.is_file()
        # All processes must have looked before one of them writes it.
        self.accelerator.wait_for_everyone()
        if known:
            before: dict[str, Any] = json.loads(path.read_text())
            return before
        if self.leads:
            self.run.progress(0, self.schedule.steps, "scoring the base on held-out pairs")
        self.vlm.temperature = self.base_temperature
        found = self._holdout()
        self.vlm.temperature = 1.0
        before = self._figures(found, self.base_temperature)
        self._log_holdout(0, found)
        if self.leads:
            evaluation.write_outcomes(self.run.path / "holdout_before.jsonl", found)
            self.run.write("before.json", before)
        return before

    def _finish(self, before: dict[str, Any]) -> dict[str, Any]:
        total = self.schedule.steps
        if self.leads:
            self.run.progress(total, total, "calibrating and scoring held-out pairs")
        self.vlm.temperature = evaluation.fit_temperature(self._outcomes(self.data.calibration))
        found = self._holdout()
        report = self._figures(found, self.vlm.temperature, self._tie_strength())
        self._log_holdout(total, found)
        result = {
            **report,
            "before": before,
            "output": self._save_output(),
            "pairs": {
                "train": count_questions(self.data.train),
                "calibration": count_questions(self.data.calibration),
                "holdout": sum(o.relation in ("direct", "implied") for o in found),
            },
            "steps": total,
            "seconds": round(time.monotonic() - self.started, 1),
        }
        if self.leads:
            evaluation.write_outcomes(self.run.path / "holdout.jsonl", found)
            write_cards(self.run, self.config, self.data.snapshot.content_hash, result)
            self.run.write("result.json", result)
            self.run.progress(total, total, "done")
        return result

    def _save_output(self) -> dict[str, str]:
        lora = self.config.output == "lora"
        folder = self.run.path / ("adapter" if lora else "model")
        model = self.accelerator.unwrap_model(self.scorer).model
        weights = get_model_state_dict(model, options=WHOLE)
        if self.leads:
            folder.mkdir(exist_ok=True)
            kept = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
            model.save_pretrained(folder, state_dict=kept, safe_serialization=True)
            if not lora:
                self.vlm.tokenizer.save_pretrained(folder)
                AutoImageProcessor.from_pretrained(
                    self.config.base, trust_remote_code=False
                ).save_pretrained(folder)
            write_settings(folder, self.vlm)
        if lora:
            return {"location": self.config.base, "adapter": str(folder)}
        return {"location": str(folder), "adapter": ""}


def main() -> int:
    parser = argparse.ArgumentParser(description="Fine-tune a reward model on a snapshot.")
    parser.add_argument("--run", required=True, help="the run directory, with its config.json")
    given = parser.parse_args()
    die_with_parent()
    try:
        result = train(given.run)
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", "0")) == 0:
        print(evaluation.table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
