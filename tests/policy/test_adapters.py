from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from generation.diffusion.pipeline import FluxFillTrueCFGPipeline
from modeling.policy.adapters import BASE, EMA, POLICY, REFERENCE, AdapterRoles, CopiedRoles
from tests.diffusion.tiny import FLUX_FILL_TRANSFORMER


@pytest.fixture
def models(policy_dir: Path) -> FillModels:
    return load_models(PolicySpec(location=str(policy_dir)))


@torch.no_grad()
def _answer(transformer: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return transformer(
        hidden_states=torch.randn(1, 16, 96, generator=generator),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([30.0]),
        pooled_projections=torch.randn(1, 20, generator=generator),
        encoder_hidden_states=torch.randn(1, 12, 24, generator=generator),
        txt_ids=torch.zeros(12, 3),
        img_ids=torch.zeros(16, 3),
        return_dict=False,
    )[0]


def _by_role(roles: AdapterRoles | CopiedRoles) -> dict[str, Tensor]:
    found = {}
    for role in (POLICY, EMA, REFERENCE, BASE):
        with roles.acting(role) as transformer:
            found[role] = _answer(transformer)
    return found


@torch.no_grad()
def _move(roles: AdapterRoles | CopiedRoles, seed: int = 1, size: float = 0.2) -> None:
    torch.manual_seed(seed)
    for parameter in roles.parameters():
        parameter.add_(size * torch.randn_like(parameter))


@pytest.mark.parametrize("full", [False, True])
def test_it_moves_the_policy_alone(models: FillModels, full: bool) -> None:
    roles = CopiedRoles(models.transformer) if full else AdapterRoles(models.transformer, rank=2)
    before = _by_role(roles)
    # Equal weights in another place: their answers may differ in the last bits.
    torch.testing.assert_close(before[POLICY], before[REFERENCE], rtol=1e-5, atol=1e-5)
    assert roles.distance() == 0
    _move(roles)
    after = _by_role(roles)
    assert not torch.equal(after[POLICY], before[POLICY])
    for role in (EMA, REFERENCE, BASE):
        assert torch.equal(after[role], before[role])
    assert roles.distance() > 0


@pytest.mark.parametrize("full", [False, True])
def test_its_ema_follows_by_one_minus_tau(models: FillModels, full: bool) -> None:
    """From 0 toward 1 with tau = 3/4 twice: 1/4, then 1/4 + 3/16 = 7/16."""
    roles = CopiedRoles(models.transformer) if full else AdapterRoles(models.transformer, rank=2)
    with torch.no_grad():
        for name, value in roles.state().items():
            if name.startswith(EMA):
                value.zero_()
        roles.load_state(
            {
                name: torch.zeros_like(value) if name.startswith(EMA) else torch.ones_like(value)
                for name, value in roles.state().items()
            }
        )
    roles.update_ema(0.75)
    roles.update_ema(0.75)
    for name, value in roles.state().items():
        assert value.unique().tolist() == pytest.approx([7 / 16 if name.startswith(EMA) else 1])


def test_it_trains_only_the_policys_adapter(models: FillModels) -> None:
    roles = AdapterRoles(models.transformer, rank=2)
    with roles.acting(EMA) as transformer:
        _answer(transformer)
    with roles.acting(REFERENCE) as transformer:
        _answer(transformer)
    trainable = [name for name, p in models.transformer.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".policy." in name for name in trainable)
    assert len(trainable) == len(roles.parameters())
    assert {parameter.dtype for parameter in roles.parameters()} == {torch.float32}


def test_it_starts_from_the_parents_adapter(
    models: FillModels, policy_dir: Path, tmp_path: Path
) -> None:
    first = AdapterRoles(models.transformer, rank=2)
    _move(first)
    first.update_ema(0.0)
    first.save(tmp_path / "parent")
    expected = _by_role(first)[POLICY]

    child = AdapterRoles(
        load_models(PolicySpec(location=str(policy_dir))).transformer,
        rank=8,
        parent_adapter=str(tmp_path / "parent"),
    )
    found = _by_role(child)
    for role in (POLICY, EMA, REFERENCE):
        assert torch.allclose(found[role], expected, atol=1e-6)
    assert not torch.allclose(found[BASE], expected, atol=1e-3)
    _move(child, seed=2)
    assert torch.equal(_by_role(child)[REFERENCE], found[REFERENCE])

    whole = CopiedRoles(
        load_models(PolicySpec(location=str(policy_dir))).transformer,
        parent_adapter=str(tmp_path / "parent"),
    )
    assert torch.allclose(_by_role(whole)[POLICY], expected, atol=1e-5)


def test_its_lora_is_read_by_pipelines_and_policies(
    models: FillModels, policy_dir: Path, tmp_path: Path
) -> None:
    roles = AdapterRoles(models.transformer, rank=3)
    _move(roles)
    roles.update_ema(0.5)
    roles.save(tmp_path / "adapter")
    expected = _by_role(roles)[EMA]

    pipe = FluxFillTrueCFGPipeline.from_pretrained(policy_dir)
    pipe.load_lora_weights(tmp_path / "adapter")
    assert torch.allclose(_answer(pipe.transformer), expected, atol=1e-6)
    spec = PolicySpec(location=str(policy_dir), adapter=str(tmp_path / "adapter"))
    assert torch.allclose(_answer(load_models(spec).transformer), expected, atol=1e-6)


def test_it_saves_the_same_file_for_the_same_weights(models: FillModels, tmp_path: Path) -> None:
    roles = AdapterRoles(models.transformer, rank=2)
    roles.save(tmp_path / "a")
    roles.save(tmp_path / "b")
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_it_saves_full_weights_for_from_pretrained(models: FillModels, tmp_path: Path) -> None:
    roles = CopiedRoles(models.transformer)
    _move(roles)
    roles.update_ema(0.0)
    roles.save(tmp_path / "transformer")
    loaded = FluxTransformer2DModel.from_pretrained(tmp_path / "transformer")
    assert torch.allclose(_answer(loaded), _by_role(roles)[POLICY], atol=1e-6)


def test_it_gives_flux_fill_dev_three_roles_on_one_base() -> None:
    """Rank 16 on FLUX.1-Fill-dev, d = 3072. A double block has 8 maps d -> d and 4 between d and
    4d: (8 * 2d + 4 * 5d) * 16; a single block 3 of d -> d, one d -> 4d and one 5d -> d:
    (3 * 2d + 5d + 6d) * 16. 19 * 1,769,472 + 38 * 835,584 = 65,372,160, .5 % of the base.
    """
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**FLUX_FILL_TRANSFORMER)
        base = sum(parameter.numel() for parameter in transformer.parameters())
        roles = AdapterRoles(transformer, rank=16)
    own = roles.parameters()
    assert len(own) == 2 * (19 * 12 + 38 * 5)
    assert sum(parameter.numel() for parameter in own) == 65_372_160
    total = sum(parameter.numel() for parameter in transformer.parameters())
    assert total == base + 2 * 65_372_160  # policy and EMA; the reference is the base itself
    with roles.acting(REFERENCE):
        assert not any(parameter.requires_grad for parameter in transformer.parameters())
