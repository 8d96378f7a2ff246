"""The measuring itself, at a tiny size: how fast it was is for `make bench` to say."""

from __future__ import annotations

from typing import Any

import torch

from modeling.reward.bench import (
    SIDE,
    bench_vlm,
    interleaved,
    prefix_speedups,
    questions,
    reference_first_speedups,
)
from modeling.reward.preprocess import to_patches
from modeling.reward.template import prefix_ids, suffix_ids


def test_it_measures_every_ratio() -> None:
    vlm = bench_vlm(hidden=64, layers=1)
    sizes: dict[str, Any] = {"side": 64, "repeats": 1}
    found = prefix_speedups((1, 2), vlm=vlm, **sizes)
    found |= prefix_speedups((2,), backward=True, vlm=vlm, **sizes)
    found |= reference_first_speedups((2,), vlm=vlm, **sizes)
    assert list(found) == [
        "prefix_speedup_d1",
        "prefix_speedup_d2",
        "prefix_speedup_d2_backward",
        "reference_first_speedup_d2_backward",
    ]
    assert all(0.1 < value < 50 for value in found.values())


def test_the_prefix_dominates_its_questions() -> None:
    """Two pictures of 256 tokens: the size that the limits of `make bench` speak of."""
    vlm = bench_vlm(hidden=64, layers=1)
    _, grid = to_patches(torch.zeros(2, 3, SIDE, SIDE), vlm.patches)
    prefix = len(prefix_ids(vlm, grid))
    lengths = [len(suffix_ids(vlm, query)) for query in questions(8)]
    assert 512 < prefix < 560
    assert max(lengths) < 0.06 * prefix


def test_times_are_taken_in_turns() -> None:
    seen: list[str] = []
    interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=2)
    assert seen == ["a", "b"] * 3
