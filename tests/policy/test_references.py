import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling.policy.references import Key, References, Served


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
D: Key = ("d", 2)


def test_it_makes_each_frozen_reference_once(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=None), list[list[int]]()
    first = references.get(1, [A, B, A], _maker(log, 0.2))
    assert first.made == 2
    assert (255 * first.images[:, 0, 0, 0]).round().tolist() == [51, 76, 51]
    again = references.get(900, [B, C], _maker(log, 0.6))
    assert again.made == 1
    assert again.ages == [899, 0]
    assert log == [[0, 1], [1]]
    assert torch.equal(again.images[0], first.images[1])


def test_it_finds_them_again_after_a_restart(tmp_path: Path) -> None:
    log: list[list[int]] = []
    first = References(tmp_path, staleness=None).get(1, [A, C], _maker(log, 0.2))
    (tmp_path / "step-00000002-rank-0-of-1.4711").write_bytes(b"half a file")
    second = References(tmp_path, staleness=None).get(2, [C, A], _maker(log, 0.9))
    assert second.made == 0
    assert torch.equal(second.images, first.images.flip(0))


def test_it_makes_again_what_a_damaged_file_held(tmp_path: Path) -> None:
    first = References(tmp_path, staleness=None).get(1, [A], _maker([], 0.2))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    second = References(tmp_path, staleness=None).get(1, [A], _maker([], 0.2))
    assert second.made == 1
    assert torch.equal(second.images, first.images)


def test_it_does_not_see_what_a_later_step_of_an_earlier_attempt_made(tmp_path: Path) -> None:
    """Steps 1 and 6 of an attempt that was killed; the restart repeats step 5 and then 6."""
    first = References(tmp_path, staleness=2, keep_steps=10)
    first.get(4, [A], _maker([], 0.2))
    first.get(7, [A], _maker([], 0.7))
    again, log = References(tmp_path, staleness=2, keep_steps=10), list[list[int]]()
    served = again.get(5, [A], _maker(log, 0.9))
    assert (served.made, served.ages) == (0, [1])
    assert round(float(served.images[0, 0, 0, 0]), 2) == 0.2
    served = again.get(7, [A], _maker(log, 0.9))
    assert (served.made, served.ages) == (0, [0])
    assert round(float(served.images[0, 0, 0, 0]), 2) == 0.7


def test_it_makes_a_stale_reference_again_and_forgets_the_old_file(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=3, keep_steps=2), list[list[int]]()
    references.get(1, [A], _maker(log, 0.2))
    served = references.get(4, [A, A], _maker(log, 0.4))
    assert (served.made, served.ages) == (0, [3, 3])
    served = references.get(5, [A], _maker(log, 0.6))
    assert (served.made, served.ages) == (1, [0])
    references.get(9, [A], _maker(log, 0.8))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-00000005-rank-0-of-1.safetensors",
        "step-00000009-rank-0-of-1.safetensors",
    ]


def test_it_keeps_nothing_that_may_not_be_used_again(tmp_path: Path) -> None:
    references, log = References(tmp_path, staleness=0), list[list[int]]()
    served = references.get(1, [A, B], _maker(log, 0.2))
    assert (served.made, len(served.images)) == (2, 2)
    assert references.get(2, [A], _maker(log, 0.3)).made == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("staleness", [None, 2])
def test_two_processes_share_what_each_of_them_makes(tmp_path: Path, staleness: int | None) -> None:
    """Key by key as one process would: made where it is first needed, used by both."""
    barrier = threading.Barrier(2, timeout=5)
    keys = {1: [A, B, A, C], 2: [C, A, D, B], 5: [A, A, B, A]}
    alone, log = References(tmp_path / "one", staleness=staleness), list[list[int]]()
    whole = {step: alone.get(step, every, _by_step(step, log)) for step, every in keys.items()}

    def work(rank: int) -> dict[int, Served]:
        store = References(
            tmp_path / "two", staleness=staleness, process=(rank, 2), wait=barrier.wait
        )
        barrier.wait()
        mine = slice(2 * rank, 2 * rank + 2)
        return {
            step: store.get(step, every, _by_step(step, logs[rank]), mine)
            for step, every in keys.items()
        }

    logs: list[list[list[int]]] = [[], []]
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(work, range(2)))
    assert logs[0][:1] == [[0, 1]]
    assert logs[1][:2] == [[3], [2]]
    for step, served in whole.items():
        assert torch.equal(torch.cat([half[step].images for half in halves]), served.images)
        assert [half[step].made for half in halves] == [served.made] * 2
        assert [half[step].ages for half in halves] == [served.ages] * 2


def _by_step(step: int, log: list[list[int]]) -> Callable[[list[int]], Tensor]:
    def make(indices: list[int]) -> Tensor:
        log.append(indices)
        return torch.stack([torch.full((3, 2, 2), (10 * step + i) / 255) for i in indices])

    return make
