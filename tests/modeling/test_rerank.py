"""Several reward models on one base judge together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from django.core.management import CommandError

from generation import images
from generation.models import Source
from modeling.models import RewardModel
from modeling.reward.vlm import attach_lora, load_reward_vlm, write_settings
from tests.modeling.project import Project
from tests.modeling.test_commands import call


def add_member(project: Project, folder: Path, seed: int) -> RewardModel:
    vlm = load_reward_vlm(project.reward.location)
    torch.manual_seed(seed)
    vlm.model = attach_lora(vlm.model, rank=2, alpha=4, dropout=0.0, vision=False)
    for name, weight in vlm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    vlm.model.save_pretrained(folder)
    write_settings(folder, vlm)
    return RewardModel.objects.create(
        name=f"member {seed}", location=project.reward.location, adapter=str(folder)
    )


def test_an_ensemble_ranks_with_its_spread(project: Project, tmp_path: Path) -> None:
    for seed in (0, 1):
        add_member(project, tmp_path / str(seed), seed)
    source = Source.objects.filter(task__slug="fill").first()
    assert source is not None
    picture = images.open_image(source.image)
    names = []
    for number in range(3):
        name = tmp_path / f"{number}.png"
        picture.rotate(90 * number).save(name)
        names.append(str(name))
    place = ["--task", "fill", "--source", str(source.pk), "--reward", "member 0"]
    out = tmp_path / "out.json"

    said = call("rerank", *place, "--member", "member 1", *names, json=str(out))
    together = json.loads(out.read_text())["ranking"]
    alone = []
    for model in ("member 0", "member 1"):
        call("rerank", *place[:4], "--reward", model, *names, json=str(out))
        alone.append({row["image"]: row for row in json.loads(out.read_text())["ranking"]})

    assert " ± " in said
    for row in together:
        for dimension, score in row["dimensions"].items():
            one, other = (found[row["image"]]["dimensions"][dimension] for found in alone)
            assert score == pytest.approx((one + other) / 2, abs=1e-4)
            assert row["std"][dimension] == pytest.approx(abs(one - other) / 2**0.5, abs=1e-4)
    assert all(set(row["std"].values()) == {0.0} for row in alone[0].values())

    with pytest.raises(CommandError, match="an ensemble needs LoRAs on one base"):
        call("rerank", *place, "--member", "tiny reward", *names)
