"""What sharing the prefix saves, as ratios within one run.

    python -m modeling.reward.bench [--device cuda --dtype bfloat16]

A Qwen2.5-VL of random weights scores pairs of pictures of 256 tokens each with short questions, so
that the prefix dominates, as it does for a 7B model at 512 x 512. Literal OneReward runs the whole
model, vision tower included, once per dimension; the packed form once per pair. Times are taken in
turns and the shortest of each counts: a busy neighbour only ever adds.

Shapes: B pairs, D questions.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from modeling.reward.prefix import encode_reference, margins_after
from modeling.reward.preprocess import VisionLayout
from modeling.reward.query import render_query
from modeling.reward.scoring import margins
from modeling.reward.view_config import ViewConfig
from modeling.reward.vision import batch_equal_images
from modeling.reward.vlm import RewardVLM, answer_ids

# Only its tokenizer, chat template and patch sizes are used.
STARTER = Path(__file__).parent.parent / "starter" / "weights" / "reward"
SIDE = 256  # pixels; 16 x 16 tokens of 2 x 2 patches of 8 x 8 pixels
QUALITIES = ("better", "cleaner", "sharper", "truer", "brighter", "softer", "calmer", "finer")


def bench_vlm(
    *, hidden: int = 256, layers: int = 4, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> RewardVLM:
    """A random Qwen2.5-VL, `layers` deep in both towers, frozen as in a policy training."""
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(STARTER, trust_remote_code=False)
    base: Any = AutoConfig.from_pretrained(STARTER, trust_remote_code=False)
    text, vision = base.text_config.to_dict(), base.vision_config.to_dict()
    text |= {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": max(1, hidden // 256),
        "layer_types": ["full_attention"] * layers,
        "rope_parameters": {**text["rope_parameters"], "mrope_section": [8, 12, 12]},
    }
    vision |= {
        "hidden_size": hidden // 2,
        "intermediate_size": 2 * hidden,
        "num_heads": hidden // 64,
        "depth": layers,
        "fullatt_block_indexes": list(range(layers)),
        "out_hidden_size": hidden,
    }
    config = type(base)(**{**base.to_dict(), "text_config": text, "vision_config": vision})
    model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.requires_grad_(False)
    batch_equal_images(model)
    layout = VisionLayout.from_processor(
        AutoImageProcessor.from_pretrained(STARTER, trust_remote_code=False)
    )
    yes_id, no_id = answer_ids(tokenizer)
    return RewardVLM(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        layout=replace(layout, max_pixels=2**24),
        view=ViewConfig(),
        temperature=1.0,
        yes_id=yes_id,
        no_id=no_id,
    )


def prefix_speedups(
    dimensions: Sequence[int] = (1, 2, 4, 8),
    *,
    backward: bool = False,
    vlm: RewardVLM | None = None,
    pairs: int = 1,
    side: int = SIDE,
    repeats: int = 5,
) -> dict[str, float]:
    """Time of D separate forwards over that of the packed one, for each D.

    Args:
        backward: also take the gradient to the first image's pixels.
        pairs: B, pairs of pictures scored at once.

    Returns:
        {"prefix_speedup_d4": ratio, ...}, with "_backward" at the end where it was timed.
    """
    vlm = vlm or bench_vlm()
    first, second = _pictures(pairs, side)

    def ask(row: list[str]) -> Callable[[Tensor], Tensor]:
        return lambda image: margins(vlm, image, second, [row] * pairs)

    found = {}
    for count in dimensions:
        row = questions(count)

        def packed(row: list[str] = row) -> None:
            _score(ask(row), first, backward)

        def separate(row: list[str] = row) -> None:
            for query in row:
                _score(ask([query]), first, backward)

        runs = {"packed": packed, "separate": separate}
        times = interleaved(runs, repeats, vlm.device)
        key = f"prefix_speedup_d{count}" + ("_backward" if backward else "")
        found[key] = times["separate"] / times["packed"]
    return found


def reference_first_speedups(
    dimensions: Sequence[int] = (1, 4),
    *,
    vlm: RewardVLM | None = None,
    pairs: int = 1,
    side: int = SIDE,
    repeats: int = 5,
) -> dict[str, float]:
    """Time of packed scoring and its backward over the same with the reference's prefix cached.

    Returns:
        {"reference_first_speedup_d4_backward": ratio, ...}.
    """
    vlm = vlm or bench_vlm()
    images, references = _pictures(pairs, side)
    prefixes = [encode_reference(vlm, reference) for reference in references]
    found = {}
    for count in dimensions:
        rows = [questions(count)] * pairs

        def plain(image: Tensor, rows: list[list[str]] = rows) -> Tensor:
            return margins(vlm, references, image, rows)

        def cached(image: Tensor, rows: list[list[str]] = rows) -> Tensor:
            return margins_after(vlm, prefixes, image, rows)

        runs = {
            "plain": lambda plain=plain: _score(plain, images, True),
            "cached": lambda cached=cached: _score(cached, images, True),
        }
        times = interleaved(runs, repeats, vlm.device)
        found[f"reference_first_speedup_d{count}_backward"] = times["plain"] / times["cached"]
    return found


def interleaved(
    runs: Mapping[str, Callable[[], None]], repeats: int, device: str | torch.device = "cpu"
) -> dict[str, float]:
    """Shortest seconds of each, taken in turns after one unmeasured turn."""
    seconds = dict.fromkeys(runs, math.inf)
    for turn in range(repeats + 1):
        for name, run in runs.items():
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _pictures(pairs: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, pairs, 3, side, side, generator=generator)


def questions(count: int) -> list[str]:
    return [
        render_query(task="image fill", question=f"Is the first image {quality}?", prompt=None)
        for quality in QUALITIES[:count]
    ]


def _score(ask: Callable[[Tensor], Tensor], image: Tensor, backward: bool) -> None:
    if not backward:
        with torch.no_grad():
            ask(image)
        return
    pixels = image.clone().requires_grad_(True)
    torch.autograd.grad(ask(pixels).sum(), pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description="What sharing the prefix saves.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    vlm = bench_vlm(device=given.device, dtype=getattr(torch, given.dtype))
    sizes: dict[str, Any] = {"vlm": vlm, "pairs": given.pairs, "repeats": given.repeats}
    found = prefix_speedups(**sizes)
    found |= prefix_speedups(backward=True, **sizes)
    found |= reference_first_speedups(**sizes)
    print(json.dumps({key: round(value, 2) for key, value in found.items()}, indent=1))


if __name__ == "__main__":
    main()
