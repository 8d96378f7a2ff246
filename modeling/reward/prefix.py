"""Reference first: what a policy step can keep of its references from one step to the next.

The policy's reward is P(policy's image is better). Asked as P(No | reference, policy), everything
up to the end of the reference carries no gradient and depends on no weight that the step trains.
`ReferencePrefix` holds the language model's keys and values there at every layer, so that a step
runs the VLM over the policy's image and the questions alone, with the same numbers as
`scoring.margins(vlm, reference, policy, queries)`.

It asks in one order only. What standing first is worth to the model is then part of every reward;
`order_bias` measures it against the mean of both orders. For the shipped starter model on 906 drawn
pairs it is 0.48 of a mean margin of 3.36, +0.08 on average toward the policy, and changes 4.6 % of
the winners; 88.2 % of them are right, of both orders' mean 90.0 %.

The prefix is a constant: gradients reach the policy's pixels, but those of a LoRA's weights would
lack the reference's part, so never train the VLM through `margins_after`. A prefix belongs to the
weights and the view it was made with.

Shapes: B pairs, D questions, P tokens of a prefix, layers and heads (key-value heads) of the
language model, d channels a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from modeling.reward.encoding import encode_images
from modeling.reward.scoring import (
    BothOrders,
    can_pack,
    forward_packed,
    margins_of,
    pack,
    prefix_positions,
    spread,
)
from modeling.reward.template import head_length, pictures_shown, suffix_ids
from modeling.reward.vlm import FAMILIES, RewardVLM


@dataclass(frozen=True)
class ReferencePrefix:
    """The language model's state behind one reference (and the context before it)."""

    keys: Tensor  # (layers, heads, P, d)
    values: Tensor  # (layers, heads, P, d)
    grid: Tensor  # grid_thw of the images in it, (1 or 2, 3)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def to(self, device: str | torch.device) -> ReferencePrefix:
        return ReferencePrefix(self.keys.to(device), self.values.to(device), self.grid.to(device))


@torch.no_grad()
def encode_reference(
    vlm: RewardVLM, image: Tensor, context: Tensor | None = None
) -> ReferencePrefix:
    """The prefix of one reference view (3, H, W), and of its context where the view has one.

    One at a time: in a batch a prefix's bits would depend on the others in it, and a run that is
    killed and resumed, with an empty cache, would end in other weights.
    """
    _check(vlm)
    shown = [image] if context is None else [context, image]
    if len(shown) != pictures_shown(vlm) - 1:
        raise ValueError(
            f"With view.context = {vlm.view.context:g} a prefix holds {pictures_shown(vlm) - 1} "
            f"images, but {len(shown)} were given."
        )
    encoded = encode_images(vlm, torch.stack(shown))
    # The policy's image has the reference's size; the prefix's positions do not depend on it.
    grid = torch.cat([encoded.grid, encoded.grid[-1:]])
    prefix, positions = prefix_positions(vlm, grid)
    length = head_length(vlm, prefix)
    cache = DynamicCache(config=vlm.core.config)
    vlm.core.model(
        input_ids=torch.tensor([prefix[:length]], device=vlm.device),
        position_ids=positions[..., :length],
        past_key_values=cache,
        mm_encoder_outputs={"image": encoded.output()},
        use_cache=True,
    )
    layers: Any = cache.layers
    return ReferencePrefix(
        keys=torch.cat([layer.keys for layer in layers]),
        values=torch.cat([layer.values for layer in layers]),
        grid=encoded.grid,
    )


