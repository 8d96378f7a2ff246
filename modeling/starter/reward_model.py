"""The reward base before training: a small Qwen2.5-VL, its tokenizer and its settings on disk.

Everything is written in the layout of Qwen/Qwen2.5-VL-7B-Instruct, so that `AutoTokenizer`,
`AutoImageProcessor` and `AutoModelForImageTextToText` load the directory as they load the real one.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from modeling.starter.taxonomy import CRITERIA, DIMENSIONS, TASKS
from modeling.starter.world import DIMENSIONS as ASKED

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white", "black", "grey")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Qwen2.5-VL's own template with its numbered pictures (`add_vision_id`) always on, which tells a
# small model first from second, and without its default system message.
CHAT_TEMPLATE = (
    "{% set pictures = namespace(count=0) %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}"
    "{% set pictures.count = pictures.count + 1 %}"
    "Picture {{ pictures.count }}: <|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PATCH_SIZE = 8
MERGE_SIZE = 2
WIDTH = 128  # of the language model
VOCABULARY = 1024


def corpus() -> list[str]:
    """Sentences whose words become whole tokens; everything else falls back to bytes."""
    lines = ["Yes", "No", "user\n", "assistant\n", "system\n", "Task: ", "Answer Yes or No."]
    lines += [
        "Picture 1: ",
        "Picture 2: ",
        "Answer with Yes or No.",
        "Is the first image better than the second?",
    ]
    for task, dimension, _ in CRITERIA:
        if task not in ASKED:
            continue  # never asked in the starter world
        prompt = f'the number "{4}{2}"' if dimension == "text_rendering" else "a red circle"
        question = DIMENSIONS[dimension]["query"].replace("{prompt}", prompt)
        lines.append(f"Task: {TASKS[task]['wording']}. {question} Answer Yes or No.")
    lines += [row["query"].replace("{prompt}", "") for row in DIMENSIONS.values()]
    lines += [row["wording"] for row in TASKS.values()]
    lines += [row["fixed_prompt"] for row in TASKS.values()]
    lines += [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    lines += [f"{word} {word}s" for word in ("number", "digit", "letter", "word", "text", "the")]
    return lines * 4


def new_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen's pre-tokenisation: every string in any script round-trips."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learnt = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],  # type: ignore[misc]
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_config(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    def token(name: str) -> int:
        found: Any = tokenizer.convert_tokens_to_ids(name)
        return int(found)

    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": 2,
            "spatial_merge_size": MERGE_SIZE,
            "window_size": 64,
            "fullatt_block_indexes": [0, 1, 2],
            "out_hidden_size": WIDTH,
            "initializer_range": 0.08,
        },
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,
            "hidden_size": WIDTH,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def new_model(config: Qwen2_5_VLConfig, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.config._attn_implementation = "sdpa"
    return model


def preprocessor_config(side: int) -> dict[str, object]:
    """Pictures from `side`² pixels up to four times as many pass unresized."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": PATCH_SIZE,
        "temporal_patch_size": 2,
        "merge_size": MERGE_SIZE,
        "min_pixels": side * side,
        "max_pixels": 4 * side * side,
        "size": {"shortest_edge": side * side, "longest_edge": 4 * side * side},
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def save(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    out: Path,
    *,
    side: int,
    reward: dict[str, object],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the checkpoint directory; `reward` becomes reward.json (view and temperature)."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    model.save_pretrained(out, state_dict=state)
    # safetensors writes its file for the owner alone.
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(
        json.dumps(preprocessor_config(side), indent=2) + "\n"
    )
    (out / "reward.json").write_text(json.dumps(reward, indent=2) + "\n")
