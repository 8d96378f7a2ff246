"""Tiny Qwen-VLs with their own byte-level tokenizer: the real architectures for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The shape of Qwen2.5-VL's own template: a default system turn, images and text in the order given.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens(["Yes", "No"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(tokenizer: Any, full_vision: bool = False, **text: Any) -> Any:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return AutoConfig.for_model(
        "qwen2_5_vl",
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            **text,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "out_hidden_size": 32,
            # Otherwise the first block attends within windows.
            "fullatt_block_indexes": [0, 1] if full_vision else [1],
            "initializer_range": 0.2,
        },
    )


def tiny_qwen2(tokenizer: Any) -> Any:
    base = tiny_config(tokenizer)
    return AutoConfig.for_model(
        "qwen2_vl",
        **_ids(tokenizer),
        tie_word_embeddings=True,
        text_config=_text(base),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 8,
            "initializer_range": 0.2,
        },
    )


def tiny_qwen3(tokenizer: Any) -> Any:
    """Three language layers, of which the first two are fed the picture a second time."""
    base = tiny_config(tokenizer)
    return AutoConfig.for_model(
        "qwen3_vl",
        **_ids(tokenizer),
        tie_word_embeddings=True,
        text_config={
            **_text(base),
            "num_hidden_layers": 3,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "num_position_embeddings": 36,  # 6 x 6, interpolated to the grid of each picture
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
        },
    )


def _ids(tokenizer: Any) -> dict[str, int]:
    return {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }


def _text(config: Any) -> dict[str, Any]:
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "initializer_range",
        "rope_parameters",
        "bos_token_id",
        "eos_token_id",
    )
    return {name: getattr(config.text_config, name) for name in kept}


def tiny_processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    )


FAMILIES = {"qwen2_vl": tiny_qwen2, "qwen2_5_vl": tiny_config, "qwen3_vl": tiny_qwen3}


def save_tiny(
    directory: Path, full_vision: bool = False, family: str = "qwen2_5_vl", **text: Any
) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    if family == "qwen2_5_vl":
        config = tiny_config(tokenizer, full_vision, **text)
    else:
        config = FAMILIES[family](tokenizer)
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


def save_llava(directory: Path) -> Path:
    """A tiny LLaVA: a CLIP tower that reads one fixed size, and a Llama."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    image = "<|image_pad|>"
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
    }
    config = AutoConfig.for_model(
        "llava",
        image_token_index=tokenizer.convert_tokens_to_ids(image),
        vision_config={
            "model_type": "clip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "initializer_factor": 5.0,
            **sizes,
        },
        text_config={
            "model_type": "llama",
            "num_key_value_heads": 1,
            "vocab_size": len(tokenizer),
            **sizes,
        },
        vision_feature_layer=-1,
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(directory)
    processor: Any = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=image,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(directory)
    return directory
