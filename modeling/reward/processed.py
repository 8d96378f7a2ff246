"""Ask a model of any family through its own processor, one question at a time.

For models whose patches are not known here: they can be trained on labels, evaluated and used for
ranking, by transformers' official path from picture to answer. Pictures are rounded to 8 bits on
the way and no gradient reaches their pixels, so that such a model cannot reward a policy by
gradient, and every question is a forward of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modeling.reward.template import messages
from modeling.reward.vlm import FAMILIES, RewardVLM


def processed_logits(
    vlm: RewardVLM, images: Tensor, shown: Sequence[tuple[int, ...]], queries: list[list[str]]
) -> Tensor:
    """`scoring.answer_logits` without sharing anything between questions: (B, D, V)."""
    if images.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{type(vlm.core).__name__} reads pictures through its own processor, which passes no "
            "gradient to their pixels: it can learn from labels and rank, but not train a policy "
            f"by gradient. Take a reward model of the families {FAMILIES} for that."
        )
    pictures = (images * 255).round().clamp(0, 255).byte().cpu()
    rows = []
    for indices, row in zip(shown, queries, strict=True):
        chosen = [pictures[index].permute(1, 2, 0).numpy() for index in indices]
        rows.append(torch.stack([_logits(vlm, chosen, query) for query in row]))
    width = max(len(row) for row in rows)
    return torch.stack(
        [torch.cat([row, row.new_zeros(width - len(row), row.shape[-1])]) for row in rows]
    )


def _logits(vlm: RewardVLM, pictures: list, query: str) -> Tensor:
    """Logits (V,) of the answer's token."""
    text = vlm.processor.apply_chat_template(
        messages(vlm, query), add_generation_prompt=True, tokenize=False
    )
    # The template writes the special tokens, the start of the text included.
    inputs = vlm.processor(
        images=pictures, text=text, add_special_tokens=False, return_tensors="pt"
    ).to(vlm.device, vlm.dtype)
    logits: Tensor = vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1]
