"""Builds the starter policy from nothing: autoencoder, text encoders and transformer.

    python -m modeling.starter.build_policy --out DIR

The result is a directory in diffusers' pipeline layout that `FluxFillPipeline.from_pretrained`
loads, with `card.json`. Seeded; every stage keeps checkpoints under DIR.build, and the same command
after a kill goes on from there to the same weights, bit for bit.

Flow matching (rectified flow): x_t = (1 - t) x_0 + t noise, the transformer learns noise - x_0,
with t = sigmoid(1.1 n + 0.4) or, half of the time, near 1; tokens under the mask are weighted up to
5 times. Some answers it learns from are flawed, the more of them the lower the guidance scale; so
guidance means quality, and the base has something left to learn. A tenth of the prompts is empty,
for true classifier-free guidance.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from generation.diffusion.conditions import FillConditions, encode_prompts
from generation.diffusion.loading import FillModels, PolicySpec, load_models
from generation.diffusion.sampling import velocity
from modeling.starter import world
from modeling.starter.policy_data import Pool
from modeling.starter.policy_eval import evaluate
from modeling.starter.policy_models import new_models, pipeline_of
from modeling.starter.policy_vae import build_autoencoder, round_trip
from modeling.starter.training import Loop

# Warm-up, a first slow-down that came too early for shapes and digits, full rate again, and down.
RATE_KNOTS = (
    (0, 0.0),
    (100, 1.0),
    (1600, 1.0),
    (2300, 0.562),
    (2350, 1.0),
    (3800, 1.0),
    (4800, 0.0),
)
EARLY_SHARE = 0.5
TRAINED = ("transformer", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    # Length of the transformer's learning-rate schedule.
    steps: int = 4800
    # The step whose weights are the result: a base that is to be improved stops before its best.
    stop: int = 4400
    vae_steps: int = 1400
    vae_fine_steps: int = 1000
    decoder_steps: int = 1500
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    checkpoint_every: int = 100
    evaluate_every: int = 300
    evaluate_count: int = 40
    # Blocks of examples to begin with, and scenes per task for the card's figures.
    first_blocks: int = 16
    card_count: int = 100


def learning_rate(recipe: Recipe, step: int) -> float:
    """Between RATE_KNOTS, whose steps are those of a run of 4,800."""
    place = (step + 1) / recipe.steps * RATE_KNOTS[-1][0]
    steps, shares = zip(*RATE_KNOTS, strict=True)
    return recipe.learning_rate * float(np.interp(place, steps, shares))


def loss_of(models: FillModels, pool: Pool, step: int, recipe: Recipe) -> torch.Tensor:
    batch = pool.batch(step, recipe.batch_size)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    size = (len(batch.answers), 1, 1)
    sigma = torch.sigmoid(1.1 * torch.randn(size, generator=generator) + 0.4)
    # What the prompt decides is decided in near-pure noise: later the picture itself tells.
    early = 1 - 0.25 * torch.rand(size, generator=generator)
    sigma = torch.where(torch.rand(size, generator=generator) < EARLY_SHARE, early, sigma)
    noise = torch.randn(batch.answers.shape, generator=generator)
    prompt_embeds, pooled = encode_prompts(models, batch.prompts)
    conditions = FillConditions(
        prompt_embeds=prompt_embeds,
        pooled=pooled,
        masked_image=batch.masked_image,
        image_latents=batch.answers,
        height=world.SIZE,
        width=world.SIZE,
    )
    predicted = velocity(
        models.transformer,
        (1 - sigma) * batch.answers + sigma * noise,
        sigma[:, 0, 0],
        conditions,
        guidance_scale=batch.guidance_scale,
    )
    weight = 1 + 4 * batch.weight
    error = (predicted - (noise - batch.answers)) ** 2
    return (weight * error).mean() / weight.mean()


def train_transformer(models: FillModels, pool: Pool, loop: Loop, recipe: Recipe) -> None:
    modules = {name: getattr(models, name) for name in TRAINED}
    parameters = [one for module in modules.values() for one in module.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )

    def step(index: int) -> float:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, index)
        loss = loss_of(models, pool, index, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach())

    loop.run(modules, optimizer, recipe.stop, step)


def save_pipeline(models: FillModels, directory: Path) -> None:
    """Writes the pipeline; the two larger parts in half precision, at a figure-neutral cost."""
    for name in TRAINED:
        getattr(models, name).eval()
    pipeline = pipeline_of(models)
    pipeline.save_pretrained(directory)
    for name in ("transformer", "vae"):
        part = getattr(models, name)
        half = type(part).from_config(part.config)
        half.load_state_dict(part.state_dict())
        half.half().save_pretrained(directory / name)


def check_recipe(work: Path, recipe: Recipe) -> None:
    """A half-done build goes on only under the recipe it began with."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "recipe.json"
    if path.is_file() and json.loads(path.read_text()) != asdict(recipe):
        raise ValueError(
            f"{work} holds a build with other settings ({path.read_text()}): give the same ones, "
            f"or remove {work}, or choose another --out."
        )
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(recipe)))
    temporary.replace(path)


