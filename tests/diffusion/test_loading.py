import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from generation.diffusion.conditions import FillConditions
from generation.diffusion.generate import Generator
from generation.diffusion.loading import PolicySpec, load_models
from generation.diffusion.packing import pack_latents, pack_masks
from generation.diffusion.sampling import velocity
from tests.diffusion.test_generate import _request
from tests.diffusion.tiny import FLUX_FILL_TRANSFORMER, FLUX_VAE, tiny_pipeline


def _save_lora(directory: Path, seed: int) -> Path:
    pipe = tiny_pipeline()
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(config, adapter_name="policy")
    pipe.save_lora_weights(
        directory,
        transformer_lora_layers=get_peft_model_state_dict(pipe.transformer, adapter_name="policy"),
    )
    return directory


def _bytes(spec: PolicySpec) -> bytes:
    return Generator(load_models(spec)).generate_batch([_request()])[0].tobytes()


def test_it_knows_sizes_and_prompt_length_from_the_checkpoint(tiny_policy: Path) -> None:
    models = load_models(PolicySpec(location=str(tiny_policy)))
    assert (models.vae_scale_factor, models.size_multiple) == (4, 8)
    assert models.max_sequence_length == 12
    assert not models.transformer.training
    assert not any(p.requires_grad for p in models.transformer.parameters())


def test_it_loads_a_lora_in_diffusers_layout(tiny_policy: Path, tmp_path: Path) -> None:
    adapter = _save_lora(tmp_path / "adapter", seed=4)
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
