"""D packed questions against D forwards of their own: values, pixels' and LoRA's gradients.

The norms of transformers compute in float32 whatever the model's dtype: in float64 the values
still agree to 1e-12, the gradients, which those norms pass back in float32, to 1e-6.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.reward.prefix import encode_reference, margins_after
from modeling.reward.scoring import margins
from modeling.reward.vlm import RewardVLM, attach_lora, load_reward_vlm
from tests.reward.test_scoring import QUERIES, pictures
from tests.reward.tiny import save_tiny


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("exact"), family=request.param)


def with_lora(directory: Path, dtype: torch.dtype) -> RewardVLM:
    vlm = load_reward_vlm(directory, dtype=dtype)
    torch.manual_seed(0)
    vlm.model = attach_lora(vlm.model, rank=2, alpha=4, dropout=0.0, vision=True).to(dtype).eval()
    for name, weight in vlm.model.named_parameters():
        if "lora_B" in name:  # zero at the start: A would have no gradient
            torch.nn.init.normal_(weight, std=0.05)
    return vlm


def asked(vlm: RewardVLM, packed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Margins (B, D), the gradient to both images, and that of all LoRA weights as one vector."""
    first, second = (x.to(vlm.dtype).requires_grad_() for x in (pictures(0), pictures(1)))
    if packed:
        found = margins(vlm, first, second, QUERIES)
    else:
        columns = [margins(vlm, first, second, [[row[d]] for row in QUERIES]) for d in range(3)]
        found = torch.cat(columns, 1)
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(found)
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    pixels = [first, second]
    grads = torch.autograd.grad((found * weights).sum(), [*pixels, *trained])
    return (
        found.detach(),
        torch.stack(grads[:2]),
        torch.cat([grad.flatten() for grad in grads[2:]]),
    )


def distance(ours: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return float((ours - other).abs().max() / other.abs().max())


def test_float64_agrees_to_rounding(directory: Path) -> None:
    vlm = with_lora(directory, torch.float64)
    packed, separate = asked(vlm, True), asked(vlm, False)
    for ours, other, limit in zip(packed, separate, (1e-12, 1e-6, 1e-6), strict=True):
        assert other.abs().max() > 1e-3
        assert distance(ours, other) < limit


def test_bfloat16_differs_by_less_than_its_own_error(directory: Path) -> None:
    """Measured: margins and gradients 0.3 to 1.5 % apart, both 24 to 119 % from float64's (of
    random weights; the point is that packing adds nothing to it)."""
    exact = asked(with_lora(directory, torch.float64), False)
    vlm = with_lora(directory, torch.bfloat16)
    for ours, other, true in zip(asked(vlm, True), asked(vlm, False), exact, strict=True):
        assert distance(ours, other) < 0.03
        assert distance(ours, other) < 0.1 * distance(other, true)


def test_a_cached_reference_agrees_in_bfloat16(directory: Path) -> None:
    vlm = with_lora(directory, torch.bfloat16)
    reference, policy = pictures(0).bfloat16(), pictures(1).bfloat16().requires_grad_()
    plain = margins(vlm, reference, policy, QUERIES)
    (expected,) = torch.autograd.grad(plain.sum(), policy)
    prefixes = [encode_reference(vlm, image) for image in reference]
    cached = margins_after(vlm, prefixes, policy, QUERIES)
    (grad,) = torch.autograd.grad(cached.sum(), policy)
    assert distance(cached.detach(), plain.detach()) < 0.03
    assert distance(grad, expected) < 0.03
