"""A frozen base quantised by bitsandbytes, with a LoRA beside it (QLoRA, arXiv 2305.14314).

The language model's linear maps are stored in NF4 (4 bits, double-quantised scales) or int8 and
computed in the model's dtype; the vision tower, through which the pixels' gradient enters, and the
vocabulary's matrix stay as they are. A quarter to a half of the language model's memory, on a GPU
or, slowly, on a CPU.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

QUANTISATIONS = ("", "nf4", "int8")


def quantisation_options(
    kind: str, device: str | torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantise the language model while it is loaded."""
    if kind not in QUANTISATIONS:
        known = ", ".join(f'"{name}"' for name in QUANTISATIONS)
        raise ValueError(f'quantisation must be one of {known}, not "{kind}".')
    if not kind:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f'quantisation "{kind}" needs the package bitsandbytes, which is not installed: '
            "pip install bitsandbytes, or leave quantisation empty."
        )
    import torch
    from transformers import BitsAndBytesConfig

    kept = ["lm_head", "model.visual"]
    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
        )
    # Quantised weights are placed while they are loaded and may not be moved afterwards.
    return {"quantization_config": config, "device_map": {"": torch.device(device)}}


def prepared(model: Any, *, trainable: bool) -> Any:
    """A quantised model through which gradients pass, to its pixels and to a LoRA beside it."""
    for module in model.modules():
        # On a CPU bitsandbytes would repack NF4 weights at their first use without a gradient,
        # and no gradient passes through packed ones.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if not trainable:
        return model
    from peft import prepare_model_for_kbit_training

    # Norms and embeddings in float32, all frozen.
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
