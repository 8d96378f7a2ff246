"""Load the reward VLM: a transformers image-text-to-text model, its tokenizer and settings.

Everything comes from the checkpoint in the libraries' own formats: weights and configuration
through AutoModelForImageTextToText, chat template with the tokenizer, patch sizes with the image
processor, a LoRA through peft. `reward.json` beside the weights (or the LoRA) holds what those
formats have no place for: the view, the calibration temperature and a limit on pixels. No processor
object: Qwen2_5_VLProcessor needs torchvision for videos, which this project never shows.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils.hub import cached_file

from modeling.reward.preprocess import VisionLayout
from modeling.reward.quantisation import prepared, quantisation_options
from modeling.reward.view_config import ViewConfig
from modeling.reward.vision import batch_equal_images

SETTINGS = "reward.json"
LANGUAGE_LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
FAMILIES = "Qwen2-VL, Qwen2.5-VL and Qwen3-VL"
MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
VISION_LINEARS = (
    "qkv|proj|gate_proj|up_proj|down_proj|fc1|fc2|linear_fc1|linear_fc2|[qkv]_proj|out_proj"
)


@dataclass
class RewardVLM:
    """A VLM that answers whether the first of two images is better, and how to ask it."""

    model: Any  # a transformers image-text-to-text model, or a PeftModel around one
    tokenizer: Any
    layout: VisionLayout | None  # None where the family's patches are not known here
    view: ViewConfig
    temperature: float  # divides the logit margin, so that sigmoid(margin) is calibrated
    yes_id: int
    no_id: int
    # The checkpoint's own processor, in place of the layout (see `processed`).
    processor: Any = field(default=None, repr=False)
    # Cache of `template.suffix_ids`, by the number of images shown and the query.
    suffixes: dict[tuple[int, str], list[int]] = field(default_factory=dict, repr=False)

    @property
    def patches(self) -> VisionLayout:
        """The layout, of a model that has one."""
        if self.layout is None:
            raise ValueError(
                f"The patches of {type(self.core).__name__} are not known here, those of the "
                f"families {FAMILIES} are."
            )
        return self.layout

    @property
    def core(self) -> Any:
        """The transformers model inside a LoRA wrapper."""
        model = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def device(self) -> torch.device:
        return next(self.core.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.core.get_input_embeddings().weight.dtype


def answer_ids(tokenizer: Any) -> tuple[int, int]:
    """Token ids of "Yes" and "No"; each must be one token."""
    ids = []
    for word in ("Yes", "No"):
        tokens = tokenizer.encode(word, add_special_tokens=False)
        if len(tokens) != 1:
            raise ValueError(
                f'The tokenizer splits "{word}" into {len(tokens)} tokens; a reward model needs '
                "it as one token."
            )
        ids.append(tokens[0])
    return ids[0], ids[1]


def read_settings(location: str) -> dict[str, Any]:
    """`reward.json` of a directory or hub repository; {} where there is none."""
    path: Path | None = Path(location) / SETTINGS
    if not Path(location).is_dir():
        found = cached_file(
            location,
            SETTINGS,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        path = Path(found) if found else None
    if path is None or not path.is_file():
        return {}
    settings: dict[str, Any] = json.loads(path.read_text())
    return settings


def write_settings(directory: Path, vlm: RewardVLM) -> None:
    """What `load_reward_vlm` needs beside the weights to see and score as `vlm` does."""
    values = {
        "view": dataclasses.asdict(vlm.view),
        "temperature": vlm.temperature,
    }
    if vlm.layout is not None:
        values["max_pixels"] = vlm.layout.max_pixels
    (directory / SETTINGS).write_text(json.dumps(values, indent=1))


def load_reward_vlm(
    location: str | Path,
    *,
    adapter: str | Path = "",
    trainable: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantisation: str = "",
) -> RewardVLM:
    """Load a reward VLM, in evaluation mode.

    Args:
        location: directory or hub id in transformers' layout, e.g. "Qwen/Qwen2.5-VL-7B-Instruct".
        adapter: directory of a LoRA in peft's layout; its `reward.json` goes before the base's.
        trainable: leave gradients to the weights (of the LoRA where there is one) on.
        quantisation: "nf4" or "int8" quantises the language model while loading; "" does not.

    Raises:
        FileNotFoundError: no checkpoint at `location` or no LoRA at `adapter`.
        ValueError: a checkpoint that cannot answer Yes or No in one token or reads no pictures, a
            quantisation that is unknown or lacks its package.
    """
    location, adapter = str(location), str(adapter)
    check_places(location, adapter)
    options = quantisation_options(quantisation, device, dtype)
    try:
        known = patches_known(location)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            location, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        layout = processor = None
        if known:
            layout = VisionLayout.from_processor(_image_processor(location))
        else:
            processor = own_processor(location)
    except OSError as error:
        raise FileNotFoundError(
            f"No reward model could be loaded from '{location}': {str(error).splitlines()[0]} "
            "Give a directory in transformers' layout or the id of a hub repository."
        ) from error
    batch_equal_images(model)
    if quantisation:
        model = prepared(model, trainable=trainable)
    settings = read_settings(location)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        settings |= read_settings(adapter)
    if not trainable:
        model.requires_grad_(False)
    if layout is not None and "max_pixels" in settings:
        layout = dataclasses.replace(layout, max_pixels=int(settings["max_pixels"]))
    yes_id, no_id = answer_ids(tokenizer)
    return RewardVLM(
        model=(model if quantisation else model.to(device)).eval(),
        tokenizer=tokenizer,
        layout=layout,
        processor=processor,
        view=ViewConfig(**settings.get("view", {})),
        temperature=float(settings.get("temperature", 1.0)),
        yes_id=yes_id,
        no_id=no_id,
    )


def check_places(location: str, adapter: str) -> None:
    looks_local = location.startswith((".", "/", "~")) or location.count("/") != 1
    if Path(location).is_dir():
        if not (Path(location) / "config.json").is_file():
            raise FileNotFoundError(
                f"The reward model directory '{location}' has no config.json: it is not a "
                "checkpoint in transformers' layout."
            )
    elif looks_local:
        raise FileNotFoundError(
            f"There is no reward model at '{location}'. Build the starter models, or give a "
            "directory in transformers' layout or the id of a hub repository."
        )
    if adapter and not (Path(adapter) / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"There is no LoRA at '{adapter}': a directory with adapter_config.json is needed."
        )
    # peft would take a pickle where there is nothing else.
    if adapter and not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise FileNotFoundError(
            f"The LoRA at '{adapter}' has no adapter_model.safetensors. Pickles are not loaded: "
            "save it with safe_serialization=True."
        )


def patches_known(location: str) -> bool:
    """Whether pictures can be cut into the model's patches here, with gradients (`FAMILIES`)."""
    kind = AutoConfig.from_pretrained(location, trust_remote_code=False).model_type
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(
            f"'{location}' is a {kind} model, which reads no pictures: a reward model must be an "
            f"image-text-to-text model, best of the families {FAMILIES}."
        )
    processor = _image_processor(location)
    return kind in MODEL_TYPES and type(processor).__name__.startswith("Qwen2VLImageProcessor")


def _image_processor(location: str) -> Any:
    return AutoImageProcessor.from_pretrained(location, trust_remote_code=False)


def own_processor(location: str) -> Any:
    """The processor of a model of another family, which must bring a chat template."""
    processor: Any = AutoProcessor.from_pretrained(location, trust_remote_code=False)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise ValueError(
            f"'{location}' has no processor with a chat template, and its family is not known "
            f"here: a reward model should be of the families {FAMILIES}."
        )
    return processor


def lora_targets(*, vision: bool) -> str:
    """peft's `target_modules`: all linear maps of the language model, or of both towers."""
    pattern = rf".*language_model\..*\.({LANGUAGE_LINEARS})"
    towers = r"visual\.blocks|vision_tower|vision_model"
    return rf"{pattern}|.*({towers})\..*\.({VISION_LINEARS})" if vision else pattern


def attach_lora(model: Any, *, rank: int, alpha: float, dropout: float, vision: bool) -> Any:
    """Wrap `model` in a fresh trainable LoRA; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=lora_targets(vision=vision),
    )
    return get_peft_model(model, config)
