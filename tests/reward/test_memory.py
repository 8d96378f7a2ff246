from __future__ import annotations

import pytest

from modeling.memory import (
    BYTES,
    GIB,
    Role,
    flux,
    main,
    pair_tokens,
    qwen,
    setups,
    vae_decoder_bytes,
)


def test_it_counts_the_published_models() -> None:
    # The index files of the published weights count these bytes of bf16; FLUX.1-Fill-dev differs
    # from FLUX.1-dev by 384 input channels instead of 64.
    assert flux().parameters == 23_802_816_640 // 2 + (384 - 64) * 3072
    assert qwen().parameters == 16_584_333_312 // 2
    assert flux().quantisable < flux().parameters
    # Rank times (in + out) of q, k, v, o, gate, up and down in 28 layers.
    attention = 2 * (3584 + 3584) + 2 * (3584 + 512)
    assert qwen().linears == 28 * (attention + 3 * (3584 + 18944))


def test_it_adds_up_what_a_role_holds() -> None:
    """All weights of n parameters by two processes: fp32 weights, gradients and moments are 16
    bytes each, an average 4 more; a frozen copy in bf16 two."""
    shape = qwen()
    role = Role(shape, trained="full", averages=1, frozen_copies=1, processes=2)
    parts = role.bytes()
    assert sum(parts.values()) == pytest.approx(shape.parameters * (16 + 4 + 2) / 2)
    lora = Role(shape, "nf4", trained="lora", rank=8)
    kept = shape.parameters - shape.quantisable
    base = shape.quantisable * BYTES["nf4"] + 2 * kept
    assert lora.bytes()["weights"] == pytest.approx(base + 4 * 8 * shape.linears)
    assert lora.bytes()["moments"] == 8 * 8 * shape.linears


def test_checkpointing_keeps_inputs_and_one_block() -> None:
    tokens = (100, 0)
    whole = Role(qwen(), tokens=tokens).bytes()["activations"]
    saved = Role(qwen(), tokens=tokens, checkpointing=True).bytes()["activations"]
    assert whole == 100 * 3584 * 34 * 28
    assert saved == 100 * 3584 * (2 * 28 + 34)


def test_pictures_cost_by_their_area() -> None:
    assert pair_tokens(560, orders=2, questions=1) == (2 * (2 * 400 + 70), 2 * 1600)
    assert 3.5 < vae_decoder_bytes(256) / vae_decoder_bytes(128) < 4.5


def test_its_setups_fit_the_cards_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = {setup.name: setup.total / GIB for setup in setups()}
    for name, total in found.items():
        if "24 GB" in name:
            assert total < 0.9 * 24
        elif "80 GB" in name:
            assert total < 0.9 * 80e9 / GIB
    all_weights = found["policy, all weights, one process"]
    assert all_weights > 200
    # Divided but for the reward model and the activations.
    rest = all_weights - 8 * found["policy, all weights, each of 8 x 80 GB (FSDP2)"]
    assert -rest / 7 == pytest.approx(15.4 + 9.5, abs=0.5)
    assert main() == 0
    assert f"{all_weights:.1f}" in capsys.readouterr().out
