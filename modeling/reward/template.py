"""The tokens around the images: what stands before each of them and what follows the last.

The checkpoint's own chat template is asked for one user turn with the images first and the query
last. Where the view shows a third picture (`ViewConfig.context`), it stands before the two that are
compared, with a sentence that says so: a causal model then knows the place of the edit when it
reads the candidates, and everything up to the reference's end stays the same in every step.

Shapes: P tokens of the prefix, S of a suffix.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modeling.reward.vlm import RewardVLM

CONTEXT = "This is the source; a red line marks the edited area. The first and the second image:"


def pictures_shown(vlm: RewardVLM) -> int:
    """Images of one question: the two that are compared, and the context where the view has one."""
    return 3 if vlm.view.context else 2


def suffix_ids(vlm: RewardVLM, query: str) -> list[int]:
    """Tokens behind the images: the query, the end of the user's turn, the answer's start."""
    key = (pictures_shown(vlm), query)
    if key not in vlm.suffixes:
        vlm.suffixes[key] = _split(vlm, query)[1]
    return vlm.suffixes[key]


def prefix_ids(vlm: RewardVLM, grid: Tensor) -> list[int]:
    """Tokens up to the last image's end, each placeholder repeated for every token of its image.

    Args:
        grid: grid_thw of the images in the order shown, (2 or 3, 3).
    """
    counts = iter((grid.prod(-1) // vlm.patches.merge_size**2).tolist())
    image = vlm.core.config.image_token_id
    ids: list[int] = []
    for token in _split(vlm, "")[0]:
        ids += [token] * next(counts) if token == image else [token]
    return ids


def head_length(vlm: RewardVLM, prefix: list[int]) -> int:
    """Tokens of the prefix up to the end of the first of the two compared images."""
    config = vlm.core.config
    starts = [
        place
        for place, token in enumerate(prefix)
        if token == config.image_token_id and (place == 0 or prefix[place - 1] != token)
    ]
    end = starts[-2]
    while prefix[end] == config.image_token_id:
        end += 1
    return end + (prefix[end] == _closing(vlm))


def messages(vlm: RewardVLM, query: str) -> list[dict[str, Any]]:
    """The user's turn in the form that chat templates take."""
    shown = pictures_shown(vlm)
    content = [{"type": "image"}] * shown + [{"type": "text", "text": query}]
    if shown == 3:
        content.insert(1, {"type": "text", "text": CONTEXT})
    return [{"role": "user", "content": content}]


def _split(vlm: RewardVLM, query: str) -> tuple[list[int], list[int]]:
    shown = pictures_shown(vlm)
    text = vlm.tokenizer.apply_chat_template(
        messages(vlm, query), add_generation_prompt=True, tokenize=False
    )
    ids: list[int] = vlm.tokenizer.encode(text, add_special_tokens=False)
    image = vlm.core.config.image_token_id
    if ids.count(image) != shown:
        raise ValueError(
            f"The tokenizer's chat template must place one image token for each of the {shown} "
            f"images; it gave {ids.count(image)}."
        )
    end = len(ids) - ids[::-1].index(image)
    if end < len(ids) and ids[end] == _closing(vlm):
        end += 1
    return ids[:end], ids[end:]


def _closing(vlm: RewardVLM) -> int | None:
    found: int | None = getattr(vlm.core.config, "vision_end_token_id", None)
    return found
