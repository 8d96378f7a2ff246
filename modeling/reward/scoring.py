"""Score pairs of images: margin = log P(Yes | first, second, q) - log P(No | first, second, q).

D questions about one pair share everything up to the images' end. Written images first, question
last, that is one prefix and D suffixes, packed into one sequence:

    [prefix with both images][suffix 1][suffix 2] ... [suffix D]

A suffix token sees the prefix and its own suffix up to itself (4-D mask), and takes the rotary
position it would have right behind the prefix. So the logits equal those of D separate forwards,
for about a third of the compute at D = 4 (OneReward scores each dimension separately).

A model whose attention cannot take such a mask (flash or flex kernels, sliding windows) is asked
with D separate sequences instead: the same numbers, without the saving. One of a family whose
patches are not known here is asked through its own processor (`processed`): no pixel gradients.

Shapes: B pairs, D questions a pair (may differ between pairs), S tokens of a suffix, P of the
prefix, L = P + all suffixes, T tokens of an image, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modeling.reward.encoding import Encoded, encode_images
from modeling.reward.processed import processed_logits
from modeling.reward.template import pictures_shown, prefix_ids, suffix_ids
from modeling.reward.vlm import RewardVLM

PADDING = -1
PREFIX = 0


def margins(
    vlm: RewardVLM,
    first: Tensor,
    second: Tensor,
    queries: list[list[str]],
    context: Tensor | None = None,
) -> Tensor:
    """Logit margins that the first image is the better one; differentiable in both images.

    Args:
        first, second: (B, 3, H, W) reward views in [0, 1], all of one size.
        queries: D rendered queries for each pair; rows may differ in length.
        context: (B, 3, H, W) from `reward_context`, for a model whose view shows one; else None.

    Returns:
        (B, D) float32 or wider, divided by the model's temperature, so that P(first is better) =
        sigmoid(margin). Missing entries of shorter rows are 0.
    """
    shown = [first, second] if context is None else [context, first, second]
    rows = [tuple(range(len(shown) * b, len(shown) * (b + 1))) for b in range(len(queries))]
    images = interleave(shown)
    if len(rows) * len(shown) != len(images):
        raise ValueError(
            f"{len(images) // len(shown)} pairs of images were given for {len(queries)} rows of "
            "queries."
        )
    return margins_of(vlm, answer_logits(vlm, images, rows, queries))


def margins_of(vlm: RewardVLM, logits: Tensor) -> Tensor:
    """Calibrated margins (B, D) from answer logits (B, D, V)."""
    # The softmax's normaliser cancels in the difference of log-probabilities.
    wide = logits[..., [vlm.yes_id, vlm.no_id]]
    wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
    return (wide[..., 0] - wide[..., 1]) / vlm.temperature


@dataclass(frozen=True)
class BothOrders:
    """A pair asked in either order."""

    # (B, D) margin that the first image is better, mean of both orders: swapping negates it.
    margin: Tensor
    # (B, D) what merely standing first is worth: asked in the order given alone, a pair gets
    # margin + bias. 0 for a model without positional bias.
    bias: Tensor


def both_orders(
    vlm: RewardVLM,
    first: Tensor,
    second: Tensor,
    queries: list[list[str]],
    context: Tensor | None = None,
) -> BothOrders:
    """`margins` in both orders; every image goes through the vision tower once."""
    shown = [first, second] if context is None else [context, first, second]
    count, each = len(queries), len(shown)
    rows = [tuple(range(each * b, each * (b + 1))) for b in range(count)]
    turned = [(*row[:-2], row[-1], row[-2]) for row in rows]
    logits = answer_logits(vlm, interleave(shown), rows + turned, queries * 2)
    forth, back = margins_of(vlm, logits).split(count)
    return BothOrders(margin=(forth - back) / 2, bias=(forth + back) / 2)


def answer_logits(
    vlm: RewardVLM, images: Tensor, shown: Sequence[tuple[int, ...]], queries: list[list[str]]
) -> Tensor:
    """Logits (B, D, V) of the answer's token for rows of indices into `images`.

    A row is (first, second), or (context, first, second) for a model whose view shows a context.
    Each of the (N, 3, H, W) images goes through the vision tower once, in however many rows and
    in whichever order it is shown.
    """
    if any(len(row) != pictures_shown(vlm) for row in shown):
        raise ValueError(
            f"With view.context = {vlm.view.context:g} this reward model reads "
            f"{pictures_shown(vlm)} images a question, but was given {len(shown[0])}."
        )
    if vlm.processor is not None:
        return processed_logits(vlm, images, shown, queries)
    suffixes = [[suffix_ids(vlm, query) for query in row] for row in queries]
    keep = [[[len(ids) - 1] for ids in row] for row in suffixes]
    encoded = encode_images(vlm, images).pick([index for row in shown for index in row])
    return _logits_at(vlm, encoded, suffixes, keep)[:, :, 0]


def packed_forward(
    vlm: RewardVLM, first: Tensor, second: Tensor, suffix_token_ids: list[list[list[int]]]
) -> Tensor:
    """Logits at every suffix token: (B, D, S, V), zero behind the end of shorter suffixes and rows.

    `suffix_token_ids` holds D token lists for each pair, e.g. from `suffix_ids`.
    """
    encoded = encode_images(vlm, interleave([first, second]))
    keep = [[list(range(len(ids))) for ids in row] for row in suffix_token_ids]
    return _logits_at(vlm, encoded, suffix_token_ids, keep)


def interleave(shown: Sequence[Tensor]) -> Tensor:
    """Stacks of images (B, 3, H, W) as (B * stacks, 3, H, W), row by row."""
    sizes = {tuple(images.shape) for images in shown}
    if len(sizes) > 1:
        found = " and ".join(str(size) for size in sorted(sizes))
        raise ValueError(f"The images of a pair must share one size, got {found}.")
    return torch.stack(list(shown), 1).flatten(0, 1)


def can_pack(model: Any) -> bool:
    """Whether the language model's attention takes an arbitrary 4-D mask."""
    text = model.config.get_text_config()
    full = all(kind == "full_attention" for kind in getattr(text, "layer_types", None) or [])
    return full and text._attn_implementation in ("sdpa", "eager")


