"""The reward base's builder, and the weights it ships."""

import json
import os
import signal
import subprocess
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer

from modeling.reward.evaluate import figures
from modeling.reward.scoring import margins
from modeling.reward.view import reward_view
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.starter import world
from modeling.starter.build_reward import Recipe, build
from modeling.starter.reward_data import DIMENSIONS, PROMPTED, Canvas, make_groups, texture
from modeling.starter.reward_eval import judge, judged_pairs
from modeling.starter.reward_model import corpus, new_config, new_model, new_tokenizer
from modeling.starter.reward_questions import Speller, draw_pairs, query, spelt
from modeling.starter.reward_rollouts import policy_groups
from modeling.starter.reward_stages import Examiner, vision_tokens
from modeling.starter.world import (
    COLOURS,
    SHAPES,
    mask_picture,
    sample_scene,
    source_picture,
    surroundings,
    target_picture,
    to_pixels,
)

POLICY = Path(__file__).parents[2] / "modeling/starter/weights/policy"
SHIPPED = Path(__file__).parents[2] / "modeling/starter/weights/reward"
TINY = Recipe(
    shards=1,
    groups_per_shard=10,
    vision_steps=4,
    language_steps=4,
    joint_steps=4,
    groups_per_step=2,
    pairs_per_step=4,
    held_out=8,
    checkpoint_every=2,
)

# Measured on the set below: .886, 1.0 and .949.
MEASURED = {"overall": 0.87, "prompt_swap": 0.95, "position": 0.92}

TOKENIZER = new_tokenizer(corpus())


@pytest.fixture(scope="module")
def shipped() -> RewardVLM:
    return load_reward_vlm(SHIPPED)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_it_reads_any_text_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


def test_it_has_one_token_for_every_word_that_decides() -> None:
    words = ["Yes", "No", *(f" {c}" for c in COLOURS), *(f" {s}" for s in SHAPES), *"0123456789"]
    assert [w for w in words if len(TOKENIZER.encode(w, add_special_tokens=False)) != 1] == []


def test_it_ships_the_tokenizer_that_it_builds() -> None:
    stored = AutoTokenizer.from_pretrained(SHIPPED)
    text = query("fill", "text_alignment", "a red circle — ein roter Kreis 红圈")
    assert stored.encode(text) == TOKENIZER.encode(text)
    assert stored.chat_template == TOKENIZER.chat_template


def test_it_batches_pictures_through_the_tower_unchanged() -> None:
    model = new_model(new_config(TOKENIZER), seed=3)
    patches = torch.randn(3, 64, 384, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[1, 8, 8]] * 3)
    expected = model.model.visual(patches.flatten(0, 1), grid_thw=grid).pooler_output
    torch.testing.assert_close(vision_tokens(model.model.visual, patches).flatten(0, 1), expected)


