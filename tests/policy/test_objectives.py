"""The baselines as objectives of the policy loop, on tiny models of the real architectures."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor

from modeling.policy.objectives.flow import noised, squared_error
from modeling.policy.objectives.labelled import dpo_loss
from modeling.policy.objectives.nft import nft_loss, optimality
from modeling.policy.pairs import draw_pairs, only_direct, read_pairs
from modeling.policy.sources import read_rows
from modeling.policy.train import train
from modeling.rundir import RunDirectory, RunError
from tests.policy.tiny import make_run

LORA = "adapter/pytorch_lora_weights.safetensors"
NFT: dict[str, Any] = {"algorithm": "diffusion_nft", "batch_size": 4, "group_size": 2}


# --- losses by hand ---


def test_its_noised_sample_has_the_flows_velocity() -> None:
    """x_t = .75 * 2 + .25 * 10 = 4; velocity 10 - 2 = 8; and x_t - sigma v = 4 - 2 = 2 = x_0."""
    at = noised(tensor([[[2.0]]]), tensor([[[10.0]]]), tensor([0.25]))
    assert at.latents.item() == 4.0
    assert at.target.item() == 8.0
    assert squared_error(tensor([[[5.0]]]), at.target).item() == 9.0


def test_its_dpo_loss_is_log_two_for_a_policy_that_equals_its_parent() -> None:
    errors = tensor([0.3, 0.4, 0.5, 0.6])
    loss, margins = dpo_loss(errors, errors, beta=2000.0)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert margins.tolist() == [0.0, 0.0]


def test_its_dpo_loss_by_hand_and_by_symmetry() -> None:
    """beta 10: chosen error down by .1, rejected up by .1: margin -5 * (-.1 - .1) = 1, loss
    -log sigmoid(1) = .313262. With chosen and rejected swapped the margin is -1, the loss 1.313262.
    """
    policy, parent = tensor([0.4, 0.6]), tensor([0.5, 0.5])
    loss, margin = dpo_loss(policy, parent, beta=10.0)
    assert margin.item() == pytest.approx(1.0, abs=1e-6)
    assert loss.item() == pytest.approx(0.313262, abs=1e-5)
    swapped, other = dpo_loss(policy.flip(0), parent, beta=10.0)
    assert other.item() == pytest.approx(-1.0, abs=1e-6)
    assert swapped.item() == pytest.approx(1.313262, abs=1e-5)


def test_its_optimality_compares_inside_groups_only() -> None:
    """Groups (0, 2) and (10, 10) with spread 2: -1 / 2 and 1 / 2 away give .25 and .75; equals .5;
    far away it ends at 0 and 1."""
    found = optimality(tensor([0.0, 2.0, 10.0, 10.0]), 2, 2.0)
    assert found.tolist() == [0.25, 0.75, 0.5, 0.5]
    assert optimality(tensor([0.0, 100.0]), 2, 2.0).tolist() == [0.0, 1.0]


def _nft(velocity: torch.Tensor, r: float, beta: float = 1.0) -> torch.Tensor:
    """One token at sigma .5: latents 3, old velocity 2, clean 1, so that old ends at 2."""
    return nft_loss(
        velocity,
        tensor([[[2.0]]]),
        latents=tensor([[[3.0]]]),
        clean=tensor([[[1.0]]]),
        sigma=tensor([0.5]),
        optimality=tensor([r]),
        beta=beta,
    )


def test_its_nft_loss_by_hand() -> None:
    """v = 3: the positive policy ends at 3 - 1.5 = 1.5, away .5, weight .5: .25 / .5 = .5. The
    negative one has velocity 2 * 2 - 3 = 1, ends at 2.5, away 1.5: 2.25 / 1.5 = 1.5. At r = .75:
    .75 * .5 + .25 * 1.5 = .75."""
    assert _nft(tensor([[[3.0]]]), 0.75).item() == pytest.approx(0.75)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_its_nft_gradient_has_the_sign_of_the_optimality(beta: float) -> None:
    """At v = v_old both policies are the old one, away 1: the gradient is (2 r - 1) times that of
    the positive part, which is 2 * 1 * (-sigma beta) / 1 = -beta; half as good, half as bad: none.
    """
    for r, wanted in ((1.0, -beta), (0.0, beta), (0.5, 0.0), (0.75, -0.5 * beta)):
        velocity = tensor([[[2.0]]], requires_grad=True)
        _nft(velocity, r, beta).sum().backward()
        assert velocity.grad is not None
        assert velocity.grad.item() == pytest.approx(wanted, abs=1e-6)


# --- labelled pairs ---


def test_it_reads_the_training_pairs_and_draws_them_by_weight(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir)
    pairs = read_pairs(run / "pairs.jsonl")
    assert sorted(pairs) == ["s0", "s1", "s3", "s4"]  # s5 is held out, s2 has none
    assert {len(group) for group in pairs.values()} == {2}
    assert {len(group) for group in only_direct(pairs).values()} == {1}
    row = next(row for row in read_rows(run / "sources.jsonl") if row.id == "s0")
    drawn = draw_pairs(pairs, [row] * 3000, np.random.default_rng(0))
    # Weights 1 : 0.5; the share's standard deviation is .0086.
    share = sum(pair.relation == "direct" for pair in drawn) / len(drawn)
    assert share == pytest.approx(2 / 3, abs=0.03)


def test_sft_comes_closer_to_the_chosen_pictures(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(
        tmp_path / "run", policy_dir, reward_dir, algorithm="sft", steps=40, batch_size=4
    )
    result = train(run)
    rows = RunDirectory(run).metrics()
    losses = [row["loss"] for row in rows]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    assert "reward" not in rows[0]
    assert result["loss"] == pytest.approx(sum(losses[-20:]) / 20)


def test_dpo_puts_the_training_pairs_in_order(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(
        tmp_path / "run",
        policy_dir,
        reward_dir,
        algorithm="diffusion_dpo",
        steps=30,
        batch_size=4,
        dpo_beta=500.0,
    )
    train(run)
    rows = RunDirectory(run).metrics()
    # The policy starts as its parent: no margin, log 2, and every pair a tie.
    assert rows[0]["loss"] == pytest.approx(math.log(2))
    assert rows[0]["accuracy"] == 0.5
    assert sum(row["accuracy"] for row in rows[-10:]) / 10 > 0.8
    assert sum(row["margin"] for row in rows[-10:]) / 10 > 0


@pytest.mark.parametrize("algorithm", ["diffusion_dpo", "sft"])
def test_it_says_what_is_missing_of_the_pairs(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, algorithm: str
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, algorithm=algorithm)
    (run / "pairs.jsonl").rename(run / "kept.jsonl")
    with pytest.raises(RunError, match=r"pairs\.jsonl' does not exist.*learns from labelled pairs"):
        train(run)
    first = json.loads((run / "kept.jsonl").read_text().splitlines()[0])
    (run / "pairs.jsonl").write_text(json.dumps({**first, "split": "holdout"}) + "\n")
    with pytest.raises(RunError, match="no labelled pair of a training source"):
        train(run)
    del first["rejected"]
    (run / "pairs.jsonl").write_text(json.dumps(first) + "\n")
    with pytest.raises(RunError, match="Line 1 of .* lacks rejected"):
        train(run)
    (run / "pairs.jsonl").write_text(json.dumps({**first, "rejected": "gone.png"}) + "\n")
    (run / first["chosen"]).unlink()
    with pytest.raises(RunError, match="labelled pair cannot be read"):
        train(run)


# --- rewards without gradient ---


def test_nft_scores_groups_and_trains(tmp_path: Path, policy_dir: Path, reward_dir: Path) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, **NFT, noise_levels=3)
    result = train(run)
    rows = RunDirectory(run).metrics()
    assert all(0 < row["score"] < 1 for row in rows)
    assert rows[0]["score"] == rows[0]["score_reward_vlm"]
    assert rows[0]["anchor"] == 0
    assert rows[-1]["anchor"] > 0
    assert any((run / "references").iterdir())
    assert result["score"] > 0


# --- exact resume ---


@pytest.mark.parametrize(
    "values",
    [{"algorithm": "diffusion_dpo"}, {"algorithm": "sft"}, NFT],
    ids=["diffusion_dpo", "sft", "diffusion_nft"],
)
def test_it_repeats_lost_steps_exactly(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any]
) -> None:
    """The run's last steps are lost, as by a kill, and taken again from the checkpoint before."""
    run = make_run(tmp_path / "run", policy_dir, reward_dir, steps=5, checkpoint_every=2, **values)
    train(run)
    weights, rows = (run / LORA).read_bytes(), RunDirectory(run).metrics()
    for name in ("adapter/pytorch_lora_weights.safetensors", "result.json"):
        (run / name).unlink()
    last = run / "checkpoints" / "step-5"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    train(run)
    again = RunDirectory(run).metrics()
    for row in (*rows, *again):
        del row["seconds"], row["loading_seconds"]
    assert again == rows
    assert (run / LORA).read_bytes() == weights


def test_its_micro_batches_make_the_same_step(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    for values in ({"algorithm": "diffusion_dpo", "batch_size": 4}, NFT):
        found = []
        for size in (0, 3):
            run = make_run(
                tmp_path / f"{values['algorithm']}-{size}",
                policy_dir,
                reward_dir,
                micro_batch_size=size,
                steps=1,
                **values,
            )
            train(run)
            found.append(RunDirectory(run).metrics()[0])
        assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-4)
        assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-3)
