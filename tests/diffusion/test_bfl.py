"""The original layout, checked three ways: by diffusers' own converters at FLUX's widths, by what
ComfyUI does with a LoRA file, and by what a merged transformer weighs."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxFillPipeline, FluxTransformer2DModel
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file
from torch import Tensor

from generation.diffusion.bfl import kohya_state, original_state, pairs, place_of
from generation.diffusion.export import export_lora, export_transformer
from generation.diffusion.loading import adapter_weights, load_transformer
from generation.diffusion.spec import LORA_FILE, PolicySpec
from modeling.policy.adapters import LORA_TARGETS
from tests.diffusion.tiny import FLUX_FILL_TRANSFORMER, save_tiny_lora, tiny_pipeline

# Beside the blocks' maps: what LoRAs of other trainers change, too.
EVERYTHING = LORA_TARGETS + r"|.*norm1?(_context)?\.linear|norm_out\.linear|proj_out|x_embedder"


def flux_shapes() -> dict[str, torch.Size]:
    """Names and shapes of FLUX.1-Fill-dev with two blocks of each kind."""
    config = FLUX_FILL_TRANSFORMER | {"num_layers": 2, "num_single_layers": 2}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def narrow_state() -> dict[str, Tensor]:
    """FLUX's names and rows with two columns each: converters look at rows alone."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape[0], *[2] * (len(shape) - 1), generator=generator)
        for name, shape in flux_shapes().items()
    }


