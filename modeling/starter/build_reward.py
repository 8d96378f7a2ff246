"""Builds the starter's reward base, a small Qwen2.5-VL, from nothing.

    python -m modeling.starter.build_reward --out DIR --policy modeling/starter/weights/policy

Stages (see reward_stages for why each is needed):
    data      groups of drawn answers and of a policy's samples, with ground truth, in shards
    vision    the tower alone, read by throw-away linear heads
    language  a fresh language model on the frozen tower's cached tokens, with deep supervision
    joint     both together at lower rates
    finish    temperature on held-out pairs, weights, figures through the scoring path, card.json

Seeded; every stage keeps checkpoints under DIR.build, and the same command after a kill goes on
from there to the same weights, bit for bit.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Tokenizer

from modeling.reward.evaluate import figures, fit_temperature
from modeling.reward.preprocess import VisionLayout
from modeling.reward.view_config import ViewConfig
from modeling.reward.vlm import load_reward_vlm
from modeling.starter.reward_data import DIMENSIONS, Groups, concat, make_groups
from modeling.starter.reward_eval import by_dimension, judge
from modeling.starter.reward_model import (
    MERGE_SIZE,
    PATCH_SIZE,
    WIDTH,
    corpus,
    new_config,
    new_model,
    new_tokenizer,
    save,
)
from modeling.starter.reward_questions import draw_pairs
from modeling.starter.reward_rollouts import OWN, policy_groups
from modeling.starter.reward_stages import (
    Examiner,
    Heads,
    cosine,
    facts_of,
    patches_of,
    picture_loss,
    prompt_free,
    start_from_patches,
    start_words,
    views_of,
    vision_tokens,
)
from modeling.starter.training import Loop
from modeling.starter.world import SIZE, TASKS

HELD_OUT = 900
TOKENS = (SIZE // PATCH_SIZE // MERGE_SIZE) ** 2


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    shards: int = 16
    groups_per_shard: int = 250
    # A policy in diffusers' layout; its samples feed `policy_share` of the steps of the vision and
    # the joint stage. "" = drawn answers only.
    policy: str = ""
    policy_shards: int = 8
    policy_share: float = 0.55
    vision_steps: int = 3600
    language_steps: int = 1200
    joint_steps: int = 4000
    groups_per_step: int = 4
    pairs_per_step: int = 16
    vision_rate: float = 1e-3
    language_rate: float = 2e-3
    joint_rate: float = 8e-4
    joint_vision_rate: float = 3e-4
    held_out: int = 500
    checkpoint_every: int = 100
    view: ViewConfig = field(default_factory=lambda: ViewConfig(fade_outside=0.5, zoom=1.2))


class Build:
    """What the stages share: the model, its data and the clock."""

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self.out, self.recipe = out, recipe
        self.work = out.with_name(out.name + ".build")
        _claim(self.work, recipe)
        self.loops: list[Loop] = []
        self.tokenizer: Qwen2Tokenizer = new_tokenizer(corpus())
        self.model: Any = new_model(new_config(self.tokenizer), recipe.seed)
        self.layout = VisionLayout(
            PATCH_SIZE, 2, MERGE_SIZE, SIZE**2, 4 * SIZE**2, (0.5,) * 3, (0.5,) * 3
        )
        count = len(DIMENSIONS)
        # Linear heads on the mean token, on all tokens in their places, and on the language
        # model's summary of a picture.
        self.mean, self.placed = Heads(WIDTH, count), Heads(WIDTH * TOKENS, count)
        self.summary = Heads(WIDTH, count)
        self.examiner = Examiner(self.model, self.tokenizer, TOKENS)

    def loop(self, name: str) -> Loop:
        self.loops.append(Loop(self.work, name, self.recipe.checkpoint_every))
        return self.loops[-1]

    def tokens(self, views: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, T, D)."""
        return vision_tokens(self.model.model.visual, patches_of(views, self.layout))


def _claim(work: Path, recipe: Recipe) -> None:
    work.mkdir(parents=True, exist_ok=True)
    path = work / "recipe.json"
    mine = json.loads(json.dumps(asdict(recipe)))
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(
            f"{work} holds an unfinished build with another recipe; finish it with the same "
            "arguments, or delete that directory."
        )
    path.write_text(json.dumps(mine, indent=2))


def shard(path: Path, make: Callable[[], Groups]) -> Groups:
    """Groups from their file, or made and stored; the file appears whole or not at all."""
    if not path.is_file():
        temporary = path.with_name(f".{path.stem}.npz")
        np.savez(temporary, **make().arrays())  # type: ignore[arg-type]
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as arrays:
        return Groups.of(dict(arrays))


