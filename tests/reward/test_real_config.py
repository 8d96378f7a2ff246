"""Qwen2.5-VL-7B-Instruct's real configuration on the meta device: no weights, all shapes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from modeling.reward.scoring import can_pack
from modeling.reward.vision import attention_arguments, batch_equal_images
from modeling.reward.vlm import attach_lora, lora_targets

# config.json of Qwen/Qwen2.5-VL-7B-Instruct.
QWEN_7B: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}


@pytest.fixture(scope="module")
def model() -> Any:
    config = AutoConfig.for_model("qwen2_5_vl", **QWEN_7B)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)


def test_it_reads_the_real_configuration(model: Any) -> None:
    # The published index file counts 16,584,333,312 bytes of bf16 weights.
    assert sum(p.numel() for p in model.parameters()) == 16_584_333_312 // 2
    assert model.config.get_text_config().rope_parameters["mrope_section"] == [16, 24, 24]
    assert model.lm_head.weight.shape == (152064, 3584)
    assert can_pack(model)
    batch_equal_images(model)  # its tower has window attention: the library's loop stays
    assert attention_arguments(model, torch.tensor([[1, 8, 8]])) == {}


@pytest.mark.parametrize(("vision", "linears"), [(False, 28 * 7), (True, 28 * 7 + 32 * 5)])
def test_it_finds_every_linear_map_for_a_lora(model: Any, vision: bool, linears: int) -> None:
    pattern = re.compile(lora_targets(vision=vision))
    matched = [name for name, _ in model.named_modules() if pattern.fullmatch(name)]
    assert len(matched) == linears
    kinds = {type(model.get_submodule(name)) for name in matched}
    assert kinds == {torch.nn.Linear}


def test_it_attaches_a_lora_of_the_expected_size(model: Any) -> None:
    with torch.device("meta"):
        wrapped = attach_lora(model, rank=16, alpha=32, dropout=0.0, vision=False)
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    # Rank times (in + out) of q, k, v, o, gate, up and down in 28 layers.
    attention = 2 * (3584 + 3584) + 2 * (3584 + 512)
    mlp = 3 * (3584 + 18944)
    assert trainable == 28 * 16 * (attention + mlp)
    assert wrapped.get_base_model() is model
