"""A dataset as others read it: its card, and its pictures as files, in Parquet and in tars."""

import io
from pathlib import Path

import datasets as hub
import pytest
import webdataset
from huggingface_hub import DatasetCard
from PIL import Image as Pillow

from annotation import dataset_pictures, datasets
from annotation.dataset_files import TABLES
from annotation.dataset_pictures import Pictures
from annotation.datasets import DatasetError
from annotation.models import Aggregation, Judgment, Rating
from generation import images
from generation.models import Image, Policy, Source
from tests.annotation.factories import claim, make_campaign, make_dimension, make_turn, submit
from tests.factories import make_set, make_source, make_task, make_user


@pytest.fixture
def judged(db: None) -> None:
    """A set of four of a source of 64 × 48 with its mask: six pictures."""
    task = make_task("paint")
    make_dimension("text", task=task)
    campaign = make_campaign(task=task, sets=[make_set(make_source(task, size=(64, 48)))])
    submit(claim(make_user(), campaign))


def write(directory: Path, form: str, max_side: int | None = None) -> datasets.Written:
    pictures = Pictures(form, max_side)
    return datasets.write(directory, Judgment.objects.current(), pictures=pictures)


def test_it_leaves_pictures_out(judged: None, tmp_path: Path) -> None:
    with_pictures = write(tmp_path / "files", "files")
    without = write(tmp_path / "none", "none")
    assert not list((tmp_path / "none").rglob("*.png"))
    assert (without.counts["images"], with_pictures.counts["images"]) == (0, 6)
    assert without.content_hash == with_pictures.content_hash
    assert "not included" in (tmp_path / "none" / "README.md").read_text()
    datasets.verify(tmp_path / "none")


