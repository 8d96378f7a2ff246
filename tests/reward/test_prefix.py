from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from modeling.reward.prefix import (
    PrefixStore,
    ReferencePrefix,
    encode_reference,
    margins_after,
    order_bias,
)
from modeling.reward.scoring import BothOrders, both_orders, margins
from modeling.reward.vlm import RewardVLM, attach_lora, load_reward_vlm
from tests.reward.test_scoring import QUERIES, pictures
from tests.reward.tiny import save_tiny

# One question more in the second row, of other lengths.
RAGGED = [QUERIES[0][:2], QUERIES[1]]


def with_context(vlm: RewardVLM, context: float) -> RewardVLM:
    vlm.view = dataclasses.replace(vlm.view, context=context)
    return vlm


@pytest.mark.parametrize("context", [0.0, 2.0])
def test_it_equals_the_plain_order_in_value_and_in_gradient(vlm: RewardVLM, context: float) -> None:
    with_context(vlm, context)
    reference, policy = pictures(0), pictures(1).requires_grad_()
    before = pictures(2) if context else None
    plain = margins(vlm, reference, policy, RAGGED, before)
    (expected,) = torch.autograd.grad(plain.sin().sum(), policy)

    prefixes = [
        encode_reference(vlm, reference[b], None if before is None else before[b]) for b in range(2)
    ]
    asked = margins_after(vlm, prefixes, policy, RAGGED)
    (grad,) = torch.autograd.grad(asked.sin().sum(), policy)
    torch.testing.assert_close(asked, plain, atol=1e-9, rtol=0)
    torch.testing.assert_close(grad, expected, atol=1e-9, rtol=0)
    assert expected.abs().max() > 1e-3


def test_it_equals_the_plain_order_with_a_lora_and_pictures_that_are_not_square(
    tiny_dir: Path,
) -> None:
    vlm = load_reward_vlm(tiny_dir, dtype=torch.float64)
    torch.manual_seed(0)
    vlm.model = attach_lora(vlm.model, rank=2, alpha=4, dropout=0, vision=True).double().eval()
    for name, weight in vlm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    reference, policy = pictures(0)[:, :, :48], pictures(1)[:, :, :48]
    with torch.no_grad():
        plain = margins(vlm, reference, policy, QUERIES)
        prefixes = [encode_reference(vlm, image) for image in reference]
        asked = margins_after(vlm, prefixes, policy, QUERIES)
    torch.testing.assert_close(asked, plain, atol=1e-9, rtol=0)


def test_it_equals_the_plain_order_with_eager_attention(vlm: RewardVLM) -> None:
    vlm.model.set_attn_implementation("eager")
    reference, policy = pictures(0), pictures(1)
    with torch.no_grad():
        plain = margins(vlm, reference, policy, QUERIES)
        prefixes = [encode_reference(vlm, image) for image in reference]
        asked = margins_after(vlm, prefixes, policy, QUERIES)
    torch.testing.assert_close(asked, plain, atol=1e-7, rtol=0)


def test_it_makes_each_prefix_from_its_reference_alone(vlm: RewardVLM) -> None:
    """A prefix made again after a restart has the same bits, whatever was in its batch."""
    one = encode_reference(vlm, pictures(0)[0])
    again = encode_reference(vlm, pictures(0)[0])
    assert torch.equal(one.keys, again.keys)
    assert torch.equal(one.values, again.values)
    assert not one.keys.requires_grad
    other = encode_reference(vlm, pictures(0)[1])
    assert not torch.equal(one.values, other.values)


