from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from modeling.policy.references import Key, References


def _maker(log: list[list[int]], value: float) -> Callable[[list[int]], Tensor]:
    def make(indices: list[int]) -> Tensor:
        log.append(indices)
        return (
            torch.full((len(indices), 3, 2, 2), value)
            + torch.arange(len(indices)).view(-1, 1, 1, 1) * 0.1
        )

    return make


A: Key = ("a", 0)
B: Key = ("b", 0)
C: Key = ("c/with space", 1)


def test_it_makes_each_frozen_reference_once(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=None), list[list[int]]()
    first, made = references.get(1, [A, B, A], _maker(log, 0.2))
    assert made == 2
    assert (255 * first[:, 0, 0, 0]).round().tolist() == [51, 76, 51]
    again, made = references.get(900, [B, C], _maker(log, 0.6))
    assert made == 1
    assert log == [[0, 1], [1]]
    assert torch.equal(again[0], first[1])


def test_it_finds_them_again_after_a_restart(tmp_path: Path) -> None:
    log: list[list[int]] = []
    first, _ = References(tmp_path, staleness=None).get(1, [A, C], _maker(log, 0.2))
    (tmp_path / "rank-0-step-00000002.4711").write_bytes(b"half a file")
    second, made = References(tmp_path, staleness=None).get(2, [C, A], _maker(log, 0.9))
    assert made == 0
    assert torch.equal(second, first.flip(0))


def test_it_does_not_see_what_a_later_step_of_an_earlier_attempt_made(tmp_path: Path) -> None:
    """Steps 1 and 6 of an attempt that was killed; the restart repeats step 5 and then 6."""
    first = References(tmp_path, staleness=2, keep_steps=10)
    first.get(4, [A], _maker([], 0.2))
    first.get(7, [A], _maker([], 0.7))
    again, log = References(tmp_path, staleness=2, keep_steps=10), list[list[int]]()
    images, made = again.get(5, [A], _maker(log, 0.9))
    assert made == 0
    assert round(float(images[0, 0, 0, 0]), 2) == 0.2
    images, made = again.get(7, [A], _maker(log, 0.9))
    assert made == 0
    assert round(float(images[0, 0, 0, 0]), 2) == 0.7


def test_it_makes_a_stale_reference_again_and_forgets_the_old_file(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=3, keep_steps=2), list[list[int]]()
    references.get(1, [A], _maker(log, 0.2))
    _, made = references.get(4, [A], _maker(log, 0.4))
    assert made == 0
    _, made = references.get(5, [A], _maker(log, 0.6))
    assert made == 1
    references.get(9, [A], _maker(log, 0.8))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "rank-0-step-00000005.safetensors",
        "rank-0-step-00000009.safetensors",
    ]


def test_it_keeps_nothing_that_may_not_be_used_again(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=0), list[list[int]]()
    images, made = references.get(1, [A, B], _maker(log, 0.2))
    assert (made, len(images)) == (2, 2)
    assert references.get(2, [A], _maker(log, 0.3))[1] == 1
    assert list(tmp_path.iterdir()) == []
