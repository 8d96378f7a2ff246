"""The counter of living tensors, against sums by hand."""

import torch
from torch import nn

from modeling.policy.live_bytes import LiveBytes, peak_bytes

KB = 1024


def test_it_counts_what_is_alive_at_once() -> None:
    def work() -> None:
        first = torch.ones(256)  # 1 KB
        second = first + 1  # 2 KB
        del first
        third = torch.cat([second, second])  # 1 KB + 2 KB
        del second, third

    assert peak_bytes(work) == 3 * KB


def test_views_and_repeated_sight_count_once() -> None:
    def work() -> None:
        whole = torch.ones(4, 64)
        for row in range(4):
            _ = whole[row].view(8, 8)

    assert peak_bytes(work) == KB


def test_what_was_there_before_counts_once_and_is_left_alone() -> None:
    weight = torch.ones(512)
    counter = LiveBytes([weight, weight[:3]])
    assert counter.now == 2 * KB
    with counter:
        other = weight * 2
        assert counter.now == 4 * KB
        del other
    assert counter.now == 2 * KB
    assert counter.peak == 4 * KB


def test_it_sees_activations_that_wait_for_the_backward_and_gradients() -> None:
    """Four squares keep their inputs; the start's gradient has the start's size."""
    start = torch.ones(256, requires_grad=True)

    def forward() -> torch.Tensor:
        value = start
        for _ in range(4):
            value = value * value
        return value.sum()

    def kept() -> None:
        loss = forward()
        # The squares' inputs: start and three results. The fourth is not needed any more.
        assert counter.now == 4 * KB + 4
        loss.backward()

    counter = LiveBytes([start])
    with counter:
        kept()
    assert start.grad is not None
    assert counter.now <= 3 * KB  # start and its gradient
    with torch.no_grad():
        assert peak_bytes(forward, [start]) < counter.peak


def test_it_counts_an_optimisers_state() -> None:
    layer = nn.Linear(16, 16, bias=False)  # 1 KB
    optimizer = torch.optim.AdamW(layer.parameters())

    def step() -> None:
        layer(torch.ones(1, 16)).sum().backward()
        optimizer.step()

    counter = LiveBytes(layer.parameters())
    with counter:
        step()
    assert 4 * KB <= counter.now <= 4 * KB + 16  # weight, gradient, two moments, a step count
