"""What leaves the platform: weights for other programs, and cards that say what was measured."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FluxFillPipeline
from django.core.management import CommandError, call_command
from huggingface_hub import ModelCard
from PIL import Image as Pillow
from safetensors.torch import load_file

from generation.models import Policy
from modeling import cards, export
from modeling.models import Evaluation, RewardModel, TrainingRun
from tests.diffusion.tiny import save_tiny_lora, save_tiny_policy
from tests.factories import make_policy

pytestmark = pytest.mark.django_db

CELL = {"parent": 0.5, "new": 0.75, "difference": 0.25, "low": 0.1, "high": 0.4, "n": 60}


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture
def trained(base_dir: Path, tmp_path: Path) -> Policy:
    """A policy with a LoRA, its run with a sample grid, and an evaluation."""
    parent = make_policy("base", location=base_dir)
    adapter = save_tiny_lora(tmp_path / "run" / "adapter", ["to_q", "to_v"], seed=4)
    policy = make_policy(
        "policy 7",
        location=base_dir,
        adapter=str(adapter),
        parent=parent,
        kind=Policy.Kind.TRAINED,
        card={
            "reward_model": "reward 3",
            "snapshot": "ab" * 32,
            "config": {"algorithm": "dynamic", "steps": 600, "lora_rank": 16},
        },
    )
    (tmp_path / "run" / "samples").mkdir()
    for step, colour in ((50, "red"), (600, "green")):
        Pillow.new("RGB", (8, 8), colour).save(
            tmp_path / "run" / "samples" / f"step-{step:06d}.png"
        )
    TrainingRun.objects.create(
        kind=TrainingRun.Kind.POLICY,
        directory=str(tmp_path / "run"),
        parent_policy=parent,
        policy=policy,
    )
    figures = {
        "n": 60,
        "usable": {"fill": CELL, "all": CELL},
        "dimensions": {"fill": {"structure": CELL}},
        "outside_psnr": CELL | {"parent": 36.0, "new": 36.5, "difference": 0.5},
        "win_tie_lose": [0.25, 0.7, 0.05],
        "margin": {"all": {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 60, "judge": "held-out"}},
    }
    Evaluation.objects.create(
        kind=Evaluation.Kind.POLICY, policy=policy, parent_policy=parent, figures=figures
    )
    return policy


def call(name: str, *arguments: object, **options: object) -> str:
    out = StringIO()
    call_command(name, *[str(one) for one in arguments], stdout=out, **options)
    return out.getvalue()


def test_it_exports_a_lora_that_diffusers_loads(trained: Policy, tmp_path: Path) -> None:
    said = call("export_policy", "policy 7", out=str(tmp_path / "out"))
    assert "README.md, pytorch_lora_weights.safetensors, samples.png" in said
    pipe = FluxFillPipeline.from_pretrained(trained.location)
    pipe.load_lora_weights(tmp_path / "out")
    found = pipe.transformer.transformer_blocks[0].attn.to_q.lora_A["default_0"].weight
    (trained_file,) = Path(trained.adapter).glob("*.safetensors")
    key = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    assert torch.equal(found, load_file(trained_file)[key])
    grid = Pillow.open(tmp_path / "out" / "samples.png")
    assert grid.getpixel((0, 0)) == (0, 128, 0)  # the last step's


def test_it_exports_a_lora_for_comfyui(trained: Policy, tmp_path: Path) -> None:
    call("export_policy", "policy 7", out=str(tmp_path / "out"), format="comfyui", no_samples=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "policy-7.safetensors"]
    keys = load_file(tmp_path / "out" / "policy-7.safetensors").keys()
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight" in keys
    assert "ComfyUI/models/loras" in (tmp_path / "out" / "README.md").read_text()


def test_it_exports_a_whole_transformer(trained: Policy, tmp_path: Path) -> None:
    call("export_policy", "policy 7", out=str(tmp_path / "a"), merged=True, dtype="float32")
    call("export_policy", "base", out=str(tmp_path / "b"), format="comfyui")
    config = (tmp_path / "a" / "transformer" / "config.json").read_text()
    assert trained.location not in config
    whole = load_file(tmp_path / "b" / "base.safetensors")
    assert whole["double_blocks.0.img_attn.qkv.weight"].dtype == torch.bfloat16
    card = (tmp_path / "b" / "README.md").read_text()
    assert "ComfyUI/models/diffusion_models" in card
    assert "was never compared with its parent" in card


def test_its_card_says_what_was_measured_in_the_hubs_form(trained: Policy, tmp_path: Path) -> None:
    Policy.objects.filter(pk=trained.pk).update(location="black-forest-labs/FLUX.1-Fill-dev")
    trained.refresh_from_db()
    text = cards.policy_card(
        export.policy_facts(trained),
        form="diffusers",
        weights="x",
        is_lora=True,
        samples="samples.png",
    )
    head = ModelCard(text).data.to_dict()
    assert head["base_model"] == "black-forest-labs/FLUX.1-Fill-dev"
    assert head["base_model_relation"] == "adapter"
    assert head["license_name"] == "flux-1-dev-non-commercial-license"
    assert head["pipeline_tag"] == "image-to-image"
    assert "| fill | 50.0 | 75.0 | +25.0 | +10.0 … +40.0 | 60 |" in text
    assert "| fill × structure | 0.500 | 0.750 | +0.250 | +0.100 … +0.400 | 60 |" in text
    assert "| outside the mask | 36.0 | 36.5 | +0.5 |" in text
    assert "Better 25 %, alike 70 %, worse 5 %" in text
    assert "![Samples](samples.png)" in text
    assert "`dynamic`" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'from_pretrained(\n    "black-forest-labs/FLUX.1-Fill-dev"' in code


def test_its_card_tells_no_path_of_this_machine(trained: Policy, tmp_path: Path) -> None:
    for form in ("diffusers", "comfyui"):
        for merged in (False, True):
            out = tmp_path / f"{form}-{merged}"
            call("export_policy", "policy 7", out=str(out), format=form, merged=merged)
            text = (out / "README.md").read_text()
            assert str(tmp_path) not in text
            assert trained.location not in text
            assert "base_model" not in yaml.safe_load(text.split("---")[1])


def test_it_says_why_nothing_was_exported(trained: Policy, tmp_path: Path) -> None:
    make_policy("other", kind=Policy.Kind.EXTERNAL, location="")
    with pytest.raises(CommandError, match="external system"):
        call("export_policy", "other", out=str(tmp_path / "out"))
    with pytest.raises(CommandError, match="already holds files"):
        call("export_policy", "policy 7", out=str(tmp_path))
    Policy.objects.filter(pk=trained.pk).update(adapter=str(tmp_path / "gone"))
    with pytest.raises(CommandError, match="gone"):
        call("export_policy", "policy 7", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_it_exports_a_reward_model_with_its_figures(tmp_path: Path) -> None:
    weights = tmp_path / "adapter"
    weights.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"weights")
    (weights / "README.md").write_text("peft's own")
    (weights / "adapter_config.json").write_text(
        json.dumps({"r": 2, "base_model_name_or_path": str(tmp_path)})
    )
    model = RewardModel.objects.create(
        name="reward 3",
        location="Qwen/Qwen2.5-VL-7B-Instruct",
        adapter=str(weights),
        excluded=[["fill", "structure", "not above chance"]],
    )
    out = tmp_path / "out"
    call("export_reward", "reward 3", out=str(tmp_path / "bare"))
    assert "never evaluated" in (tmp_path / "bare" / "README.md").read_text()
    cell = {"accuracy": 0.8, "low": 0.7, "high": 0.9, "n": 50}
    Evaluation.objects.create(
        kind=Evaluation.Kind.REWARD,
        reward_model=model,
        figures={"reward_accuracy": {"fill": {"aesthetics": cell}}, "calibration_error": 0.031},
    )
    call("export_reward", "reward 3", out=str(out), licence="cc-by-4.0")
    assert (out / "adapter_model.safetensors").read_bytes() == b"weights"
    kept = json.loads((out / "adapter_config.json").read_text())
    assert kept == {"r": 2, "base_model_name_or_path": ""}
    text = (out / "README.md").read_text()
    head = ModelCard(text).data.to_dict()
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "peft")
    assert "| fill × aesthetics | 80.0 | 70.0 … 90.0 | 50 |" in text
    assert "calibration error: 0.031" in text
    assert "fill × structure: not above chance" in text
    hub = RewardModel.objects.create(name="hub", location="Qwen/Qwen2.5-VL-7B-Instruct")
    with pytest.raises(CommandError, match="no directory here"):
        call("export_reward", hub.name, out=str(tmp_path / "more"))
