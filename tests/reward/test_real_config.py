"""The real configurations of the big models on the meta device: no weights, all shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

from modeling.reward.preprocess import VisionLayout
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


# config.json of Qwen/Qwen3-VL-8B-Instruct.
QWEN3_8B: dict[str, Any] = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": False,
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 12288,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "vision_config": {
        "deepstack_visual_indexes": [8, 16, 24],
        "depth": 27,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4304,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 4096,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
# preprocessor_config.json of Qwen/Qwen3-VL-8B-Instruct.
QWEN3_PREPROCESSOR: dict[str, Any] = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


@pytest.fixture(scope="module")
def qwen3() -> Any:
    config = AutoConfig.for_model("qwen3_vl", **QWEN3_8B)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)


def test_it_reads_qwen3s_real_configuration(qwen3: Any, tmp_path: Path) -> None:
    # The published index file counts 17,534,247,392 bytes of bf16 weights.
    assert sum(p.numel() for p in qwen3.parameters()) == 17_534_247_392 // 2
    assert can_pack(qwen3)
    batch_equal_images(qwen3)
    grid = torch.tensor([[1, 32, 32]]).expand(2, 3)
    assert attention_arguments(qwen3, grid)["equal_images"] == 2
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(QWEN3_PREPROCESSOR))
    layout = VisionLayout.from_processor(AutoImageProcessor.from_pretrained(tmp_path))
    assert layout.working_size(512, 512) == (512, 512)  # 256 tokens of 32 x 32 pixels
    assert layout.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("vision", "linears"), [(False, 36 * 7), (True, 36 * 7 + 27 * 4)])
def test_it_finds_qwen3s_linear_maps_for_a_lora(qwen3: Any, vision: bool, linears: int) -> None:
    pattern = re.compile(lora_targets(vision=vision))
    matched = [name for name, _ in qwen3.named_modules() if pattern.fullmatch(name)]
    assert len(matched) == linears


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