def random_lora(
    shapes: dict[str, torch.Size], names: list[str], rank: int = 2
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lora = {}
    for name in names:
        out, _ = shapes[f"{name}.weight"]
        lora[f"transformer.{name}.lora_A.weight"] = torch.randn(rank, 2, generator=generator)
        lora[f"transformer.{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    return lora


def updates(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """B @ A of every module, in float64."""
    return {module: up.double() @ down.double() for module, down, up in pairs(lora)}


def apply_as_comfyui(weights: dict[str, Tensor], lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI's rule: `lora_unet_` and the weight's name with its dots as underscores; every weight
    gets alpha / rank * up @ down; no key may be left over."""
    left = dict(lora)
    changed = {}
    for name, weight in weights.items():
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        if name.endswith(".weight") and f"{key}.lora_up.weight" in left:
            up, down = left.pop(f"{key}.lora_up.weight"), left.pop(f"{key}.lora_down.weight")
            scale = left.pop(f"{key}.alpha").item() / len(down)
            weight = weight + scale * up @ down
        changed[name] = weight
    assert left == {}
    return changed


def test_diffusers_converter_gives_the_transformer_back() -> None:
    state = narrow_state()
    original = original_state(state)
    assert "double_blocks.1.txt_attn.norm.key_norm.scale" in original
    assert original["single_blocks.1.linear1.weight"].shape[0] == 7 * 3072
    back = convert_flux_transformer_checkpoint_to_diffusers(dict(original))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_diffusers_reads_the_lora_back() -> None:
    shapes = flux_shapes()
    # x_embedder, proj_out and norm_out have no counterpart in diffusers' reader or lose a prefix.
    linears = [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if len(shape) == 2 and "blocks." in name
    ]
    lora = random_lora(shapes, linears)
    back = _convert_kohya_flux_lora_to_diffusers(kohya_state(lora))
    expected, found = updates(lora), updates(back)
    assert found.keys() == expected.keys()
    assert len(expected) == 2 * (2 + 8 + 4) + 2 * (1 + 5)
    for module, update in expected.items():
        torch.testing.assert_close(found[module], update, rtol=1e-12, atol=1e-12)


def test_it_leaves_parts_without_a_lora_alone() -> None:
    shapes = flux_shapes()
    names = ["transformer_blocks.0.attn.to_v", "single_transformer_blocks.1.attn.to_k"]
    written = kohya_state(random_lora(shapes, names))
    assert written["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape == (3 * 3072, 2)
    assert written["lora_unet_single_blocks_1_linear1.lora_up.weight"].shape == (7 * 3072, 2)
    up = written["lora_unet_single_blocks_1_linear1.lora_up.weight"]
    assert up[:3072].count_nonzero() == up[6144:].count_nonzero() == 0
    assert up[3072:6144].count_nonzero() == 2 * 3072


def test_comfyui_makes_of_it_what_diffusers_makes(tiny_policy: Path, tmp_path: Path) -> None:
    """W + BA of every module: merged by peft and then renamed, or renamed and then patched."""
    adapter = save_tiny_lora(tmp_path / "adapter", EVERYTHING, seed=4, alpha=3)
    spec = PolicySpec(location=str(tiny_policy), adapter=str(adapter))
    name = export_lora(spec, tmp_path, form="comfyui", name="mine")
    merged = tmp_path / export_transformer(
        spec, tmp_path, form="comfyui", name="merged", dtype=torch.float32
    )
    base = original_state(
        load_transformer(PolicySpec(str(tiny_policy)), dtype=torch.float32).state_dict()
    )
    patched = apply_as_comfyui(base, load_file(tmp_path / name))
    expected = load_file(merged)
    assert patched.keys() == expected.keys()
    moved = 0
    for key, weight in expected.items():
        torch.testing.assert_close(patched[key], weight, rtol=1e-5, atol=1e-6)
        moved += not torch.equal(weight, base[key])
    assert moved == len([k for k in load_file(tmp_path / name) if k.endswith("alpha")])


def test_the_diffusers_file_does_what_the_adapter_did(tiny_policy: Path, tmp_path: Path) -> None:
    adapter = save_tiny_lora(tmp_path / "adapter", LORA_TARGETS, seed=5, alpha=3)
    spec = PolicySpec(location=str(tiny_policy), adapter=str(adapter))
    assert export_lora(spec, tmp_path, form="diffusers", name="mine") == LORA_FILE
    found = []
    for place in (adapter, tmp_path):
        pipe = tiny_pipeline()
        pipe.load_lora_weights(place)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        found.append(pipe.transformer.state_dict())
    for key, weight in found[0].items():
        torch.testing.assert_close(found[1][key], weight, rtol=1e-5, atol=1e-6)


def test_it_folds_every_kind_of_scale_into_b(tmp_path: Path) -> None:
    """alpha 3 at rank 2 from the file's metadata, and kohya's alpha tensors: the same update."""
    adapter = save_tiny_lora(tmp_path / "adapter", LORA_TARGETS, seed=6, alpha=3)
    raw = {
        module: 1.5 * update for module, update in updates(load_file(adapter / LORA_FILE)).items()
    }
    read = updates(adapter_weights(str(adapter)))
    assert read.keys() == raw.keys()
    for module, update in raw.items():
        torch.testing.assert_close(read[module], update)


def test_it_writes_a_transformer_that_diffusers_loads(tiny_policy: Path, tmp_path: Path) -> None:
    spec = PolicySpec(location=str(tiny_policy))
    name = export_transformer(spec, tmp_path, form="diffusers", name="x", dtype=torch.float32)
    back = FluxTransformer2DModel.from_pretrained(tmp_path / name)
    for key, weight in tiny_pipeline().transformer.state_dict().items():
        assert torch.equal(back.state_dict()[key], weight)


@pytest.mark.parametrize("module", ["transformer_blocks.0.attn.to_k_ip", "conv_in", "proj_in"])
def test_it_names_what_flux_has_not(module: str) -> None:
    with pytest.raises(ValueError, match=module):
        place_of(module)


def test_it_refuses_half_a_lora() -> None:
    with pytest.raises(ValueError, match="lacks one of its two matrices"):
        kohya_state({"transformer.x_embedder.lora_A.weight": torch.zeros(2, 4)})


def test_the_pipeline_reads_the_file_under_fluxs_own_widths(tmp_path: Path) -> None:
    """The file itself, through the very call that users make."""
    from safetensors.torch import save_file

    lora = random_lora(flux_shapes(), ["transformer_blocks.0.attn.to_q"])
    save_file(kohya_state(lora), tmp_path / "mine.safetensors")
    read = FluxFillPipeline.lora_state_dict(tmp_path / "mine.safetensors")
    expected = updates(lora)["transformer_blocks.0.attn.to_q"]
    found = updates(read)
    torch.testing.assert_close(found["transformer_blocks.0.attn.to_q"], expected)
    assert found["transformer_blocks.0.attn.to_k"].count_nonzero() == 0