def test_it_trains_on_the_margins_that_scoring_reads(shipped: RewardVLM) -> None:
    groups = make_groups([5, 1], 6)
    pairs = draw_pairs(groups, np.random.default_rng(0), 4)
    examiner = Examiner(shipped.core, shipped.tokenizer, 16)
    seen = torch.rand(4, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    patches = ((seen.flatten(0, 1) - 0.5) / 0.5).unfold(2, 8, 8).unfold(3, 8, 8)
    # (8, 3, 8, 8, p, p) -> merged order (rows of 2 x 2 blocks), both frames of the temporal patch.
    patches = patches.reshape(8, 3, 4, 2, 4, 2, 8, 8).permute(0, 2, 4, 3, 5, 1, 6, 7)
    patches = patches.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(8, 64, 384)
    tokens = vision_tokens(shipped.core.model.visual, patches).view(4, 32, -1)
    states, due = examiner.ask(groups, pairs, tokens)
    last = due.kind == 0
    trained = examiner.margin(states[-1][due.row[last], due.place[last]]) / shipped.temperature
    queries = [
        [query(groups.tasks[p.group], q.dimension, q.prompt) for q in p.questions] for p in pairs
    ]
    scored = margins(shipped, seen[:, 0], seen[:, 1], queries)
    counts = [len(row) for row in queries]
    flat = torch.cat([scored[b, :count] for b, count in enumerate(counts)])
    torch.testing.assert_close(trained, flat, rtol=1e-4, atol=1e-4)


def test_it_asks_for_answers_at_the_words_of_the_prompt() -> None:
    groups = make_groups([5, 2], 12)
    speller = Speller(TOKENIZER)
    pairs = [
        pair
        for pair in draw_pairs(groups, np.random.default_rng(1), 24, swap_share=1.0)
        if any(question.dimension in PROMPTED for question in pair.questions)
    ]
    rows, due = spelt(speller, groups, pairs, start=0)
    words = due.kind == 1
    assert int(words.sum()) > 0
    known = set(speller.attributes) | set(speller.digits)
    for row, place in zip(due.row[words].tolist(), due.place[words].tolist(), strict=True):
        assert [token for ids in rows[row] for token in ids][place] in known


def test_it_ships_weights_that_judge_and_bind_the_prompt(shipped: RewardVLM) -> None:
    found = figures(
        judge(shipped, make_groups([77, 1], 60), seed=1),
        min_test_pairs=10,
        temperature=shipped.temperature,
    )
    assert found["overall"]["accuracy"] >= MEASURED["overall"]
    assert found["prompt_swap_accuracy"] >= MEASURED["prompt_swap"]
    assert found["position_consistency"]["accuracy"] >= MEASURED["position"]


def test_it_is_not_taken_in_by_degenerate_textures(shipped: RewardVLM) -> None:
    rng = np.random.default_rng(3)
    first: list[torch.Tensor] = []
    second: list[torch.Tensor] = []
    queries: list[list[str]] = []
    for _ in range(24):
        scene = sample_scene(rng, "fill")
        clean = target_picture(scene)
        canvas = Canvas(scene, surroundings(scene), mask_picture(scene.box) > 0)
        spoilt = to_pixels(texture(rng, 0.6, clean.astype(np.float32), canvas))
        source = torch.from_numpy(source_picture(scene)).permute(2, 0, 1)[None] / 255
        mask = torch.from_numpy(canvas.inside)[None, None].float()
        for shown, views in ((clean, first), (spoilt, second)):
            picture = torch.from_numpy(shown).permute(2, 0, 1)[None] / 255
            views.append(reward_view(picture, source, mask, shipped.view))
        queries.append([query("fill", d, scene.prompt) for d in ("structure", "aesthetics")])
    found = margins(shipped, torch.cat(first), torch.cat(second), queries)
    assert float((found > 0).float().mean()) >= 0.95


def test_it_says_in_its_card_what_was_measured() -> None:
    card = json.loads((SHIPPED / "card.json").read_text())
    drawn = card["figures"]["drawn"]
    asked = {name for row in drawn["reward_accuracy"].values() for name in row}
    assert asked == set(DIMENSIONS)
    for row in drawn["reward_accuracy"].values():
        for cell in row.values():
            assert cell["low"] <= cell["accuracy"] <= cell["high"]
            assert cell["n"] > 0


def test_it_compares_only_answers_that_differ() -> None:
    groups = make_groups([5, 3], 20)
    pairs = judged_pairs(groups, seed=0)
    assert pairs
    for pair in pairs:
        d = DIMENSIONS.index(pair.questions[0].dimension)
        scores = groups.scores[pair.group, :, d]
        assert scores[pair.first] > scores[pair.second]


def test_its_policy_groups_are_the_policys_own_answers() -> None:
    first, second = (policy_groups(POLICY, [0, 9], 6) for _ in range(2))
    for name, value in first.arrays().items():
        np.testing.assert_array_equal(value, second.arrays()[name])
    outside = np.broadcast_to(first.masks[:, None] == 0, first.images.shape[:-1])
    sources = np.broadcast_to(first.sources[:, None], first.images.shape)
    np.testing.assert_array_equal(first.images[outside], sources[outside])
    assert not (first.images[~outside] == sources[~outside]).all()
    for index, task in enumerate(first.tasks):
        asked = {
            n for d, n in enumerate(DIMENSIONS) if not np.isnan(first.scores[index, :, d]).any()
        }
        assert asked == set(world.DIMENSIONS[task])
        # Each answer was drawn by itself.
        assert len({image.tobytes() for image in first.images[index]}) == len(first.images[index])


def test_it_goes_on_after_a_kill_to_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(whole, TINY)
    script = (
        "import json, sys; from pathlib import Path\n"
        "from modeling.reward.view_config import ViewConfig\n"
        "from modeling.starter.build_reward import Recipe, build\n"
        "values = json.loads(sys.argv[2]); values['view'] = ViewConfig(**values['view'])\n"
        "build(Path(sys.argv[1]), Recipe(**values))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(killed), json.dumps(asdict(TINY))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"language"' in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (killed / "card.json").exists()
    build(killed, TINY)
    first, second = (load_file(one / "model.safetensors") for one in (whole, killed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_refuses_to_mix_two_recipes(tmp_path: Path) -> None:
    (tmp_path / "out.build").mkdir()
    (tmp_path / "out.build/recipe.json").write_text(json.dumps({"seed": 9}))
    with pytest.raises(ValueError, match="another recipe"):
        build(tmp_path / "out", TINY)
    assert not (tmp_path / "out").exists()
