from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modeling.reward.encoding import encode_images
from modeling.reward.scoring import can_pack, margins, packed_forward
from modeling.reward.template import suffix_ids
from modeling.reward.vision import NAME
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from tests.reward.tiny import save_tiny, tiny_processor

QUERIES = [
    ["Is the first image better?", "Which is a red circle, the first?", "Cleaner?"],
    ["Is it sound?", "Is the first image the number 42?", "Does the first image join better?"],
]


def pictures(seed: int = 0, size: int = 64, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).double() / 255


def official_inputs(vlm: RewardVLM, first: Any, second: Any, query: str) -> dict[str, torch.Tensor]:
    """One question as the official image processor and the model's own template put it."""
    images = [
        Image.fromarray((x * 255).round().byte().permute(1, 2, 0).numpy()) for x in (first, second)
    ]
    inputs = tiny_processor()(images=images, return_tensors="pt")
    text = vlm.tokenizer.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": query}],
            }
        ],
        add_generation_prompt=True,
        tokenize=False,
    )
    for grid in inputs["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|placeholder|>" * int(grid.prod() // 4), 1)
    text = text.replace("<|placeholder|>", "<|image_pad|>")
    ids = torch.tensor([vlm.tokenizer.encode(text, add_special_tokens=False)])
    return {
        "input_ids": ids,
        "pixel_values": inputs["pixel_values"],
        "image_grid_thw": inputs["image_grid_thw"],
        "mm_token_type_ids": (ids == vlm.model.config.image_token_id).int(),
    }


def official_margin(vlm: RewardVLM, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own forward."""
    logp = vlm.model(**inputs).logits[0, -1].log_softmax(-1)
    return logp[vlm.yes_id] - logp[vlm.no_id]


def test_it_equals_the_official_forward_for_every_question(vlm: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    with torch.no_grad():
        packed = margins(vlm, first, second, QUERIES)
        for b, row in enumerate(QUERIES):
            for d, query in enumerate(row):
                expected = official_margin(vlm, official_inputs(vlm, first[b], second[b], query))
                torch.testing.assert_close(packed[b, d], expected, atol=2e-6, rtol=1e-5)
    assert packed.std() > 1e-3  # the questions and pictures do make a difference


def test_it_equals_separate_forwards_in_value_and_in_image_gradient(vlm: RewardVLM) -> None:
    first, second = pictures(0).requires_grad_(), pictures(1)
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()
    packed = margins(vlm, first, second, QUERIES)
    (grad,) = torch.autograd.grad((packed * weights).sum(), first)
    columns = [margins(vlm, first, second, [[row[d]] for row in QUERIES]) for d in range(3)]
    separate = torch.cat(columns, 1)
    (expected,) = torch.autograd.grad((separate * weights).sum(), first)
    torch.testing.assert_close(packed, separate, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-4)


def test_it_scores_rows_with_different_numbers_of_questions(vlm: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    with torch.no_grad():
        ragged = margins(vlm, first, second, [QUERIES[0][:1], QUERIES[1]])
        full = margins(vlm, first, second, QUERIES)
    torch.testing.assert_close(ragged[0, 0], full[0, 0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ragged[1], full[1], atol=1e-6, rtol=1e-6)
    assert ragged[0, 1:].tolist() == [0, 0]


def test_it_carries_the_gradient_to_the_pixels(tiny_dir: Path) -> None:
    """Central difference along a random direction; the model's norms compute in float32."""
    vlm = load_reward_vlm(tiny_dir, dtype=torch.float64)
    first, second = pictures(0)[:1].requires_grad_(), pictures(1)[:1]
    query = [QUERIES[0][:2]]
    (grad,) = torch.autograd.grad(margins(vlm, first, second, query).sum(), first)
    direction = grad.sign()
    h = 1e-3
    with torch.no_grad():
        up = margins(vlm, first + h * direction, second, query).sum()
        down = margins(vlm, first - h * direction, second, query).sum()
    slope = (up - down) / (2 * h)
    assert abs(slope.item() / (grad * direction).sum().item() - 1) < 0.02
    assert slope > 0


@pytest.mark.parametrize("implementation", ["eager", "sliding"])
def test_it_gives_the_same_numbers_with_other_attention(
    tmp_path: Path, vlm: RewardVLM, implementation: str
) -> None:
    first, second = pictures(0), pictures(1)
    if implementation == "sliding":
        # A window wider than the sequence changes nothing but the kind of the layers.
        directory = save_tiny(
            tmp_path, use_sliding_window=True, sliding_window=4096, max_window_layers=0
        )
        other = load_reward_vlm(directory, dtype=torch.float64)
        assert not can_pack(other.model)
    else:
        other = load_reward_vlm(vlm.model.name_or_path, dtype=torch.float64)
        other.model.set_attn_implementation("eager")
        assert can_pack(other.model)
    with torch.no_grad():
        expected = margins(vlm, first, second, QUERIES)
        torch.testing.assert_close(
            margins(other, first, second, QUERIES), expected, atol=1e-5, rtol=1e-4
        )


def test_it_gives_logits_at_every_suffix_token(vlm: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    ids = [[suffix_ids(vlm, query) for query in row] for row in QUERIES]
    with torch.no_grad():
        logits = packed_forward(vlm, first, second, ids)
        expected = margins(vlm, first, second, QUERIES)
    assert logits.shape == (2, 3, max(len(i) for row in ids for i in row), len(vlm.tokenizer))
    for b, row in enumerate(ids):
        for d, tokens in enumerate(row):
            last = logits[b, d, len(tokens) - 1]
            margin = last[vlm.yes_id] - last[vlm.no_id]
            torch.testing.assert_close(margin, expected[b, d], atol=1e-6, rtol=1e-6)
            assert not logits[b, d, len(tokens) :].any()


def test_it_divides_by_the_temperature(vlm: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    with torch.no_grad():
        plain = margins(vlm, first, second, QUERIES)
        vlm.temperature = 2.0
        torch.testing.assert_close(margins(vlm, first, second, QUERIES), plain / 2)


def test_it_refuses_images_of_two_sizes(vlm: RewardVLM) -> None:
    with pytest.raises(ValueError, match="must share one size"):
        margins(vlm, pictures(0), pictures(1, size=48), QUERIES)
    with pytest.raises(ValueError, match="pairs of images"):
        margins(vlm, pictures(0, count=3), pictures(1, count=3), QUERIES)


@pytest.mark.parametrize("full", [True, False])
def test_it_batches_the_vision_tower_exactly(tmp_path: Path, full: bool) -> None:
    vlm = load_reward_vlm(save_tiny(tmp_path, full), dtype=torch.float64)
    assert (vlm.model.config.vision_config._attn_implementation == NAME) == full
    images = pictures(0, count=4)
    with torch.no_grad():
        encoded = encode_images(vlm, images)
        together = encoded.tokens
        singles = [encode_images(vlm, image[None]).tokens for image in images]
        vlm.model.set_attn_implementation("sdpa")
        library = encode_images(vlm, images).tokens
    assert encoded.grid.tolist() == [[1, 8, 8]] * 4
    assert all(torch.equal(one, other) for one, other in zip(together, library, strict=True))
    for one, other in zip(together, singles, strict=True):
        torch.testing.assert_close(one, other[0], atol=1e-6, rtol=1e-6)


def test_it_works_on_pictures_that_are_not_square(vlm: RewardVLM) -> None:
    first = torch.from_numpy(np.random.default_rng(0).random((1, 3, 48, 80)))
    second = first.flip(-1)
    with torch.no_grad():
        wide = margins(vlm, first, second, [QUERIES[0]])
        expected = torch.cat([margins(vlm, first, second, [[q]]) for q in QUERIES[0]], 1)
    torch.testing.assert_close(wide, expected, atol=1e-6, rtol=1e-6)