def test_it_refuses_what_it_cannot_score(vlm: RewardVLM, tmp_path: Path) -> None:
    prefix = encode_reference(vlm, pictures(0)[0])
    with pytest.raises(ValueError, match="must share one size"):
        margins_after(vlm, [prefix], pictures(1, size=48)[:1], QUERIES[:1])
    with pytest.raises(ValueError, match="as many as each other"):
        margins_after(vlm, [prefix], pictures(1), QUERIES)
    with pytest.raises(ValueError, match="holds 1 images, but 2 were given"):
        encode_reference(vlm, pictures(0)[0], pictures(0)[1])
    with pytest.raises(ValueError, match="reads 3 images a question, but was given 2"):
        margins(with_context(vlm, 2.0), pictures(0), pictures(1), QUERIES)
    sliding = save_tiny(tmp_path, use_sliding_window=True, sliding_window=64, max_window_layers=0)
    with pytest.raises(ValueError, match="sliding windows"):
        encode_reference(load_reward_vlm(sliding), pictures(0)[0].float())


def test_it_refuses_gradient_checkpointing_in_training_mode(tiny_dir: Path) -> None:
    """transformers would drop the keys and values without an error."""
    vlm = load_reward_vlm(tiny_dir, trainable=True)
    vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    encode_reference(vlm, pictures(0)[0].float())
    vlm.model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        encode_reference(vlm, pictures(0)[0].float())


def test_it_measures_what_the_order_is_worth(vlm: RewardVLM) -> None:
    policy, reference = pictures(0), pictures(1)
    with torch.no_grad():
        asked = both_orders(vlm, policy, reference, QUERIES)
        forth = margins(vlm, policy, reference, QUERIES)
        back = margins(vlm, reference, policy, QUERIES)
        turned = both_orders(vlm, reference, policy, QUERIES)
    torch.testing.assert_close(asked.margin, (forth - back) / 2, atol=1e-9, rtol=0)
    torch.testing.assert_close(asked.margin, -turned.margin, atol=1e-9, rtol=0)
    torch.testing.assert_close(asked.bias, turned.bias, atol=1e-9, rtol=0)
    # Reference first, the policy's reward is -back; its distance from the fair margin is -bias.
    found = order_bias(asked)
    assert found.mean == pytest.approx(float((-back - asked.margin).mean()))
    assert found.absolute == pytest.approx(float((-back - asked.margin).abs().mean()))
    assert found.questions == 6


def test_it_summarises_the_order_bias_by_hand() -> None:
    """Fair margins 1, 1, -2 and a first place worth 3, 0, -1: second, the policy gets
    1 - 3 = -2 (the winner changes), 1 and -2 + 1 = -1; the differences are -3, 0 and 1."""
    asked = BothOrders(torch.tensor([[1.0, 1.0, -2.0, 9.0]]), torch.tensor([[3.0, 0.0, -1.0, 9.0]]))
    found = order_bias(asked, torch.tensor([[True, True, True, False]]))
    assert found.mean == pytest.approx(-2 / 3)
    assert found.absolute == pytest.approx(4 / 3)
    assert found.flipped == pytest.approx(1 / 3)
    assert found.questions == 3


def prefix_of(value: float) -> ReferencePrefix:
    states = torch.full((2, 1, 8, 4), value)  # 256 bytes
    return ReferencePrefix(states, states, torch.tensor([[1, 4, 4]]))


def test_it_keeps_the_most_recently_used_prefixes_within_its_bytes() -> None:
    store = PrefixStore(max_bytes=1100)
    store.get(("a", 0), lambda: prefix_of(0.0))
    store.get(("a", 1), lambda: prefix_of(1.0))
    assert store.nbytes == 1024
    assert store.get(("a", 0), lambda: prefix_of(9.0)).keys[0, 0, 0, 0] == 0
    store.get(("b", 0), lambda: prefix_of(2.0))
    assert ("a", 1) not in store  # ("a", 0) was used after it
    assert ("a", 0) in store
    assert (store.hits, store.misses, len(store), store.nbytes) == (1, 3, 2, 1024)
    assert len(PrefixStore(max_bytes=100)) == 0
    small = PrefixStore(max_bytes=100)
    assert small.get("x", lambda: prefix_of(5.0)).keys[0, 0, 0, 0] == 5
    assert (len(small), small.nbytes) == (0, 0)
    store.clear()
    assert (len(store), store.nbytes) == (0, 0)
