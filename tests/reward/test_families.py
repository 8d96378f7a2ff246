"""Every supported family against its own official forward, question by question."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling.reward.encoding import encode_images
from modeling.reward.prefix import encode_reference, margins_after
from modeling.reward.preprocess import to_patches
from modeling.reward.scoring import margins
from modeling.reward.vision import NAME
from modeling.reward.vlm import RewardVLM, attach_lora, load_reward_vlm, write_settings
from tests.reward.test_scoring import QUERIES, official_inputs, official_margin, pictures
from tests.reward.tiny import FAMILIES, save_tiny


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def directory(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(family), family=family)


@pytest.fixture
def vlm(directory: Path) -> RewardVLM:
    return load_reward_vlm(directory, dtype=torch.float64)


def test_it_equals_the_official_forward(vlm: RewardVLM, family: str) -> None:
    assert vlm.model.config.model_type == family
    first, second = pictures(0)[:, :, :48], pictures(1)[:, :, :48]
    with torch.no_grad():
        packed = margins(vlm, first, second, QUERIES)
        for b, row in enumerate(QUERIES):
            for d, query in enumerate(row):
                expected = official_margin(vlm, official_inputs(vlm, first[b], second[b], query))
                torch.testing.assert_close(packed[b, d], expected, atol=2e-6, rtol=1e-5)
    assert packed.std() > 1e-3


def test_its_image_gradient_equals_the_official_forwards(vlm: RewardVLM) -> None:
    """Through the features that Qwen3-VL feeds into several layers, too."""
    first, second = pictures(0)[:1].requires_grad_(), pictures(1)[:1]
    (grad,) = torch.autograd.grad(margins(vlm, first, second, QUERIES[:1]).sum(), first)
    total = torch.zeros_like(grad)
    patches, _ = to_patches(torch.cat([first, second]), vlm.patches)
    for query in QUERIES[0]:
        inputs = official_inputs(vlm, first[0].detach(), second[0], query)
        pixel_values = inputs["pixel_values"].double().requires_grad_()
        asked = official_margin(vlm, {**inputs, "pixel_values": pixel_values})
        (slope,) = torch.autograd.grad(asked, pixel_values)
        total += torch.autograd.grad(patches, first, slope, retain_graph=True)[0]
    torch.testing.assert_close(grad, total, atol=1e-6, rtol=1e-5)
    assert grad.abs().max() > 1e-3


def test_it_caches_the_reference(vlm: RewardVLM) -> None:
    reference, policy = pictures(0), pictures(1).requires_grad_()
    plain = margins(vlm, reference, policy, QUERIES)
    (expected,) = torch.autograd.grad(plain.sum(), policy)
    prefixes = [encode_reference(vlm, image) for image in reference]
    asked = margins_after(vlm, prefixes, policy, QUERIES)
    (grad,) = torch.autograd.grad(asked.sum(), policy)
    torch.testing.assert_close(asked, plain, atol=1e-9, rtol=0)
    torch.testing.assert_close(grad, expected, atol=1e-9, rtol=0)


def test_it_batches_equal_pictures_exactly(vlm: RewardVLM, family: str) -> None:
    images = pictures(0, count=3)
    with torch.no_grad():
        ours = encode_images(vlm, images)
        batched = vlm.model.config.vision_config._attn_implementation == NAME
        vlm.model.set_attn_implementation("sdpa")
        library = encode_images(vlm, images)
    assert batched == (family == "qwen3_vl")
    assert len(ours.deepstack) == (2 if family == "qwen3_vl" else 0)
    for one, other in zip(
        [ours.tokens, *ours.deepstack], [library.tokens, *library.deepstack], strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("vision", [False, True])
def test_a_lora_is_attached_trained_saved_and_loaded(
    directory: Path, tmp_path: Path, vision: bool
) -> None:
    vlm = load_reward_vlm(directory)
    vlm.model = attach_lora(vlm.model, rank=4, alpha=8, dropout=0.0, vision=vision)
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    towers = {n.split("base_model.model.model.")[1].split(".")[0] for n, p in named(vlm) if p}
    assert towers == ({"language_model", "visual"} if vision else {"language_model"})
    first, second = pictures(0).float(), pictures(1).float()
    with torch.no_grad():
        before = margins(vlm, first, second, QUERIES)
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-margins(vlm, first, second, QUERIES)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = margins(vlm, first, second, QUERIES)
    assert after.mean() > before.mean()
    vlm.model.save_pretrained(tmp_path)
    write_settings(tmp_path, vlm)
    loaded = load_reward_vlm(directory, adapter=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(margins(loaded, first, second, QUERIES), after)


def named(vlm: RewardVLM) -> list[tuple[str, bool]]:
    return [(n, p.requires_grad) for n, p in vlm.model.named_parameters() if "lora" in n]
