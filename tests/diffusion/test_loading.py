import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from generation.diffusion.conditions import FillConditions
from generation.diffusion.generate import Generator
from generation.diffusion.loading import PolicySpec, load_models
from generation.diffusion.packing import pack_latents, pack_masks
from generation.diffusion.sampling import velocity
from tests.diffusion.test_generate import _request
from tests.diffusion.tiny import (
    FILL,
    FLUX_FILL_TRANSFORMER,
    FLUX_VAE,
    ONEREWARD,
    ONEREWARD_TRANSFORMERS,
    REMOVAL_LORA,
    put_into_hub_cache,
    save_tiny_lora,
    save_tiny_onereward,
    tiny_pipeline,
)


def _bytes(spec: PolicySpec) -> bytes:
    return Generator(load_models(spec)).generate_batch([_request()])[0].tobytes()


def test_it_knows_sizes_and_prompt_length_from_the_checkpoint(tiny_policy: Path) -> None:
    models = load_models(PolicySpec(location=str(tiny_policy)))
    assert (models.vae_scale_factor, models.size_multiple) == (4, 8)
    assert models.max_sequence_length == 12
    assert not models.transformer.training
    assert not any(p.requires_grad for p in models.transformer.parameters())


def test_it_loads_a_lora_in_diffusers_layout(tiny_policy: Path, tmp_path: Path) -> None:
    adapter = save_tiny_lora(tmp_path / "adapter", ["to_q", "to_v"], seed=4)
    base = _bytes(PolicySpec(location=str(tiny_policy)))
    adapted = PolicySpec(location=str(tiny_policy), adapter=str(adapter))
    assert _bytes(adapted) != base
    assert _bytes(adapted) == _bytes(adapted)


def test_it_takes_the_transformer_from_elsewhere(tiny_policy: Path, tmp_path: Path) -> None:
    other = tiny_pipeline(seed=7).transformer
    other.save_pretrained(tmp_path / "tuned" / "final")
    spec = PolicySpec(
        location=str(tiny_policy), transformer=str(tmp_path / "tuned"), subfolder="final"
    )
    models = load_models(spec)
    assert torch.equal(models.transformer.proj_out.weight, other.proj_out.weight)


def test_it_reads_a_lora_from_its_file(tiny_policy: Path, tmp_path: Path) -> None:
    adapter = save_tiny_lora(tmp_path / "adapter", ["to_q", "to_v"], seed=4)
    (file,) = adapter.glob("*.safetensors")
    whole, one = (PolicySpec(str(tiny_policy), adapter=str(place)) for place in (adapter, file))
    assert _bytes(one) == _bytes(whole)


def test_it_never_reads_a_pickled_lora(tiny_policy: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    torch.save({"x": torch.zeros(1)}, tmp_path / "adapter" / "pytorch_lora_weights.bin")
    with pytest.raises(FileNotFoundError, match="No LoRA could be read"):
        load_models(PolicySpec(str(tiny_policy), adapter=str(tmp_path / "adapter")))


def test_it_loads_the_released_onereward_weights_by_their_hub_ids(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose hub cache holds tiny weights in the released layout."""
    released = save_tiny_onereward(tmp_path / "released")
    put_into_hub_cache(tmp_path / "hub", FILL, tiny_policy)
    put_into_hub_cache(tmp_path / "hub", ONEREWARD, released)
    specs = [{"transformer": ONEREWARD, "subfolder": one} for one in ONEREWARD_TRANSFORMERS]
    specs += [
        {"adapter": f"{ONEREWARD}/{REMOVAL_LORA}"},
        {"adapter": f"{ONEREWARD}/{REMOVAL_LORA}/pytorch_lora_weights.safetensors"},
    ]
    program = """
import json, sys
from generation.diffusion.loading import PolicySpec, load_models
for spec in json.loads(sys.argv[1]):
    models = load_models(PolicySpec("black-forest-labs/FLUX.1-Fill-dev", **spec))
    print(sum(p.double().abs().sum().item() for p in models.transformer.parameters()))
"""
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps(specs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    expected = [
        load_models(PolicySpec(str(tiny_policy), **local)).transformer
        for local in (
            *({"transformer": str(released), "subfolder": one} for one in ONEREWARD_TRANSFORMERS),
            {"adapter": str(released / REMOVAL_LORA)},
            {"adapter": str(released / REMOVAL_LORA)},
        )
    ]
    sums = [sum(p.double().abs().sum().item() for p in one.parameters()) for one in expected]
    assert [float(line) for line in result.stdout.split()] == pytest.approx(sums)
    assert len({round(value, 6) for value in sums}) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"location": "/no/such/policy"}, "/no/such/policy"),
        ({"transformer": "/no/such/transformer"}, "/no/such/transformer"),
        ({"subfolder": "ema"}, "ema"),
        ({"adapter": "/no/such/adapter"}, "/no/such/adapter"),
    ],
)
def test_it_names_the_missing_checkpoint(
    tiny_policy: Path, change: dict[str, str], named: str
) -> None:
    with pytest.raises(FileNotFoundError, match=named):
        load_models(PolicySpec(**{"location": str(tiny_policy), **change}))


def test_it_names_a_missing_component(tiny_policy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_policy, broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(FileNotFoundError, match="vae"):
        load_models(PolicySpec(location=str(broken)))


def test_it_fits_flux_fill_dev() -> None:
    """FLUX.1-Fill-dev's configuration on the meta device at 512 x 512: 1024 tokens."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**FLUX_FILL_TRANSFORMER)
        vae = AutoencoderKL(**FLUX_VAE)
        pictures = torch.empty(1, 3, 512, 512)
        hidden = vae.encode(pictures).latent_dist.mode()
        packed = pack_latents(hidden)
        masked = torch.cat([packed, pack_masks(torch.empty(1, 1, 512, 512), 8)], dim=-1)
        conditions = FillConditions(
            prompt_embeds=torch.empty(1, 512, 4096),
            pooled=torch.empty(1, 768),
            masked_image=masked,
            image_latents=packed,
            height=512,
            width=512,
        )
        predicted = velocity(transformer, packed, torch.empty(()), conditions, guidance_scale=30.0)
    assert sum(p.numel() for p in transformer.parameters()) == 11_902_391_360
    assert packed.shape == (1, 1024, 64)
    assert masked.shape == (1, 1024, 320)
    assert conditions.grid == (32, 32)
    assert predicted.shape == (1, 1024, 64)


@pytest.mark.gpu
def test_it_samples_in_bf16_on_a_gpu(tiny_policy: Path) -> None:
    models = load_models(PolicySpec(location=str(tiny_policy)), device="cuda", dtype=torch.bfloat16)
    requests = [_request(seed, true_cfg_scale=2.0, negative_prompt="dark") for seed in (1, 2)]
    generator = Generator(models)
    first = [image.tobytes() for image in generator.generate_batch(requests)]
    assert [image.tobytes() for image in generator.generate_batch(requests)] == first


def test_it_samples_in_bf16_on_the_cpu(tiny_policy: Path) -> None:
    models = load_models(PolicySpec(location=str(tiny_policy)), dtype=torch.bfloat16)
    made = Generator(models).generate_batch([_request(true_cfg_scale=2.0, negative_prompt="dark")])
    exact = Generator(load_models(PolicySpec(location=str(tiny_policy)))).generate_batch(
        [_request(true_cfg_scale=2.0, negative_prompt="dark")]
    )
    apart = [abs(a - b) for a, b in zip(made[0].tobytes(), exact[0].tobytes(), strict=True)]
    assert sum(apart) / len(apart) < 3
