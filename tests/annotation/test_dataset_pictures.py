"""The pictures of a dataset, as files, in Parquet and in WebDataset's tars."""

import io
from pathlib import Path

import datasets as hub
import pytest
import webdataset
from PIL import Image as Pillow

from annotation import dataset_pictures, datasets
from annotation.dataset_pictures import Pictures
from annotation.datasets import DatasetError
from annotation.models import Judgment
from generation import images
from generation.models import Image
from tests.annotation.factories import claim, make_campaign, make_dimension, submit
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
    out = tmp_path / "out"
    counts = write(out, "parquet").counts
    names = hub.get_dataset_config_names(str(out))
    assert sorted(names) == ["candidates", "images", "judgments", "preferences", "sets"]
    for name in names:
        rows = hub.load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == counts[name]


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