def _logits_at(
    vlm: RewardVLM,
    encoded: Encoded,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Tensor:
    """Logits (B, D, K, V) at the positions `keep` of each suffix."""
    rows, grid, each = len(suffixes), encoded.grid, pictures_shown(vlm)
    if each * rows != len(grid):
        raise ValueError(f"{len(grid)} images were given for {rows} rows of {each} a question.")
    if not torch.equal(grid, grid[:1].expand_as(grid)):
        raise ValueError("All images of one batch must have one size; batch them by size.")
    if can_pack(vlm.core):
        packed = pack(vlm, grid[:each], suffixes, keep)
        flat = forward_packed(vlm, encoded, packed)
    else:
        flat = _forward_separate(vlm, encoded, suffixes, keep)
    return spread(flat, keep)


def spread(flat: Tensor, keep: list[list[list[int]]]) -> Tensor:
    """(all kept positions, V), row by row, to (B, D, K, V) with zeros where a row is shorter."""
    questions = max(len(row) for row in keep)
    width = max(len(positions) for row in keep for positions in row)
    where = [
        (b, d, k)
        for b, row in enumerate(keep)
        for d, positions in enumerate(row)
        for k in range(len(positions))
    ]
    out = flat.new_zeros(len(keep), questions, width, flat.shape[-1])
    return out.index_put(tuple(torch.tensor(where, device=flat.device).T), flat)


@dataclass(frozen=True)
class Packed:
    """B prefixes with their suffixes as one sequence each, of L tokens."""

    tokens: Tensor  # (B, L)
    mask: Tensor  # (B, 1, L, seen tokens), True where attention may look
    positions: Tensor  # (3, B, L) multimodal rotary positions
    kept: Tensor  # (B, L), True where logits are wanted

    def after(self, start: int) -> Packed:
        """Only the tokens from `start` on; those before are seen through a key-value cache."""
        return Packed(
            tokens=self.tokens[:, start:],
            mask=self.mask[:, :, start:],
            positions=self.positions[..., start:],
            kept=self.kept[:, start:],
        )


def pack(
    vlm: RewardVLM,
    grid: Tensor,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Packed:
    """Lay out rows of suffixes behind the prefix of images with this grid_thw (2 or 3, 3)."""
    prefix, start = prefix_positions(vlm, grid)
    length = len(prefix) + max(sum(len(ids) for ids in row) for row in suffixes)
    filler = suffixes[0][0][0]
    device = vlm.device
    kept = torch.zeros(len(suffixes), length, dtype=torch.bool, device=device)
    tokens, segments, positions = [], [], []
    for b, (row, wanted) in enumerate(zip(suffixes, keep, strict=True)):
        ids, segment = list(prefix), [PREFIX] * len(prefix)
        text: list[int] = []
        for number, (suffix, places) in enumerate(zip(row, wanted, strict=True), start=1):
            kept[b, [len(ids) + place for place in places]] = True
            ids += suffix
            segment += [number] * len(suffix)
            text += range(len(suffix))
        padding = length - len(ids)
        tokens.append(ids + [filler] * padding)
        segments.append(segment + [PADDING] * padding)
        positions.append(text + [0] * padding)
    segment_of = torch.tensor(segments, device=device)  # (B, L)
    seen, own = segment_of[:, None, :], segment_of[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    mask = (causal & ((seen == PREFIX) | (seen == own)))[:, None]  # (B, 1, L, L)
    behind = torch.tensor(positions, device=device) + int(start.max()) + 1  # (B, L - P)
    position_ids = torch.cat(
        [start.expand(-1, len(tokens), -1), behind.expand(3, -1, -1)], -1
    )  # (3, B, L)
    return Packed(torch.tensor(tokens, device=device), mask, position_ids, kept)


def forward_packed(vlm: RewardVLM, encoded: Encoded, packed: Packed, past: Any = None) -> Tensor:
    """Logits (all kept positions, V), row by row; `past` is a key-value cache of earlier tokens."""
    mask = packed.mask
    if vlm.core.config.get_text_config()._attn_implementation == "eager":
        # Eager attention adds its mask to the scores; a boolean would be added as 0 and 1.
        lowest = torch.finfo(vlm.dtype).min
        mask = torch.zeros_like(mask, dtype=vlm.dtype).masked_fill(~mask, lowest)
    return _call(vlm, encoded, packed.tokens, mask, packed.positions, packed.kept, past)


def _forward_separate(
    vlm: RewardVLM,
    encoded: Encoded,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Tensor:
    each = pictures_shown(vlm)
    prefix, start = prefix_positions(vlm, encoded.grid[:each])
    flat = [ids for row in suffixes for ids in row]
    longest = max(len(ids) for ids in flat)
    filler = flat[0][0]
    device = vlm.device
    tokens = torch.tensor(
        [prefix + ids + [filler] * (longest - len(ids)) for ids in flat], device=device
    )
    lengths = torch.tensor([len(prefix) + len(ids) for ids in flat], device=device)
    mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    behind = torch.arange(longest, device=device) + int(start.max()) + 1
    position_ids = torch.cat([start, behind.expand(3, 1, -1)], -1).expand(-1, len(flat), -1)
    kept = torch.zeros_like(mask)
    for number, places in enumerate(places for row in keep for places in row):
        kept[number, [len(prefix) + place for place in places]] = True
    repeated = [
        index
        for b, row in enumerate(suffixes)
        for _ in row
        for index in range(each * b, each * (b + 1))
    ]
    return _call(vlm, encoded.pick(repeated), tokens, mask.long(), position_ids, kept)


def prefix_positions(vlm: RewardVLM, grid: Tensor) -> tuple[list[int], Tensor]:
    """Prefix tokens and their multimodal rotary positions (3, 1, P), by the model's own rule."""
    ids = prefix_ids(vlm, grid)
    tokens = torch.tensor([ids], device=vlm.device)
    types = (tokens == vlm.core.config.image_token_id).int()
    positions, _ = vlm.core.model.get_rope_index(
        tokens, mm_token_type_ids=types, image_grid_thw=grid
    )
    return ids, positions


def _call(
    vlm: RewardVLM,
    encoded: Encoded,
    tokens: Tensor,
    mask: Tensor,
    position_ids: Tensor,
    kept: Tensor,
    past: Any = None,
) -> Tensor:
    output = vlm.model(
        input_ids=tokens,
        position_ids=position_ids,
        attention_mask=mask,
        past_key_values=past,
        mm_encoder_outputs={"image": encoded.output()},
        use_cache=False,
        # Only these positions go through the vocabulary's matrix: (number of True, V).
        logits_to_keep=kept,
    )
    logits: Tensor = output.logits
    return logits
