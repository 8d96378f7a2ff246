"""Weights of a policy as files for other programs.

diffusers   a LoRA as `pytorch_lora_weights.safetensors` for `pipe.load_lora_weights`; a whole
            transformer as a folder for `FluxTransformer2DModel.from_pretrained`
comfyui     one .safetensors file in the original layout (see bfl.py): a LoRA for
            `ComfyUI/models/loras`, a whole transformer for `models/diffusion_models`
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from generation.diffusion.bfl import kohya_state, original_state
from generation.diffusion.loading import adapter_weights, load_adapter, load_transformer
from generation.diffusion.spec import LORA_FILE, PolicySpec


def export_lora(
    spec: PolicySpec, directory: Path, *, form: str, name: str, dtype: torch.dtype | None = None
) -> str:
    """Write the policy's LoRA; the file's name. dtype None keeps the precision it was saved in."""
    weights = {
        key: tensor.to(dtype or tensor.dtype).contiguous()
        for key, tensor in sorted(adapter_weights(spec.adapter).items())
    }
    if form == "diffusers":
        save_file(weights, directory / LORA_FILE, metadata={"format": "pt"})
        return LORA_FILE
    save_file(kohya_state(weights), directory / f"{name}.safetensors")
    return f"{name}.safetensors"


def export_transformer(
    spec: PolicySpec,
    directory: Path,
    *,
    form: str,
    name: str,
    dtype: torch.dtype = torch.bfloat16,
) -> str:
    """Write the policy's whole transformer, a LoRA merged into it; the file's or folder's name."""
    # Merged in fp32: in bf16 the small update of a LoRA would be rounded away.
    merging = bool(spec.adapter)
    transformer: Any = load_transformer(
        replace(spec, adapter=""), dtype=torch.float32 if merging else dtype
    )
    if merging:
        load_adapter(transformer, spec.adapter, "policy")
        transformer.fuse_lora()
        transformer.unload_lora()
        transformer = transformer.to(dtype)
    if form == "diffusers":
        # Where it was loaded from says nothing outside this machine.
        transformer.register_to_config(_name_or_path="")
        transformer.save_pretrained(directory / "transformer")
        return "transformer"
    state: dict[str, Tensor] = original_state(transformer.state_dict())
    save_file(state, directory / f"{name}.safetensors")
    return f"{name}.safetensors"
