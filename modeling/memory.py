"""How much GPU memory a training takes, computed: nothing here was measured on a GPU.

    python -m modeling.memory

Weights, gradients, moments and averages are counted exactly, from the libraries' own models built
without storage on the meta device. Activations are an estimate: a transformer block that keeps
everything for its backward holds about 34 bytes per token and channel in bf16 (Korthikanti et al.
2022, section 4.1; fused attention does not store the scores), one with gradient checkpointing its
input, 2 bytes, and one whole block at a time; the VAE decoder's saved tensors are counted on the
meta device. Workspaces, logits, fragmentation and the CUDA context are left out: keep a tenth of
the card free. `modeling/accelerate/` holds the configurations that the rows are about.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText

from modeling.policy.adapters import LORA_TARGETS
from modeling.reward.vlm import lora_targets

GIB = 2**30
# NF4 with double quantisation: a byte per 64 weights, and four per 256 of these.
BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float8": 1.0,
    "int8": 1.0,
    "nf4": 0.5 + 1 / 64 + 4 / (64 * 256),
}
GRADIENT = 4
MOMENTS = 8
WHOLE_BLOCK = 34  # bytes per token and channel
BLOCK_INPUT = 2

# transformer/config.json of FLUX.1-Fill-dev where it differs from diffusers' defaults.
FLUX_FILL: dict[str, Any] = {"in_channels": 384, "out_channels": 64, "guidance_embeds": True}
FLUX_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
# config.json of Qwen2.5-VL-7B-Instruct where shapes depend on it.
QWEN_7B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}


@dataclass(frozen=True)
class Tower:
    """Blocks of one width, for the activations."""

    blocks: int
    width: int


@dataclass(frozen=True)
class Shape:
    parameters: int
    quantisable: int  # weights of the linear maps that are stored in fewer bits
    linears: int  # sum of (in + out) over the maps that a LoRA sits beside
    towers: tuple[Tower, ...]


@cache
def flux() -> Shape:
    with torch.device("meta"):
        model = FluxTransformer2DModel(**FLUX_FILL)
    width = model.inner_dim
    layers = len(model.transformer_blocks) + len(model.single_transformer_blocks)
    blocks = nn.ModuleList([model.transformer_blocks, model.single_transformer_blocks])
    return Shape(
        _count(model), _linear(blocks), _beside(model, LORA_TARGETS), (Tower(layers, width),)
    )


@cache
def qwen() -> Shape:
    config = AutoConfig.for_model("qwen2_5_vl", **QWEN_7B)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    towers = (Tower(28, 3584), Tower(32, 1280))
    language = model.model.language_model.layers
    return Shape(
        _count(model), _linear(language), _beside(model, lora_targets(vision=False)), towers
    )


@cache
def vae_decoder_bytes(side: int) -> int:
    """What the backward through the VAE decoder keeps for one picture, in bf16."""
    with torch.device("meta"):
        vae = AutoencoderKL(**FLUX_VAE).to(torch.bfloat16).requires_grad_(False)
        latents = torch.empty(1, 16, side // 8, side // 8, dtype=torch.bfloat16, requires_grad=True)
    own = {p.untyped_storage()._cdata for p in vae.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vae.decode(latents)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _linear(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


def _beside(model: nn.Module, targets: str) -> int:
    pattern = re.compile(targets)
    return sum(
        m.in_features + m.out_features
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and pattern.fullmatch(name)
    )


@dataclass(frozen=True)
class Role:
    """One model of a training and what it is there for."""

    shape: Shape
    storage: str = "bfloat16"  # of weights that are not trained
    trained: str = "no"  # no, lora or full
    rank: int = 16
    averages: int = 0  # fp32 averages of the trained weights
    frozen_copies: int = 0  # further whole copies, as a reference of full fine-tuning
    tokens: tuple[int, ...] = ()  # a tower, whose activations coexist
    checkpointing: bool = False
    processes: int = 1  # among which weights, gradients and moments are divided (FSDP2)

    @property
    def trainable(self) -> int:
        if self.trained == "full":
            return self.shape.parameters
        return self.rank * self.shape.linears if self.trained == "lora" else 0

    @property
    def frozen_bytes(self) -> float:
        low = self.shape.quantisable * BYTES[self.storage]
        return low + (self.shape.parameters - self.shape.quantisable) * BYTES["bfloat16"]

    def bytes(self) -> dict[str, float]:
        copies = self.frozen_copies + (self.trained != "full")
        weights = self.frozen_bytes * copies + self.trainable * BYTES["float32"]
        parts = {
            "weights": weights,
            "gradients": self.trainable * float(GRADIENT),
            "moments": self.trainable * float(MOMENTS),
            "averages": self.trainable * self.averages * BYTES["float32"],
        }
        divided = {name: value / self.processes for name, value in parts.items()}
        return divided | {"activations": float(sum(map(self._activations, self._shown())))}

    def _shown(self) -> list[tuple[Tower, int]]:
        return list(zip(self.shape.towers, self.tokens, strict=False))

    def _activations(self, shown: tuple[Tower, int]) -> int:
        tower, tokens = shown
        each = tokens * tower.width
        if self.checkpointing:
            return each * (BLOCK_INPUT * tower.blocks + WHOLE_BLOCK)
        return each * WHOLE_BLOCK * tower.blocks


@dataclass(frozen=True)
class Setup:
    name: str
    roles: tuple[Role, ...]
    other: float = 0.0  # further activations

    def bytes(self) -> dict[str, float]:
        parts = [role.bytes() for role in self.roles]
        sums = {name: sum(part[name] for part in parts) for name in parts[0]}
        return sums | {"activations": sums["activations"] + self.other}

    @property
    def total(self) -> float:
        return sum(self.bytes().values())


def pair_tokens(side: int, *, orders: int, questions: int = 4) -> tuple[int, int]:
    """Tokens of one pair in the language model and in the vision tower, at 14-pixel patches."""
    patches = (side // 14) ** 2
    # A system turn and some 40 tokens a question.
    return orders * (2 * patches // 4 + 30 + 40 * questions), 2 * patches


def setups() -> list[Setup]:
    """The configurations in `modeling/accelerate/`, with pictures of 512 x 512."""
    side = 512
    image = (side // 16) ** 2 + 512  # FLUX: latents and text
    pair, reward_pair = pair_tokens(side, orders=1), pair_tokens(side, orders=2)
    batch = tuple(16 * tokens for tokens in reward_pair)
    small_batch = tuple(4 * tokens for tokens in reward_pair)
    vae = float(vae_decoder_bytes(side))
    lora = Role(flux(), trained="lora", averages=1, tokens=(image,), checkpointing=True)
    return [
        Setup(
            "policy, LoRA, 80 GB: bf16 base and reward model",
            (lora, Role(qwen(), tokens=pair)),
            vae,
        ),
        Setup(
            "policy, LoRA, 24 GB: NF4 base and reward model, endpoint made again",
            (
                Role(
                    flux(),
                    "nf4",
                    "lora",
                    averages=1,
                    tokens=(image,),
                    checkpointing=True,
                ),
                Role(qwen(), "nf4"),
            ),
            # The reward model's activations are gone before the VAE's are made.
            max(vae, Role(qwen(), tokens=pair).bytes()["activations"]),
        ),
        *(
            Setup(
                f"policy, all weights, {name}",
                (
                    Role(
                        flux(),
                        trained="full",
                        averages=1,
                        frozen_copies=1,
                        tokens=(image,),
                        checkpointing=True,
                        processes=processes,
                    ),
                    Role(qwen(), tokens=pair),
                ),
                vae,
            )
            for name, processes in (("one process", 1), ("each of 8 x 80 GB (FSDP2)", 8))
        ),
        Setup(
            "reward, LoRA, 80 GB: bf16 base, 16 pairs",
            (Role(qwen(), trained="lora", tokens=batch, checkpointing=True),),
        ),
        Setup(
            "reward, LoRA, 24 GB: NF4 base, 4 pairs",
            (Role(qwen(), "nf4", "lora", tokens=small_batch, checkpointing=True),),
        ),
        Setup(
            "reward, all weights, each of 8 x 80 GB (FSDP2), 2 pairs each",
            (
                Role(
                    qwen(),
                    trained="full",
                    tokens=tuple(2 * tokens for tokens in reward_pair),
                    checkpointing=True,
                    processes=8,
                ),
            ),
        ),
    ]


def table(rows: Sequence[Setup]) -> str:
    names = list(rows[0].bytes())
    lines = ["GiB, computed" + " " * 61 + "".join(f"{name:>13}" for name in [*names, "all"])]
    for row in rows:
        parts = row.bytes()
        values = [*(parts[name] for name in names), row.total]
        lines.append(f"{row.name:<74}" + "".join(f"{value / GIB:>13.1f}" for value in values))
    return "\n".join(lines)


def main() -> int:
    print(table(setups()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
