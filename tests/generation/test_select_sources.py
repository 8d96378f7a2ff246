"""Sources that stand for many, by the real CLIP architecture at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from django.core.management import CommandError, call_command
from PIL import Image as Pillow
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from generation import candidates, embeddings, images
from generation.models import Source, Task, Withdrawal
from tests.factories import make_source, make_task

COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    return folder


@pytest.fixture
def task(db: None) -> Task:
    """Three kinds of pictures: six red, three green, one blue."""
    task = make_task("mend")
    rng = np.random.default_rng(0)
    for name, count in (("red", 6), ("green", 3), ("blue", 1)):
        for _ in range(count):
            noise = rng.integers(-20, 20, (40, 48, 3))
            pixels = (np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)
            image = images.store(Pillow.fromarray(pixels))
            make_source(task, image=image, size=(48, 40), tags={"kind": name})
    return task


def select(clip: Path, folder: Path, **options: object) -> list[Source]:
    report = folder / "chosen.json"
    call_command("select_sources", model=str(clip), json=str(report), **options)
    chosen = [row["id"] for row in json.loads(report.read_text())["sources"]]
    return [Source.objects.get(pk=pk) for pk in chosen]


def test_it_chooses_one_of_each_kind(task: Task, clip: Path, tmp_path: Path) -> None:
    chosen = select(clip, tmp_path, count=3, mark="batch=first")

    assert [source.tags["kind"] for source in chosen] == ["red", "green", "blue"]
    # What generate_candidates --tag takes.
    picked = candidates.pick_sources(task, 99, "train", 0, {"batch": "first"})
    assert set(picked) == set(chosen)
    # Chosen again the tag moves, and a withdrawn source is out of question.
    blue = chosen[-1]
    Withdrawal.objects.create(source=blue, reason="asked to")
    chosen = select(clip, tmp_path, count=2, mark="batch=first")
    assert [source.tags["kind"] for source in chosen] == ["red", "green"]
    assert Source.objects.filter(tags__batch="first").exclude(pk=blue.pk).count() == 2


def test_an_embedding_is_that_of_the_model_and_is_kept(
    task: Task, clip: Path, tmp_path: Path
) -> None:
    pictures = [source.image for source in task.sources.order_by("pk")]
    shown: list[tuple[int, int]] = []

    vectors = embeddings.embed([*pictures, pictures[0]], str(clip), lambda *at: shown.append(at))

    assert vectors.shape == (11, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(11), abs=1e-5)
    assert shown[-1] == (10, 10)
    model = CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    pixels = processor(images=[images.open_image(pictures[3])], return_tensors="pt")
    with torch.no_grad():
        alone = model(**pixels).image_embeds[0].numpy()
    assert vectors[3] == pytest.approx(alone / np.linalg.norm(alone), abs=1e-5)
    # Kept: nothing is computed a second time, not even without the model's files.
    shown.clear()
    (clip / "model.safetensors").rename(tmp_path / "away")
    again = embeddings.embed(pictures, str(clip), lambda *at: shown.append(at))
    (tmp_path / "away").rename(clip / "model.safetensors")
    assert (again == vectors[:10]).all()
    assert shown == []


def test_the_one_nearest_each_centre_stands_for_its_cluster() -> None:
    rows = np.array([[0, 1.0], [0.2, 1], [0.1, 1], [1, 0], [1, 0.2], [1, 0.1], [1, 0.12]])
    vectors = rows.astype(np.float32)
    assert embeddings.representatives(vectors, 2) == [5, 2]
    # More than there are different ones: each once.
    assert embeddings.representatives(np.repeat(vectors[:2], 2, axis=0), 3) == [0, 2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"count": 0}, "--count must be at least 1"),
        ({"count": 1, "task": "nothing"}, "There is no task “nothing”"),
        ({"count": 1, "mark": "first"}, "A tag reads name=value"),
        ({"count": 1, "tag": ["kind=black"]}, "No usable source fits"),
        ({"count": 1, "model": "/nowhere"}, "There is no directory “/nowhere”"),
    ],
)
def test_it_says_what_is_wrong(task: Task, options: dict[str, object], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        call_command("select_sources", **options)


def test_rows_that_are_alike_are_in_one_cluster() -> None:
    rows = np.array([[0, 1.0], [0.2, 1], [1, 0], [1, 0.2], [1, 0]])
    first, second, third, fourth, fifth = embeddings.clusters(rows.astype(np.float32), 2)
    assert first == second != third
    assert third == fourth == fifth
    # As many clusters as rows that differ: equal ones are together all the same.
    found = embeddings.clusters(rows.astype(np.float32), 9)
    assert len(set(found)) == 4
    assert found[2] == found[4]
