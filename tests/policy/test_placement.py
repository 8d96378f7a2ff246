"""Small cards: a base in float8, a reward model on the CPU between uses; and compiled blocks."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from modeling.policy.adapters import EMA, POLICY, AdapterRoles
from modeling.policy.placement import at_work, compile_blocks, quantised_loading, store_in_float8
from modeling.policy.train import train
from modeling.reward.scoring import margins
from modeling.reward.vlm import load_reward_vlm
from modeling.rundir import RunDirectory, RunError
from tests.policy.test_adapters import _answer
from tests.policy.tiny import make_run

FLOAT8 = torch.float8_e4m3fn
LORA = "adapter/pytorch_lora_weights.safetensors"


@pytest.fixture
def models(policy_dir: Path) -> FillModels:
    return load_models(PolicySpec(location=str(policy_dir)))


def _round_base(transformer: nn.Module) -> int:
    """The base's block maps rounded through float8 by hand; how many there are."""
    count = 0
    for name, module in transformer.named_modules():
        inside = "transformer_blocks." in name and "norm" not in name and ".lora_" not in name
        if inside and isinstance(module, nn.Linear):
            for parameter in module.parameters():
                parameter.data = parameter.data.to(FLOAT8).to(parameter.dtype)
            count += 1
    return count


def _gradients(roles: AdapterRoles) -> list[Tensor]:
    with roles.acting(POLICY) as transformer:
        generator = torch.Generator().manual_seed(0)
        answer = transformer(
            hidden_states=torch.randn(1, 16, 96, generator=generator),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([30.0]),
            pooled_projections=torch.randn(1, 20, generator=generator),
            encoder_hidden_states=torch.randn(1, 12, 24, generator=generator),
            txt_ids=torch.zeros(12, 3),
            img_ids=torch.zeros(16, 3),
            return_dict=False,
        )[0]
        answer.square().mean().backward()
    return [p.grad.clone() for p in roles.parameters() if p.grad is not None]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_base_in_float8_computes_as_its_rounded_weights(
    models: FillModels, checkpointing: bool
) -> None:
    """Forward and backward equal those of the same weights rounded once and kept in float32."""
    stored, rounded = models.transformer, copy.deepcopy(models.transformer)
    roles = []
    for transformer in (stored, rounded):
        torch.manual_seed(3)
        one = AdapterRoles(transformer, rank=2)
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        one.update_ema(0.5)
        roles.append(one)
    store_in_float8(stored, torch.float32)
    assert _round_base(rounded) == sum(
        module.weight.dtype == FLOAT8
        for module in stored.modules()
        if isinstance(module, nn.Linear)
    )
    if checkpointing:
        stored.enable_gradient_checkpointing()
    for role in (POLICY, EMA):
        answers = []
        for one in roles:
            with one.acting(role) as transformer:
                answers.append(_answer(transformer))
        # Weights that lie elsewhere in memory may change the last bits.
        torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-6)
    found = [_gradients(one) for one in roles]
    assert len(found[0]) == len(roles[0].parameters())
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6 * float(first.abs().max()))
    for parameter in roles[0].parameters():
        assert parameter.dtype == torch.float32


def test_a_run_on_a_float8_base_trains_and_gives_out_a_lora(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    parent = make_run(tmp_path / "parent", policy_dir, reward_dir, steps=2)
    train(parent)
    for dtype in ("float32", "bfloat16"):
        run = make_run(
            tmp_path / dtype,
            policy_dir,
            reward_dir,
            steps=2,
            lr=1e-3,
            dtype=dtype,
            base_storage="float8",
            gradient_checkpointing=True,
            policy={"adapter": str(parent / "adapter")},
        )
        train(run)
        rows = RunDirectory(run).metrics()
        assert rows[0]["anchor"] == 0  # it starts as its parent, whose LoRA is not rounded
        assert rows[1]["anchor"] > 0
        assert (run / LORA).is_file()


def test_a_reward_model_on_the_cpu_between_uses_changes_no_bit(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    found = []
    for offload in (False, True):
        run = make_run(
            tmp_path / str(offload),
            policy_dir,
            reward_dir,
            lr=1e-3,
            offload_reward=offload,
            reference_best_of=2,
            held_out={"location": str(reward_dir)},
            monitor={"every": 2, "sources": 2},
        )
        train(run)
        found.append((run / LORA).read_bytes())
    assert found[0] == found[1]


def test_a_reward_model_is_moved_for_its_work_and_back(reward_dir: Path) -> None:
    """To a device that holds no numbers, since this must show the moves on any machine."""
    vlm = load_reward_vlm(reward_dir)
    moves = []
    move = vlm.model.to
    vlm.model.to = lambda place: moves.append(str(place)) or move("cpu")  # type: ignore[func-returns-value]
    with at_work(vlm, torch.device("meta"), offload=True):
        assert moves == ["meta"]
    assert moves == ["meta", "cpu"]
    with pytest.raises(KeyError), at_work(vlm, torch.device("meta"), offload=True):
        raise KeyError
    assert moves[-1] == "cpu"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_storage": "float8", "full_finetune": True}, "which trains the base"),
        ({"base_storage": "int2"}, "base_storage must be one of , float8, nf4"),
        ({"compile": ["vae"]}, "compile must be one of transformer, reward"),
        (
            {"offload_reward": True, "reward": {"location": "-", "quantisation": "int8"}},
            "which cannot be moved",
        ),
    ],
)
def test_it_refuses_what_does_not_go_together(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, values: dict[str, Any], message: str
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, **values)
    with pytest.raises(RunError, match=message):
        train(run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_nf4_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="base_storage 'nf4' needs"):
        quantised_loading("nf4", torch.bfloat16)
    assert quantised_loading("float8", torch.bfloat16) is None


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_give_the_same_velocities(models: FillModels, reward_dir: Path) -> None:
    before = _answer(models.transformer)
    compile_blocks(models.transformer, load_reward_vlm(reward_dir), ("transformer",))
    compiled = [m for m in models.transformer.modules() if m._compiled_call_impl is not None]
    assert len(compiled) == 2  # the double and the single block
    torch.testing.assert_close(_answer(models.transformer), before, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_reward_model_scores_and_pulls_alike(
    models: FillModels, reward_dir: Path
) -> None:
    vlm = load_reward_vlm(reward_dir)
    first, second = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = first.requires_grad_(True)

    def judged() -> tuple[Tensor, Tensor]:
        found = margins(vlm, pixels, second, [["Is it red?", "Is the first better in structure?"]])
        return found.detach(), torch.autograd.grad(found.sum(), pixels)[0]

    before = judged()
    compile_blocks(models.transformer, vlm, ("reward",))
    layers = vlm.core.model.language_model.layers
    assert all(layer._compiled_call_impl is not None for layer in layers)
    for mine, other in zip(judged(), before, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_compiling_needs_a_compiler(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", policy_dir, reward_dir, compile=["reward"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="compile needs a C.. compiler on a CPU: install g"):
        train(run)
