"""Score pairs of images: margin = log P(Yes | first, second, q) - log P(No | first, second, q).

D questions about one pair share everything up to the images' end. Written images first, question
last, that is one prefix and D suffixes, packed into one sequence:

    [prefix with both images][suffix 1][suffix 2] ... [suffix D]

A suffix token sees the prefix and its own suffix up to itself (4-D mask), and takes the rotary
position it would have right behind the prefix. So the logits equal those of D separate forwards,
for about a third of the compute at D = 4 (OneReward scores each dimension separately).

A model whose attention cannot take such a mask (flash or flex kernels, sliding windows) is asked
with D separate sequences instead: the same numbers, without the saving.

Shapes: B pairs, D questions a pair (may differ between pairs), S tokens of a suffix, P of the
prefix, L = P + all suffixes, T tokens of an image, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling.reward.preprocess import to_patches
from modeling.reward.vision import attention_arguments
from modeling.reward.vlm import RewardVLM

PADDING = -1
PREFIX = 0


def margins(vlm: RewardVLM, first: Tensor, second: Tensor, queries: list[list[str]]) -> Tensor:
    """Logit margins that the first image is the better one; differentiable in both images.

    Args:
        first, second: (B, 3, H, W) reward views in [0, 1], all of one size.
        queries: D rendered queries for each pair; rows may differ in length.

    Returns:
        (B, D) float32 or wider, divided by the model's temperature, so that P(first is better) =
        sigmoid(margin). Missing entries of shorter rows are 0.
    """
    images = _interleave(first, second)
    pairs = [(2 * b, 2 * b + 1) for b in range(len(queries))]
    if 2 * len(pairs) != len(images):
        raise ValueError(f"{len(images)} images are two a pair for {len(queries)} rows of queries.")
    return margins_of(vlm, answer_logits(vlm, images, pairs, queries))


def margins_of(vlm: RewardVLM, logits: Tensor) -> Tensor:
    """Calibrated margins (B, D) from answer logits (B, D, V)."""
    # The softmax's normaliser cancels in the difference of log-probabilities.
    wide = logits[..., [vlm.yes_id, vlm.no_id]]
    wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
    return (wide[..., 0] - wide[..., 1]) / vlm.temperature


def answer_logits(
    vlm: RewardVLM, images: Tensor, pairs: list[tuple[int, int]], queries: list[list[str]]
) -> Tensor:
    """Logits (B, D, V) of the answer's token for pairs (first, second) of indices into `images`.

    Each of the (N, 3, H, W) images goes through the vision tower once, in however many pairs and
    in whichever order it is shown.
    """
    suffixes = [[suffix_ids(vlm, query) for query in row] for row in queries]
    keep = [[[len(ids) - 1] for ids in row] for row in suffixes]
    encoded, grid = encode_images(vlm, images)
    order = [index for pair in pairs for index in pair]
    features: Any = encoded.pooler_output
    shown = BaseModelOutputWithPooling(pooler_output=[features[i] for i in order])  # type: ignore[arg-type]
    return _logits_at(vlm, shown, grid[order], suffixes, keep)[:, :, 0]


def packed_forward(
    vlm: RewardVLM, first: Tensor, second: Tensor, suffix_token_ids: list[list[list[int]]]
) -> Tensor:
    """Logits at every suffix token: (B, D, S, V), zero behind the end of shorter suffixes and rows.

    `suffix_token_ids` holds D token lists for each pair, e.g. from `suffix_ids`.
    """
    encoded, grid = encode_images(vlm, _interleave(first, second))
    return packed_logits(vlm, encoded, grid, suffix_token_ids)


def packed_logits(
    vlm: RewardVLM,
    encoded: BaseModelOutputWithPooling,
    grid: Tensor,
    suffix_token_ids: list[list[list[int]]],
) -> Tensor:
    """`packed_forward` from encoded images, in the order first, second, first, ..."""
    keep = [[list(range(len(ids))) for ids in row] for row in suffix_token_ids]
    return _logits_at(vlm, encoded, grid, suffix_token_ids, keep)


def encode_images(vlm: RewardVLM, images: Tensor) -> tuple[BaseModelOutputWithPooling, Tensor]:
    """Run the vision tower on (N, 3, H, W) images in [0, 1].

    Returns:
        the tower's output, whose `pooler_output` is a sequence of N tensors (T, hidden), and
        grid_thw (N, 3). To reuse stored tokens, build
        `BaseModelOutputWithPooling(pooler_output=list_of_tensors)`.
    """
    pixel_values, grid = to_patches(images.to(vlm.device), vlm.layout)
    output: BaseModelOutputWithPooling = vlm.core.get_image_features(
        pixel_values.to(vlm.dtype),
        grid,
        return_dict=True,
        **attention_arguments(vlm.core, grid),
    )
    if getattr(output, "deepstack_features", None) is not None:
        raise ValueError(
            f"{type(vlm.core).__name__} feeds pictures into several layers of its language model; "
            "models of the Qwen2-VL and Qwen2.5-VL families are supported."
        )
    return output, grid


def suffix_ids(vlm: RewardVLM, query: str) -> list[int]:
    """Tokens behind the images: the query, the end of the user's turn, the answer's start."""
    if query not in vlm.suffixes:
        vlm.suffixes[query] = _split(vlm, query)[1]
    return vlm.suffixes[query]


def prefix_ids(vlm: RewardVLM, grid: Tensor) -> list[int]:
    """Tokens up to the images' end, each placeholder repeated for every token of its image."""
    image_token = vlm.core.config.image_token_id
    counts = iter((grid.prod(-1) // vlm.layout.merge_size**2).tolist())
    ids: list[int] = []
    for token in _split(vlm, "")[0]:
        ids += [token] * next(counts) if token == image_token else [token]
    return ids


def _split(vlm: RewardVLM, query: str) -> tuple[list[int], list[int]]:
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": query}]
    text = vlm.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    ids: list[int] = vlm.tokenizer.encode(text, add_special_tokens=False)
    config = vlm.core.config
    if ids.count(config.image_token_id) != 2:
        raise ValueError(
            "The tokenizer's chat template must place one image token for each of the two images; "
            f"it gave {ids.count(config.image_token_id)}."
        )
    end = len(ids) - ids[::-1].index(config.image_token_id)
    if end < len(ids) and ids[end] == getattr(config, "vision_end_token_id", None):
        end += 1
    return ids[:end], ids[end:]


def _interleave(first: Tensor, second: Tensor) -> Tensor:
    if first.shape != second.shape:
        raise ValueError(
            f"The two images of a pair must share one size, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    return torch.stack([first, second], 1).flatten(0, 1)  # (2B, 3, H, W)


def can_pack(model: Any) -> bool:
    """Whether the language model's attention takes an arbitrary 4-D mask."""
    text = model.config.get_text_config()
    full = all(kind == "full_attention" for kind in getattr(text, "layer_types", None) or [])
    return full and text._attn_implementation in ("sdpa", "eager")


def _logits_at(
    vlm: RewardVLM,
    encoded: BaseModelOutputWithPooling,
    grid: Tensor,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Tensor:
    """Logits (B, D, K, V) at the positions `keep` of each suffix."""
    pairs = len(suffixes)
    if 2 * pairs != len(grid):
        raise ValueError(f"{len(grid)} images were given for {pairs} pairs; two a pair are needed.")
    if not torch.equal(grid, grid[:1].expand_as(grid)):
        raise ValueError("All images of one batch must have one size; batch them by size.")
    forward = _forward_packed if can_pack(vlm.core) else _forward_separate
    flat = forward(vlm, encoded, grid, suffixes, keep)  # (all kept positions, V), row by row
    questions = max(len(row) for row in keep)
    width = max(len(positions) for row in keep for positions in row)
    where = [
        (b, d, k)
        for b, row in enumerate(keep)
        for d, positions in enumerate(row)
        for k in range(len(positions))
    ]
    out = flat.new_zeros(pairs, questions, width, flat.shape[-1])
    return out.index_put(tuple(torch.tensor(where, device=flat.device).T), flat)


def _forward_packed(
    vlm: RewardVLM,
    encoded: BaseModelOutputWithPooling,
    grid: Tensor,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Tensor:
    prefix, start = _prefix(vlm, grid)
    length = len(prefix) + max(sum(len(ids) for ids in row) for row in suffixes)
    filler = suffixes[0][0][0]
    tokens, segments, positions, kept = [], [], [], []
    for row, wanted in zip(suffixes, keep, strict=True):
        ids, segment = list(prefix), [PREFIX] * len(prefix)
        text: list[int] = []
        at: list[int] = []
        for number, (suffix, places) in enumerate(zip(row, wanted, strict=True), start=1):
            at += [len(ids) + place for place in places]
            ids += suffix
            segment += [number] * len(suffix)
            text += range(len(suffix))
        padding = length - len(ids)
        tokens.append(ids + [filler] * padding)
        segments.append(segment + [PADDING] * padding)
        positions.append(text + [0] * padding)
        kept.append(at)
    device = vlm.device
    segment_of = torch.tensor(segments, device=device)  # (B, L)
    seen, own = segment_of[:, None, :], segment_of[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    mask = (causal & ((seen == PREFIX) | (seen == own)))[:, None]  # (B, 1, L, L)
    behind = torch.tensor(positions, device=device) + int(start.max()) + 1  # (B, L - P)
    position_ids = torch.cat(
        [start.expand(-1, len(tokens), -1), behind.expand(3, -1, -1)], -1
    )  # (3, B, L)
    return _call(vlm, encoded, torch.tensor(tokens, device=device), mask, position_ids, kept)


def _forward_separate(
    vlm: RewardVLM,
    encoded: BaseModelOutputWithPooling,
    grid: Tensor,
    suffixes: list[list[list[int]]],
    keep: list[list[list[int]]],
) -> Tensor:
    prefix, start = _prefix(vlm, grid)
    flat = [ids for row in suffixes for ids in row]
    kept = [[len(prefix) + place for place in places] for row in keep for places in row]
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
    features: Any = encoded.pooler_output
    repeated = [
        feature
        for b, row in enumerate(suffixes)
        for _ in row
        for feature in (features[2 * b], features[2 * b + 1])
    ]
    output = BaseModelOutputWithPooling(pooler_output=repeated)  # type: ignore[arg-type]
    return _call(vlm, output, tokens, mask.long(), position_ids, kept)


def _prefix(vlm: RewardVLM, grid: Tensor) -> tuple[list[int], Tensor]:
    """Prefix tokens and their multimodal rotary positions (3, 1, P), by the model's own rule."""
    ids = prefix_ids(vlm, grid[:2])
    tokens = torch.tensor([ids], device=vlm.device)
    types = (tokens == vlm.core.config.image_token_id).int()
    positions, _ = vlm.core.model.get_rope_index(
        tokens, mm_token_type_ids=types, image_grid_thw=grid[:2]
    )
    return ids, positions


def _call(
    vlm: RewardVLM,
    encoded: BaseModelOutputWithPooling,
    tokens: Tensor,
    mask: Tensor,
    position_ids: Tensor,
    kept: list[list[int]],
) -> Tensor:
    attention: Any = mask
    if mask.ndim == 4:
        if vlm.core.config.get_text_config()._attn_implementation == "eager":
            # Eager attention adds its mask to the scores; a boolean would be added as 0 and 1.
            lowest = torch.finfo(vlm.dtype).min
            mask = torch.zeros_like(mask, dtype=vlm.dtype).masked_fill(~mask, lowest)
        attention = {"full_attention": mask}
    wanted = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
    for row, places in enumerate(kept):
        wanted[row, places] = True
    output = vlm.model(
        input_ids=tokens,
        position_ids=position_ids,
        attention_mask=attention,
        mm_encoder_outputs={"image": encoded},
        use_cache=False,
        # Only these positions go through the vocabulary's matrix: (number of True, V).
        logits_to_keep=wanted,
    )
    logits: Tensor = output.logits
    return logits
