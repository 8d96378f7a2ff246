"""Loading: quantised bases on the CPU for real, and models that cannot judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from modeling.reward.scoring import margins
from modeling.reward.vlm import attach_lora, load_reward_vlm, write_settings
from tests.reward.test_scoring import pictures
from tests.reward.tiny import save_llava

STARTER = Path("modeling/starter/weights/reward")
ROWS = [
    [
        "Task: image fill. Is the first image better in structure? Answer Yes or No.",
        "Task: object removal. Is the first image cleaner? Answer Yes or No.",
    ]
] * 8
PAIRS = pictures(0, count=8).float(), pictures(1, count=8).float()
KINDS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_base_keeps_its_judgement(kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = load_reward_vlm(STARTER, quantisation=kind)
    kinds = {n: type(m).__name__ for n, m in vlm.model.named_modules() if n.endswith("_proj")}
    assert {k for n, k in kinds.items() if "language_model" in n} == {KINDS[kind]}
    assert {k for n, k in kinds.items() if "visual" in n} == {"Linear"}
    first, second = pictures(0, count=8).float().requires_grad_(), pictures(1, count=8).float()
    exact = margins(load_reward_vlm(STARTER), first, second, ROWS)
    with torch.no_grad():
        margins(vlm, first, second, ROWS)  # must leave the weights able to pass gradients
    asked = margins(vlm, first, second, ROWS)
    error = (asked - exact).detach().abs().mean() / exact.detach().abs().mean()
    # Measured: 4.3 % and 1.1 %.
    assert 0 < error < {"nf4": 0.1, "int8": 0.03}[kind]
    (grad,) = torch.autograd.grad(asked.sum(), first)
    (true,) = torch.autograd.grad(exact.sum(), first)
    assert torch.cosine_similarity(grad.flatten(), true.flatten(), 0) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_trains_on_a_quantised_base_and_loads_again(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = load_reward_vlm(STARTER, trainable=True, quantisation=kind)
    assert not [n for n, p in vlm.model.named_parameters() if p.requires_grad]
    vlm.model = attach_lora(vlm.model, rank=4, alpha=8, dropout=0.0, vision=True)
    before, after = _train(vlm, "cpu")
    assert after.mean() > before.mean() + 0.1
    vlm.model.save_pretrained(tmp_path)
    write_settings(tmp_path, vlm)
    loaded = load_reward_vlm(STARTER, adapter=tmp_path, quantisation=kind)
    with torch.no_grad():
        again = margins(loaded, *PAIRS, ROWS)
    torch.testing.assert_close(again, after, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_trains_on_a_quantised_base_on_a_gpu(kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    vlm = load_reward_vlm(
        STARTER, trainable=True, device="cuda", dtype=torch.bfloat16, quantisation=kind
    )
    vlm.model = attach_lora(vlm.model, rank=4, alpha=8, dropout=0.0, vision=True)
    with torch.autocast("cuda", torch.bfloat16):
        before, after = _train(vlm, "cuda")
    assert after.mean() > before.mean() + 0.1


def _train(vlm: Any, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (images.to(device) for images in PAIRS)
    optimizer = torch.optim.Adam([p for p in vlm.model.parameters() if p.requires_grad], lr=1e-2)
    with torch.no_grad():
        before = margins(vlm, first, second, ROWS)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-margins(vlm, first, second, ROWS)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return before, margins(vlm, first, second, ROWS)


def test_it_says_what_a_quantisation_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='one of "", "nf4", "int8", not "fp3"'):
        load_reward_vlm(STARTER, quantisation="fp3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes"):
        load_reward_vlm(STARTER, quantisation="nf4")


def test_it_names_the_families_that_can_judge(tmp_path: Path) -> None:
    save_llava(tmp_path / "llava")
    (tmp_path / "llava" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"no processor with a chat template, .* Qwen2-VL"):
        load_reward_vlm(tmp_path / "llava")
    text: Any = AutoConfig.for_model("llama", hidden_size=16, num_attention_heads=1)
    text.save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="a llama model, which reads no pictures"):
        load_reward_vlm(tmp_path / "llama")