def build(out: Path, recipe: Recipe) -> None:
    """Runs all stages and writes `out`."""
    work = out.with_name(out.name + ".build")
    check_recipe(work, recipe)
    loops = [Loop(work, name, recipe.checkpoint_every) for name in ("vae", "vae-fine", "decoder")]
    counts = (recipe.vae_steps, recipe.vae_fine_steps, recipe.decoder_steps)
    vae = build_autoencoder(loops, recipe.seed, counts)
    torch.manual_seed(recipe.seed)
    models = new_models(vae)

    def at_checkpoint(done: int) -> None:
        if recipe.evaluate_every and done % recipe.evaluate_every == 0:
            save_pipeline(models, work / f"step-{done}")
            found = evaluate(models, recipe.evaluate_count, recipe.seed + 1)
            print(json.dumps({"step": done, "evaluation": found}), flush=True)
            for name in TRAINED:
                getattr(models, name).train()

    loop = Loop(work, "transformer", recipe.checkpoint_every, at_checkpoint)
    train_transformer(
        models,
        Pool(models, recipe.seed, work / "pool", first_blocks=recipe.first_blocks),
        loop,
        recipe,
    )
    save_pipeline(models, out)
    seconds = {one.name: round(one.cpu_seconds()) for one in (*loops, loop)}
    write_card(out, recipe, seconds)


def write_card(out: Path, recipe: Recipe, cpu_seconds: dict[str, int]) -> None:
    """Measures the saved files, not the weights in memory, and says how they came about."""
    models = load_models(PolicySpec(location=str(out)))
    names = ("transformer", "vae", "text_encoder", "text_encoder_2")
    card = {
        "what": "Starter policy: FLUX.1-Fill's layout at small size, for the starter world.",
        "command": "python -m modeling.starter.build_policy --out DIR "
        + " ".join(f"--{key.replace('_', '-')} {value}" for key, value in asdict(recipe).items()),
        "recipe": asdict(recipe),
        "cpu_seconds": cpu_seconds,
        "parameters": {
            name: sum(one.numel() for one in getattr(models, name).parameters()) for name in names
        },
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "versions": {
            name: version(name) for name in ("torch", "diffusers", "transformers", "tokenizers")
        },
        "autoencoder": round_trip(models.vae, recipe.seed + 2, recipe.card_count),
        "usable": {
            "how": "ground truth usable in every dimension, fresh scenes, 6 steps, guidance 30, "
            "no true CFG; 95 % Wilson intervals; dimensions are mean scores",
            **evaluate(models, recipe.card_count, recipe.seed + 2),
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    values = vars(parser.parse_args(arguments))
    out = values.pop("out")
    try:
        build(out, Recipe(**values))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
