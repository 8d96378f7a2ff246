import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer, T5Tokenizer

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from modeling.starter import truth, world
from modeling.starter.build_policy import Recipe, build, learning_rate, main
from modeling.starter.policy_data import Pool
from modeling.starter.policy_eval import answers, evaluate, wilson
from modeling.starter.policy_models import (
    PROMPT_TOKENS,
    new_autoencoder,
    new_clip_tokenizer,
    new_models,
    new_t5_tokenizer,
    world_prompts,
    world_words,
)
from modeling.starter.policy_vae import start

SHIPPED = Path(__file__).resolve().parents[2] / "modeling" / "starter" / "weights" / "policy"
TINY = {
    "steps": 6,
    "stop": 5,
    "vae_steps": 3,
    "vae_fine_steps": 2,
    "decoder_steps": 2,
    "batch_size": 2,
    "checkpoint_every": 1,
    "evaluate_every": 0,
    "first_blocks": 1,
    "card_count": 1,
}


@pytest.fixture(scope="module")
def shipped() -> FillModels:
    return load_models(PolicySpec(location=str(SHIPPED)))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        for path in sorted((directory / part).glob("*.safetensors")):
            found |= {f"{part}.{name}": value for name, value in load_file(path).items()}
    return found


def command(out: Path) -> list[str]:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    return [sys.executable, "-m", "modeling.starter.build_policy", f"--out={out}", *settings]


@pytest.mark.long
def test_it_ends_with_the_same_bits_after_a_kill(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(whole, Recipe(**TINY))
    process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed.build" / "transformer.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "card.json").exists()
    build(killed, Recipe(**TINY))
    first, second = weights(whole), weights(killed)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_refuses_to_go_on_under_another_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "policy.build"
    work.mkdir()
    (work / "recipe.json").write_text(json.dumps({"seed": 3}))
    assert main(["--out", str(tmp_path / "policy")]) == 2
    assert "other settings" in capsys.readouterr().err
    assert json.loads((work / "recipe.json").read_text()) == {"seed": 3}
    assert not (tmp_path / "policy").exists()


def test_it_warms_up_and_ends_at_rest_whatever_the_length() -> None:
    recipe = Recipe(learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in (0, 49, 99, 2299, 3799, 4299, 4799)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.562, 1.0, 0.5, 0.0])
    short = Recipe(steps=48, learning_rate=2.0)
    assert [learning_rate(short, step) for step in (0, 37, 47)] == pytest.approx([2.0, 2.0, 0.0])


def test_it_tokenises_any_text_the_same_after_saving(tmp_path: Path) -> None:
    texts = [*world_prompts(), "", "A wooden boat, 1913!", "日本語 naïve 🦊", "x" * 300]
    for tokenizer, kind in (
        (new_t5_tokenizer(), T5Tokenizer),
        (new_clip_tokenizer(), CLIPTokenizer),
    ):
        tokenizer.save_pretrained(tmp_path / kind.__name__)
        restored = kind.from_pretrained(tmp_path / kind.__name__)
        assert restored.model_max_length == PROMPT_TOKENS
        options = {"padding": "max_length", "truncation": True, "max_length": PROMPT_TOKENS}
        ids = tokenizer(texts, **options).input_ids
        assert restored(texts, **options).input_ids == ids
        assert {len(one) for one in ids} == {PROMPT_TOKENS}
        # Every wording of the world reads differently.
        assert len({tuple(one) for one in ids[: len(world_prompts())]}) == len(world_prompts())
        assert all(len(tokenizer.tokenize(word)) == 1 for word in world_words())


def test_it_starts_the_autoencoder_where_colours_pass() -> None:
    torch.manual_seed(0)
    vae = new_autoencoder()
    rng = np.random.default_rng(0)
    pixels = np.stack([world.sample_example(rng, "removal").target for _ in range(12)])
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    start(vae, pictures)
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    unexplained = (decoded - pictures).square().mean() / pictures.var()
    assert unexplained < 0.6


def test_it_draws_the_same_batches_from_stored_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = new_models(new_autoencoder().eval())
    first = Pool(models, 0, tmp_path, first_blocks=1).batch(3, 8)
    again = Pool(models, 0, tmp_path, first_blocks=1).batch(3, 8)
    other = Pool(models, 0, tmp_path, first_blocks=1).batch(4, 8)
    assert first.prompts == again.prompts
    assert torch.equal(first.answers, again.answers)
    assert torch.equal(first.guidance_scale, again.guidance_scale)
    assert first.masked_image.shape == (8, 64, 80)
    assert not torch.equal(first.answers, other.answers)


def test_its_weights_load_in_diffusers_own_pipeline() -> None:
    pipeline = FluxFillPipeline.from_pretrained(SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    example = world.sample_example(np.random.default_rng(0), "fill")
    pictures = pipeline(
        prompt=example.prompt,
        image=torch.from_numpy(example.image).permute(2, 0, 1)[None] / 255,
        mask_image=torch.from_numpy(example.mask)[None, None] / 255,
        height=world.SIZE,
        width=world.SIZE,
        num_inference_steps=2,
        max_sequence_length=PROMPT_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    assert pictures.shape == (1, world.SIZE, world.SIZE, 3)
    assert np.isfinite(pictures).all()
    outside = example.mask == 0
    assert np.abs(pictures[0][outside] - example.image[outside] / 255).mean() < 0.1


def test_its_weights_make_usable_pictures_but_not_only(shipped: FillModels) -> None:
    figures = evaluate(shipped, 16, seed=123)
    assert 0.4 < figures["all"]["usable"] < 0.95
    assert all(figures[task]["usable"] >= 0.2 for task in world.TASKS)


def test_its_weights_follow_the_prompt(shipped: FillModels) -> None:
    rng = np.random.default_rng(5)
    examples = [world.sample_example(rng, "fill") for _ in range(12)]
    pictures = answers(shipped, examples, list(range(12)))
    aligned, misread = [], []
    for picture, one in zip(pictures, examples, strict=True):
        subject = one.scene.subject
        assert subject is not None
        colour = next(name for name in world.COLOURS if name != subject.colour)
        other = replace(one.scene, subject=replace(subject, colour=colour))
        aligned.append(truth.score(picture, one.scene)["text_alignment"])
        misread.append(truth.score(picture, other)["text_alignment"])
    assert np.mean(aligned) > np.mean(misread) + 0.3


def test_it_gives_wilson_intervals() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
