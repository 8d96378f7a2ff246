"""FLUX weights in Black Forest Labs' own layout, which ComfyUI, Forge and kohya's scripts read.

diffusers keeps query, key and value of an attention as three linear maps, the original layout one:

    transformer_blocks.0.attn.to_q | to_k | to_v             double_blocks.0.img_attn.qkv
    single_transformer_blocks.0.attn.to_q | … | proj_mlp     single_blocks.0.linear1

`original_state` writes a whole transformer so; it is the inverse of diffusers'
`convert_flux_transformer_checkpoint_to_diffusers`. `kohya_state` writes a LoRA: the three maps'
updates B_i A_i become one, A = [A_q; A_k; A_v] and B = diag(B_q, B_k, B_v), which is exact and
three times as wide. ComfyUI takes its keys (`lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight`
and so on), and diffusers' `load_lora_weights` reads the same file back.

Shapes: r rank of a LoRA, i and o input and output width of a map.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

OUTSIDE = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
# Maps that are one in the original layout, in the order of their rows.
FUSED_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
FUSED_SINGLE = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
MLP_RATIO = 4  # of a single block: rows of proj_mlp per row of to_q
SWAPPED = "norm_out.linear"  # diffusers: rows of the scale, then of the shift; here the reverse
BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")
LORA_KEY = re.compile(r"(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Place:
    """Where a module of diffusers' transformer stands in the original layout."""

    name: str  # double_blocks.0.img_attn.qkv
    part: int = 0  # which of the rows' parts
    parts: tuple[str, ...] = ()  # the modules that share them, () where it stands alone


def place_of(module: str) -> Place:
    """Raises ValueError for a module that FLUX has not."""
    if module in OUTSIDE:
        return Place(OUTSIDE[module])
    found = BLOCK.fullmatch(module)
    if found:
        single, number, inner = found.groups()
        block = f"{'single' if single else 'double'}_blocks.{number}"
        prefix = module.removesuffix(inner)
        for fused, parts in (FUSED_SINGLE if single else FUSED_DOUBLE).items():
            if inner in parts:
                modules = tuple(prefix + part for part in parts)
                return Place(f"{block}.{fused}", parts.index(inner), modules)
        alone = (SINGLE if single else DOUBLE).get(inner)
        if alone is not None:
            return Place(f"{block}.{alone}")
    raise ValueError(f"'{module}' is no module of a FLUX transformer, so it has no original name.")


def original_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole transformer's weights, diffusers' names to Black Forest Labs'.

    Raises ValueError for a name that FLUX has not, or where a fused map lacks a part.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        module, _, kind = key.rpartition(".")
        place = place_of(module)
        if place.name.endswith("_norm"):
            kind = "scale"
        if place.parts:
            rows = [state.get(f"{part}.{kind}") for part in place.parts]
            present = [one for one in rows if one is not None]
            if len(present) < len(rows):
                raise ValueError(f"The transformer lacks a part of {place.name}.{kind}.")
            if place.part == 0:
                result[f"{place.name}.{kind}"] = torch.cat(present)
        else:
            result[f"{place.name}.{kind}"] = _rows(module, tensor).contiguous()
    return result


def kohya_state(lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA's weights, `transformer.<module>.lora_A.weight` (r, i) and `lora_B` (o, r), to kohya's
    names in the original layout. Its scale is taken to be 1 (alpha = rank), as the trainer saves.

    Raises ValueError for a name that FLUX has not, or a pair of which one half is missing.
    """
    groups: dict[str, dict[int, tuple[Tensor, Tensor]]] = defaultdict(dict)
    modules: dict[str, str] = {}
    for module, down, up in pairs(lora):
        place = place_of(module)
        groups[place.name][place.part] = (down, _rows(module, up))
        modules[place.name] = module
    result: dict[str, Tensor] = {}
    for name, members in sorted(groups.items()):
        parts = place_of(modules[name]).parts
        down, up = _fused(members, parts) if parts else members[0]
        key = "lora_unet_" + name.replace(".", "_")
        result[f"{key}.lora_down.weight"] = down.contiguous()
        result[f"{key}.lora_up.weight"] = up.contiguous()
        result[f"{key}.alpha"] = torch.tensor(float(len(down)))
    return result


def pairs(lora: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor, Tensor]]:
    """Module, A (r, i) and B (o, r) of each map that a LoRA in diffusers' layout changes."""
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in lora.items():
        found = LORA_KEY.fullmatch(key.removeprefix("transformer."))
        if found is None:
            raise ValueError(f"'{key}' is no weight of a LoRA in diffusers' layout.")
        halves[found[1]][found[2]] = tensor
    for module, both in halves.items():
        if len(both) < 2:
            raise ValueError(f"The LoRA of '{module}' lacks one of its two matrices.")
        yield module, both["A"], both["B"]


def _rows(module: str, tensor: Tensor) -> Tensor:
    if module != SWAPPED:
        return tensor
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def _fused(
    members: Mapping[int, tuple[Tensor, Tensor]], parts: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """One pair for maps that share an input; parts without a LoRA get rows of zeros."""
    downs = [members[part][0] for part in sorted(members)]
    shares = [MLP_RATIO if part.endswith("proj_mlp") else 1 for part in parts]
    some = min(members)
    heights = [len(members[some][1]) // shares[some] * share for share in shares]
    up = downs[0].new_zeros(sum(heights), sum(len(down) for down in downs))
    column = 0
    for part in sorted(members):
        down, own = members[part]
        if len(own) != heights[part]:
            raise ValueError(
                f"The LoRA of '{parts[part]}' has {len(own)} rows where FLUX has {heights[part]}."
            )
        top = sum(heights[:part])
        up[top : top + len(own), column : column + len(down)] = own
        column += len(down)
    return torch.cat(downs), up