def drawn_groups(build: Build, first: int, count: int, name: str) -> Groups:
    recipe = build.recipe
    return concat(
        [
            shard(
                build.work / f"{name}-{k}.npz",
                lambda k=k: make_groups([recipe.seed, first + k], recipe.groups_per_shard),  # type: ignore[misc]
            )
            for k in range(count)
        ]
    )


def sampled_groups(build: Build, first: int, count: int, name: str) -> Groups | None:
    recipe = build.recipe
    if not recipe.policy:
        return None
    each = recipe.groups_per_shard
    return concat(
        [
            shard(
                build.work / f"{name}-{k}.npz",
                lambda k=k: policy_groups(Path(recipe.policy), [recipe.seed, first + k], each),  # type: ignore[misc]
            )
            for k in range(count)
        ]
    )


def optimise(
    loop: Loop,
    modules: dict[str, nn.Module],
    rates: dict[str, float],
    total: int,
    loss_of: Callable[[int], Tensor],
) -> None:
    """AdamW with one peak rate a module, warm-up and cosine; resumable."""
    groups = [
        {"params": list(module.parameters()), "lr": rates[name], "peak": rates[name]}
        for name, module in modules.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    parameters = [one for group in groups for one in group["params"]]  # type: ignore[attr-defined]

    def step(index: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(index, total, warm=100)
        loss = loss_of(index)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach())

    loop.run(modules, optimizer, total, step)


@dataclass(frozen=True)
class Material:
    """Groups with the reward view of every answer, (n, V, 3, H, W) uint8."""

    groups: Groups
    views: Tensor


def chosen(sets: Sequence[Material], rng: np.random.Generator, share: float) -> Material:
    """The first set, or, in `share` of the steps, the second one if there is one."""
    return sets[int(len(sets) > 1 and rng.random() < share)]


def vision_stage(build: Build, sets: Sequence[Material]) -> None:
    recipe, visual = build.recipe, build.model.model.visual
    rng = np.random.default_rng([recipe.seed, 40])
    some = rng.integers(0, len(sets[0].groups), 400)
    start_from_patches(visual, patches_of(sets[0].views[some, 2], build.layout).flatten(0, 1))

    def loss_of(index: int) -> Tensor:
        rng = np.random.default_rng([recipe.seed, 41, index])
        one = chosen(sets, rng, recipe.policy_share)
        rows = rng.integers(0, len(one.groups), recipe.groups_per_step)
        seen = one.views[torch.from_numpy(rows)]
        if rng.random() < 0.5:
            flips = torch.tensor([one.groups.tasks[row] != "text_rendering" for row in rows])
            seen = torch.where(flips[:, None, None, None, None], seen.flip(-1), seen)
        tokens = build.tokens(seen.flatten(0, 1))
        size = (len(rows), seen.shape[1], -1)
        scores = prompt_free(torch.from_numpy(one.groups.scores[rows]))
        facts = torch.from_numpy(one.groups.drawn[rows]), scores
        return picture_loss(build.mean, tokens.mean(1).view(size), *facts) + picture_loss(
            build.placed, tokens.reshape(size), *facts
        )

    modules = {"visual": visual, "mean": build.mean, "placed": build.placed}
    rates = dict.fromkeys(modules, recipe.vision_rate)
    optimise(build.loop("vision"), modules, rates, recipe.vision_steps, loss_of)


def language_stage(build: Build, material: Material) -> None:
    recipe, model = build.recipe, build.model
    groups = material.groups
    loop = build.loop("language")
    start_words(build.examiner, build.mean)
    cached = torch.empty(0)
    if not _finished(loop, recipe.language_steps):
        with torch.no_grad():
            # (n, V, T, D)
            cached = torch.stack([build.tokens(one).half() for one in material.views])

    def loss_of(index: int) -> Tensor:
        rng = np.random.default_rng([recipe.seed, 42, index])
        pairs = draw_pairs(groups, rng, recipe.pairs_per_step, swap_share=0.5)
        rows = [pair.group for pair in pairs]
        pictures = torch.cat(
            [cached[rows, [p.first for p in pairs]], cached[rows, [p.second for p in pairs]]], 1
        )
        return build.examiner.loss(groups, pairs, pictures.float(), build.summary)

    modules = {"language": model.model.language_model, "summary": build.summary}
    rates = dict.fromkeys(modules, recipe.language_rate)
    optimise(loop, modules, rates, recipe.language_steps, loss_of)


def joint_stage(build: Build, sets: Sequence[Material]) -> None:
    """Everything together."""
    recipe, model = build.recipe, build.model

    def loss_of(index: int) -> Tensor:
        rng = np.random.default_rng([recipe.seed, 43, index])
        one = chosen(sets, rng, recipe.policy_share)
        groups = one.groups
        pairs = draw_pairs(groups, rng, recipe.pairs_per_step)
        rows = [pair.group for pair in pairs]
        both = np.array([(pair.first, pair.second) for pair in pairs])
        seen = one.views[torch.tensor(rows)[:, None], torch.from_numpy(both)]
        tokens = build.tokens(seen.flatten(0, 1)).view(len(pairs), 2, TOKENS, -1)
        drawn, scores = facts_of(groups, pairs)
        asked = build.examiner.loss(groups, pairs, tokens.flatten(1, 2), build.summary)
        return asked + 0.5 * picture_loss(build.mean, tokens.mean(2), drawn, prompt_free(scores))

    modules = {
        "visual": model.model.visual,
        "language": model.model.language_model,
        "mean": build.mean,
        "summary": build.summary,
    }
    rates = dict.fromkeys(modules, recipe.joint_rate) | {"visual": recipe.joint_vision_rate}
    optimise(build.loop("joint"), modules, rates, recipe.joint_steps, loss_of)


def _finished(loop: Loop, total: int) -> bool:
    return loop.path.is_file() and bool(torch.load(loop.path, weights_only=True)["done"] == total)


def finish(build: Build, sampled: Groups | None, started: float) -> dict[str, Any]:
    """Write the checkpoint with its temperature, and its figures on held-out groups."""
    recipe, out = build.recipe, build.out
    build.model.eval()
    held = make_groups([recipe.seed, HELD_OUT], recipe.held_out)
    reward: dict[str, Any] = {"view": asdict(recipe.view), "temperature": 1.0}
    save(build.model, build.tokenizer, out, side=SIZE, reward=reward)
    calibration = make_groups([recipe.seed, HELD_OUT + 1], max(recipe.held_out // 2, 4))
    vlm = load_reward_vlm(out)
    reward["temperature"] = fit_temperature(judge(vlm, calibration, recipe.seed))
    (out / "reward.json").write_text(json.dumps(reward, indent=2) + "\n")
    vlm = load_reward_vlm(out)
    sets = {"drawn": held} | ({"policy": sampled} if sampled is not None else {})
    reports = {}
    for name, groups in sets.items():
        found = judge(vlm, groups, recipe.seed + 1, OWN if name == "policy" else ())
        reports[name] = figures(found, min_test_pairs=10, temperature=vlm.temperature)
        reports[name]["by_dimension"] = by_dimension(reports[name])
    card = {
        "name": "OneLoop starter reward base",
        "architecture": "Qwen2_5_VLForConditionalGeneration",
        "parameters": sum(one.numel() for one in build.model.parameters()),
        "command": f"python -m modeling.starter.build_reward --out DIR --seed {recipe.seed}"
        + (f" --policy {recipe.policy}" if recipe.policy else ""),
        "recipe": asdict(recipe),
        "tasks": list(TASKS),
        "cpu_seconds": {loop.name: round(loop.cpu_seconds(), 1) for loop in build.loops}
        | {"last_process": round(time.process_time() - started, 1)},
        "figures": reports,
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def build(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Run all stages and write `out`; returns the card."""
    started = time.process_time()
    built = Build(out, recipe)
    sets = []
    for groups in (
        drawn_groups(built, 0, recipe.shards, "drawn"),
        sampled_groups(built, 500, recipe.policy_shards, "policy"),
    ):
        if groups is not None:
            sets.append(Material(groups, views_of(groups, recipe.view)))
    vision_stage(built, sets)
    language_stage(built, sets[0])
    joint_stage(built, sets)
    return finish(built, sampled_groups(built, 700, 2, "held"), started)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m modeling.starter.build_reward", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--policy", default="", help="mix in samples of the policy in this directory"
    )
    parser.add_argument("--keep", action="store_true", help="keep the intermediate files")
    options = parser.parse_args(arguments)
    card = build(options.out, Recipe(seed=options.seed, policy=options.policy))
    for name, report in card["figures"].items():
        print(
            name, json.dumps(report["by_dimension"]), "prompt swap", report["prompt_swap_accuracy"]
        )
    if not options.keep:
        shutil.rmtree(options.out.with_name(options.out.name + ".build"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
