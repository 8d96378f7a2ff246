import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from safetensors.numpy import save_file

from generation import policies
from generation.models import Policy
from generation.policies import PolicyError
from tests.diffusion.tiny import (
    FILL,
    ONEREWARD,
    ONEREWARD_TRANSFORMERS,
    REMOVAL_LORA,
    put_into_hub_cache,
    save_tiny_onereward,
)
from tests.factories import make_policy

pytestmark = pytest.mark.django_db


@pytest.fixture
def weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_weights, tmp_path / "weights"))


def test_it_registers_a_directory_and_notes_its_size_multiple(weights: Path) -> None:
    (weights / "card.json").write_text(json.dumps({"steps": 7}))
    policy = policies.register(name="base", location=str(weights), max_pixels=4096)
    assert (policy.kind, policy.state) == ("base", "ready")
    assert policy.card == {"steps": 7, "size_multiple": 8}
    assert policies.size_multiple(policy) == 8


def test_it_registers_a_trained_child_with_its_adapter(weights: Path, tmp_path: Path) -> None:
    base = policies.register(name="base", location=str(weights), max_pixels=4096)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, adapter / "pytorch_lora_weights.safetensors")
    child = policies.register(
        name="child", location=str(weights), adapter=str(adapter), parent=base, card={"run": 3}
    )
    assert (child.kind, child.parent, child.max_pixels) == ("trained", base, 4096)
    assert child.card["run"] == 3


def damage(weights: Path, how: str) -> None:
    if how == "no index":
        (weights / "model_index.json").unlink()
    elif how == "no vae":
        shutil.rmtree(weights / "vae")
    elif how == "pickle":
        file = next((weights / "transformer").glob("*.safetensors"))
        file.rename(file.with_name("diffusion_pytorch_model.bin"))
    elif how == "no weights":
        next((weights / "vae").glob("*.safetensors")).unlink()
    elif how == "bad config":
        (weights / "vae" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no index", "not a pipeline in diffusers' layout: model_index.json is missing"),
        ("no vae", "lacks vae. A Fill pipeline has transformer"),
        ("pickle", "are pickles, which can run code and are not loaded"),
        ("no weights", "There are no weights in .*vae"),
        ("bad config", "config.json is not JSON"),
    ],
)
def test_it_refuses_a_directory_that_could_not_be_loaded(
    weights: Path, how: str, reason: str
) -> None:
    damage(weights, how)
    with pytest.raises(PolicyError, match=reason):
        policies.register(name="base", location=str(weights))
    assert not Policy.objects.exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"location": ""}, "Say where the weights are"),
        ({"location": "/nowhere/at/all"}, "/nowhere/at/all is not a directory"),
        ({"location": "just-a-word"}, "neither a directory that exists nor a hub id"),
        ({"adapter": "/no/adapter"}, "adapter's directory /no/adapter does not exist"),
        ({"transformer": "/no/transformer"}, "No model in /no/transformer/transformer"),
        ({"kind": "foreign"}, "“foreign” is no kind of policy"),
        ({"kind": "trained"}, "needs its parent"),
        ({"name": "taken"}, "a policy “taken” already"),
        ({"max_pixels": 10}, "10 pixels are too few"),
    ],
)
def test_it_says_what_is_wrong_and_stores_nothing(
    weights: Path, values: dict[str, Any], reason: str
) -> None:
    make_policy("taken")
    with pytest.raises(PolicyError, match=reason):
        policies.register(**({"name": "base", "location": str(weights)} | values))
    assert Policy.objects.count() == 1


def test_it_keeps_one_policy_active() -> None:
    first, second = make_policy(), make_policy()
    with pytest.raises(PolicyError, match="No policy is active"):
        policies.active()
    policies.activate(first)
    policies.activate(second)
    assert policies.active() == second
    first.refresh_from_db()
    assert first.state == Policy.State.RETIRED
    assert second.promoted_at is not None
    policies.activate(first)
    assert policies.active() == first


def test_it_does_not_activate_an_external_system() -> None:
    policy = make_policy(kind=Policy.Kind.EXTERNAL, location="")
    with pytest.raises(PolicyError, match="external system"):
        policies.activate(policy)


def test_it_finds_a_policy_by_name_and_names_the_known_ones() -> None:
    policy = make_policy("base")
    assert policies.named("base") == policies.named(str(policy.pk)) == policy
    with pytest.raises(PolicyError, match="no policy “bse”. Registered: “base”"):
        policies.named("bse")


def test_the_command_registers_and_activates(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "policy.json"
    call_command(
        "register_policy", weights, name="base", max_pixels=1024, activate=True, json=report
    )
    policy = policies.active()
    assert (policy.name, policy.location, policy.max_pixels) == ("base", str(weights), 1024)
    assert "Registered policy “base” (base, active)." in capsys.readouterr().out
    assert json.loads(report.read_text())["location"] == str(weights)


@pytest.mark.parametrize("on_the_hub", [False, True])
def test_the_command_registers_the_released_onereward_weights(
    on_the_hub: bool, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both transformers and the removal LoRA, each in one command; tiny weights in that layout."""
    released = save_tiny_onereward(tmp_path / "OneReward")
    fill, onereward = str(tiny_weights), str(released)
    if on_the_hub:
        put_into_hub_cache(tmp_path / "hub", FILL, tiny_weights)
        put_into_hub_cache(tmp_path / "hub", ONEREWARD, released)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        fill, onereward = FILL, ONEREWARD
    for folder in ONEREWARD_TRANSFORMERS:
        call_command("register_policy", fill, transformer=onereward, subfolder=folder)
    call_command("register_policy", fill, adapter=f"{onereward}/{REMOVAL_LORA}")
    base = Path(fill).name
    found = {policy.name: policy for policy in Policy.objects.all()}
    assert set(found) == {f"{base} + {part}" for part in (*ONEREWARD_TRANSFORMERS, REMOVAL_LORA)}
    for policy in found.values():
        assert policy.card == {"size_multiple": 8}
    assert found[f"{base} + {REMOVAL_LORA}"].adapter == f"{onereward}/{REMOVAL_LORA}"
    if not on_the_hub:
        with pytest.raises(CommandError, match="No model in .*OneReward/flux-2"):
            call_command("register_policy", fill, transformer=onereward, subfolder="flux-2")


def test_it_takes_on_trust_what_an_unreachable_hub_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    policy = policies.register(
        name="onereward", location=FILL, transformer=ONEREWARD, subfolder=ONEREWARD_TRANSFORMERS[0]
    )
    assert "could not be reached" in policy.card["unchecked"]


def test_it_knows_a_transformer_without_the_fill_layout(weights: Path) -> None:
    config = weights / "transformer" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"in_channels": 16, "out_channels": None})
    )
    assert policies.register(name="dev", location=str(weights)).card["text_to_image"] is True


def test_the_command_explains_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is missing"):
        call_command("register_policy", tmp_path, activate=True)
    assert not Policy.objects.exists()