def margins_after(
    vlm: RewardVLM,
    prefixes: Sequence[ReferencePrefix],
    images: Tensor,
    queries: list[list[str]],
) -> Tensor:
    """`margins(vlm, references, images, queries)` from the references' prefixes.

    Args:
        prefixes: one for each image, of any references with the images' size, on any device.
        images: (B, 3, H, W) reward views in [0, 1]; the result is differentiable in them.
        queries: D rendered queries for each pair; rows may differ in length.

    Returns:
        (B, D) margins that the *reference* is better; negate them for the policy's reward.
    """
    _check(vlm)
    if not len(prefixes) == len(images) == len(queries):
        raise ValueError(
            f"{len(prefixes)} prefixes, {len(images)} images and {len(queries)} rows of queries "
            "must be as many as each other."
        )
    encoded = encode_images(vlm, images)
    moved = [prefix.to(vlm.device) for prefix in prefixes]
    for prefix in moved:
        if not torch.equal(prefix.grid, encoded.grid[:1].expand_as(prefix.grid)):
            raise ValueError("A reference and the policy's image must share one size.")
    suffixes = [[suffix_ids(vlm, query) for query in row] for row in queries]
    keep = [[[len(ids) - 1] for ids in row] for row in suffixes]
    packed = pack(vlm, encoded.grid[:1].expand(pictures_shown(vlm), -1), suffixes, keep)
    keys = torch.stack([prefix.keys for prefix in moved], 1)  # (layers, B, heads, P, d)
    values = torch.stack([prefix.values for prefix in moved], 1)
    past = DynamicCache(list(zip(keys, values, strict=True)))
    flat = forward_packed(vlm, encoded, packed.after(keys.shape[-2]), past)
    return margins_of(vlm, spread(flat, keep)[:, :, 0])


def _check(vlm: RewardVLM) -> None:
    if vlm.processor is not None or not can_pack(vlm.core):
        raise ValueError(
            f"Scoring with the reference first needs a model of the families {FAMILIES} with full "
            f"attention through sdpa or eager kernels; {type(vlm.core).__name__} with "
            f"'{vlm.core.config.get_text_config()._attn_implementation}' kernels or sliding "
            "windows is none. Ask in another order."
        )
    core = vlm.core
    if core.training and any(getattr(m, "gradient_checkpointing", False) for m in core.modules()):
        raise ValueError(
            "Scoring with the reference first keeps keys and values, which gradient checkpointing "
            "drops: put the reward model into evaluation mode."
        )


@dataclass(frozen=True)
class OrderBias:
    """How far margins of the reference-first order lie from the mean of both orders."""

    mean: float  # signed, toward the policy: above 0 the mode flatters it
    absolute: float  # mean of the absolute difference
    flipped: float  # share of questions whose winner the order changes
    questions: int


def order_bias(asked: BothOrders, present: Tensor | None = None) -> OrderBias:
    """Summarise `both_orders(vlm, policy, reference, ...)`.

    Args:
        present: (B, D), which entries were asked; all where None.
    """
    chosen = torch.ones_like(asked.bias, dtype=torch.bool) if present is None else present
    fair, bias = asked.margin[chosen], asked.bias[chosen]
    # The policy is first in `asked`. Second, it lacks what standing first is worth.
    shown = fair - bias
    return OrderBias(
        mean=float(-bias.mean()),
        absolute=float(bias.abs().mean()),
        flipped=float(((shown > 0) != (fair > 0)).float().mean()),
        questions=int(chosen.sum()),
    )


class PrefixStore:
    """Prefixes by key, the least recently used dropped when they exceed `max_bytes`.

    A key names what the picture is, e.g. (source id, number), or (source id, number, step made)
    where references change. A prefix larger than `max_bytes` is made and not kept.
    """

    def __init__(self, max_bytes: int, device: str | torch.device | None = None) -> None:
        """`device` is where prefixes are kept, e.g. "cpu"; None leaves them where they are."""
        self.max_bytes, self.device = max_bytes, device
        self.nbytes = 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[Hashable, ReferencePrefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, make: Callable[[], ReferencePrefix]) -> ReferencePrefix:
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        self.misses += 1
        prefix = make()
        if self.device is not None:
            prefix = prefix.to(self.device)
        if prefix.nbytes <= self.max_bytes:
            self._kept[key] = prefix
            self.nbytes += prefix.nbytes
        while self.nbytes > self.max_bytes:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes
        return prefix

    def clear(self) -> None:
        """Forget everything, e.g. after the reward model's weights changed."""
        self._kept.clear()
        self.nbytes = 0