def test_parquet_holds_them_as_the_hub_s_loader_reads_them(
    judged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dataset_pictures, "SHARD", 4)
    out = tmp_path / "out"
    write(out, "parquet")
    assert sorted(path.name for path in out.glob("images-*")) == [
        "images-00000.parquet",
        "images-00001.parquet",
    ]
    datasets.verify(out)
    rows = hub.load_dataset(str(out), "images", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 6
    for row in rows:
        stored = Image.objects.get(sha256=row["sha256"])
        assert row["image"].size == (row["width"], row["height"]) == (stored.width, stored.height)
        assert row["image"].tobytes() == images.open_image(stored).tobytes()


def test_every_configuration_loads_with_the_hub_s_loader(
    judged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    one = Judgment.objects.get()
    turn, text = one.assignment, one.dimension
    other = make_turn(turn.item, make_user(), {text: "no_difference"}, slot=3)
    Rating.objects.create(
        assignment=other, set=one.set, candidate=one.set.candidates.get(index=0), value=1
    )
    entry = {"user": turn.annotator_id, "dimension": text.pk, "n": 1, "accuracy": 0.9}
    Aggregation.objects.create(campaign=turn.item.campaign, reliability=[entry])
    out = tmp_path / "out"
    rows, ratings = Judgment.objects.current(), Rating.objects.current()
    counts = datasets.write(out, rows, ratings=ratings, pictures=Pictures("parquet")).counts
    names = hub.get_dataset_config_names(str(out))
    assert set(names) == set(counts) == {*TABLES, "images"}
    for name in names:
        loaded = hub.load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == counts[name] > 0


def test_the_hub_understands_its_card(judged: None, tmp_path: Path) -> None:
    Source.objects.update(licence="CC-BY-4.0")
    out = tmp_path / "out"
    write(out, "files")
    card = DatasetCard.load(out / "README.md", ignore_metadata_errors=False)
    said = card.data.to_dict()
    assert said["pretty_name"] == "Judgments of images: Paint"
    assert (said["license"], said["language"]) == ("cc-by-4.0", ["en"])
    assert said["size_categories"] == ["n<1K"]
    assert said["task_categories"] == ["image-to-image"]
    assert {one["config_name"]: one["data_files"] for one in said["configs"]} == {
        name: f"{name}.parquet" for name in ("sets", "candidates", "judgments", "preferences")
    }
    assert [one["config_name"] for one in said["configs"] if one.get("default")] == ["preferences"]
    titles = [line for line in card.text.splitlines() if line.startswith("## ")]
    assert titles == [
        "## What is in it",
        "## What people were asked",
        "## How far people agree",
        "## Policies",
        "## Licences",
        "## How it was made",
        "## Known limits",
    ]
    policy = Policy.objects.get()
    assert f"| {policy.name} | 4 | 4 | 25.0 % | 25.0 % |" in card.text
    assert "| `text` | not known | 0 |" in card.text
    assert "| CC-BY-4.0 | 1 |" in card.text


def test_its_card_says_how_far_people_agree(judged: None, tmp_path: Path) -> None:
    """Two units of two people each, a a | a b: of the four values three are a and one is b, so
    nominal alpha = 1 - 3 * 2 / (3 * 1 + 1 * 3) = 0."""
    one = Judgment.objects.get()
    task, text = one.set.source.task, one.dimension
    ann = one.assignment.annotator
    other = make_campaign(task=task, sets=[make_set(make_source(task))], overlap=2).items.get()
    make_turn(one.assignment.item, make_user(), {text: (0, 2)}, slot=1)
    make_turn(other, ann, {text: (0, 1)})
    make_turn(other, make_user(), {text: (1, 0)})
    write(tmp_path / "out", "none")
    assert "| `text` | 0.00 | 2 |" in (tmp_path / "out" / "README.md").read_text()


def test_tars_hold_them_as_webdataset_reads_them(
    judged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_pictures, "SHARD", 4)
    out = tmp_path / "out"
    write(out, "webdataset")
    datasets.verify(out)
    shards = [str(path) for path in sorted(out.glob("images-*.tar"))]
    assert len(shards) == 2
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(found) == 6
    for sample in found:
        stored = Image.objects.get(sha256=sample["__key__"])
        size = {"width": stored.width, "height": stored.height}
        assert sample["json"] == {"sha256": stored.sha256} | size
        assert sample["png"].convert("RGB").tobytes() == (
            images.open_image(stored).convert("RGB").tobytes()
        )


@pytest.mark.parametrize("form", ["files", "parquet", "webdataset"])
def test_smaller_pictures_keep_their_names(judged: None, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    write(out, form, 32)
    assert datasets.verify(out)["images"] == {"form": form, "max_side": 32}
    assert "above 32 pixels were made smaller" in (out / "README.md").read_text()
    if form == "files":
        source = Judgment.objects.all()[0].set.source
        for image in (source.image, source.mask):
            path = out / "images" / image.sha256[:2] / f"{image.sha256}.png"
            with Pillow.open(path) as picture:
                assert picture.size == (32, 24)
                if image == source.mask:
                    assert set(picture.getdata()) == {0, 255}
        # What lies in the store was not touched.
        assert images.open_image(source.image).size == (64, 48)


def test_pictures_that_are_small_enough_stay_as_they_are(judged: None, tmp_path: Path) -> None:
    write(tmp_path / "out", "files", 64)
    image = Judgment.objects.all()[0].set.source.image
    path = tmp_path / "out" / "images" / image.sha256[:2] / f"{image.sha256}.png"
    assert path.read_bytes() == images.read_bytes(image)


@pytest.mark.parametrize("form", ["files", "parquet", "webdataset"])
def test_verify_finds_a_picture_that_is_missing_or_another(
    judged: None, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "out"
    write(out, form, 32)
    if form == "files":
        path = next((out / "images").glob("??/*.png"))
        file = io.BytesIO()
        Pillow.new("RGB", (33, 33)).save(file, "PNG")
        path.write_bytes(file.getvalue())
        with pytest.raises(DatasetError, match="is not the one its name says"):
            datasets.verify(out)
    for path in out.rglob("*.png" if form == "files" else "images-*"):
        path.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        datasets.verify(out)
