import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image as Pillow

from generation import images
from generation.models import Source, Task
from generation.readers import ReadError, tars
from generation.sources import import_sources
from tests.factories import make_mask_picture, make_picture, make_task

pytestmark = pytest.mark.django_db


def encoded(picture: Pillow.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


MASK = encoded(make_mask_picture())


def pack(path: Path, files: dict[str, bytes | str], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, seed: int, prompt: str = "a hat") -> dict[str, bytes | str]:
    picture = encoded(make_picture(seed), "JPEG")
    return {f"{key}.jpg": picture, f"{key}.mask.png": MASK, f"{key}.txt": prompt}


@pytest.fixture
def task() -> Task:
    return make_task("mend")


def refusals(path: Path, task: Task) -> dict[str, str]:
    return dict(import_sources(path, task, prompt="a bone").refused)


def test_it_reads_what_webdataset_writes(tmp_path: Path, task: Task) -> None:
    with webdataset.TarWriter(str(tmp_path / "cats.tar")) as writer:
        for number, prompt in enumerate(["a\nhat", "قبعة 🎩"]):
            picture = np.asarray(make_picture(number))
            mask = np.asarray(make_mask_picture())
            writer.write(
                {
                    "__key__": f"cat/{number}",
                    "png": picture,
                    "mask.png": mask,
                    "txt": prompt,
                    "json": {"licence": "CC0", "tags": {"scene": "attic"}},
                }
            )

    report = import_sources(tmp_path / "cats.tar", task)

    assert (report.created, report.refused) == (2, [])
    first, second = Source.objects.order_by("external_id")
    assert (first.external_id, first.prompt, first.licence) == ("cat/0", "a\nhat", "CC0")
    assert (second.prompt, second.tags) == ("قبعة 🎩", {"scene": "attic"})
    assert images.open_image(first.image) == make_picture(0)
    assert images.open_image(second.mask) == make_mask_picture()
    assert import_sources(tmp_path / "cats.tar", task).existing == 2


def test_it_reads_brushdata_with_a_source_for_each_mask(tmp_path: Path, task: Task) -> None:
    # Runs go down the columns, from 1: the first two columns, and the last.
    segmentation = {"mask": [[1, 128], [64 * 63 + 1, 64]], "label": ["hat", "cat"]}
    path = pack(
        tmp_path / "00200.tar",
        {
            "000012.aesthetic_score": "6.25",
            "000012.caption": "a cat with a hat",
            "000012.height": "64",
            "000012.image": encoded(make_picture(1), "JPEG"),
            "000012.segmentation": json.dumps(segmentation),
            "000012.url": "https://example.org/cat",
            "000012.width": "64",
            "000013.caption": "no mask at all",
            "000013.image": encoded(make_picture(2), "JPEG"),
            "000013.segmentation": '{"mask": []}',
        },
    )

    report = import_sources(path, task)

    assert (report.rows, report.created) == (3, 2)
    assert [name for name, _ in report.refused] == ["00200.tar 000013"]
    assert "has no mask" in report.refused[0][1]
    hat, cat = Source.objects.order_by("external_id")
    assert (hat.external_id, hat.prompt) == ("000012 mask 1", "a cat with a hat")
    assert hat.tags == {"label": "hat", "aesthetic_score": 6.25, "url": "https://example.org/cat"}
    assert cat.tags["label"] == "cat"
    edited = np.asarray(images.open_image(hat.mask))
    assert edited[:, :2].all()
    assert not edited[:, 2:].any()
    assert np.asarray(images.open_image(cat.mask))[:, 63].all()


def test_masks_in_numbers_come_from_the_json(tmp_path: Path, task: Task) -> None:
    picture = encoded(make_picture(1))
    told: dict[str, object] = {
        "a": {"mask": {"size": [64, 64], "counts": [0, 64, 64 * 63]}},
        "b": {"segmentation": [[8, 8, 8, 40, 40, 40, 40, 8]]},
        "c": {"bbox": [8, 8, 32, 32]},
        "d": {"mask": "cat_mask.png"},
    }
    files: dict[str, bytes | str] = {}
    for key, said in told.items():
        files |= {f"{key}.png": picture, f"{key}.json": json.dumps({"prompt": key, **said})}  # type: ignore[dict-item]

    refused = refusals(pack(tmp_path / "a.tar", files), task)

    assert list(refused) == ["a.tar d"]
    assert "names the file cat_mask.png" in refused["a.tar d"]
    by_key = {
        source.prompt: np.asarray(images.open_image(source.mask)) for source in Source.objects.all()
    }
    assert by_key["a"][:, 0].all()
    assert not by_key["a"][:, 1:].any()
    assert (by_key["b"] == by_key["c"]).all()
    assert int((by_key["c"] > 0).sum()) == 32 * 32


@pytest.mark.parametrize("given", ["folder", "pattern", "compressed"])
def test_it_reads_several_shards(tmp_path: Path, task: Task, given: str) -> None:
    end, mode = (".tar.gz", "w:gz") if given == "compressed" else (".tar", "w")
    for number in range(3):
        pack(tmp_path / f"cats-{number:03d}{end}", sample(f"cat{number}", number), mode)
    path = tmp_path / f"cats-{{000..003}}{end}" if given == "pattern" else tmp_path
    report = import_sources(path, task)
    assert report.created == 3
    # The pattern names a fourth one.
    assert report.refused == (
        [("cats-003.tar", "This file is not there.")] if given == "pattern" else []
    )


def test_patterns_are_webdatasets() -> None:
    named = tars.expand(Path(__file__).parent / "test_{tars,sources}.py")
    assert [path.name for path in named] == ["test_tars.py", "test_sources.py"]
    with pytest.raises(ReadError, match="does not exist"):
        tars.expand(Path("/nowhere/{00..09}.tar"))
    with pytest.raises(ReadError, match="more than 100000"):
        tars.expand(Path("/nowhere/{0..999}-{0..999}.tar"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_off_tar_gives_a_sentence_and_the_rows_before_it(
    tmp_path: Path, task: Task, mode: str
) -> None:
    whole = pack(tmp_path / "cats.tar", sample("cat1", 1) | sample("cat2", 2), mode)
    data = whole.read_bytes()
    # The end mark of tars is 10 kB of zeros, which gzip leaves next to nothing of.
    whole.write_bytes(data[: len(data) - (10_500 if mode == "w" else 100)])

    refused = refusals(whole, task)

    assert list(refused) == ["cats.tar"]
    assert "damaged or cut off" in refused["cats.tar"]
    assert [source.external_id for source in Source.objects.all()] == ["cat1"]


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path, task: Task) -> None:
    path = pack(tmp_path / "cats.tar", sample("cat1", 1) | sample("cat2", 2))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        at = tar.getmember("cat2.jpg").offset
    data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    assert "no end mark" in refusals(path, task)["cats.tar"]


def test_links_devices_and_duplicates_are_refused(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "cats.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("c.txt", "c.txt", "../../d.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"word"))
    refused = refusals(path, task)
    assert "is a link or a device" in refused["cats.tar a"]
    assert "is a link or a device" in refused["cats.tar b"]
    assert "two files c.txt" in refused["cats.tar c"]
    assert "starts from a picture" in refused["cats.tar ../../d"]
    assert not Source.objects.exists()


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MOST_TEXT_BYTES", 2**20)
    big = sample("cat1", 1, prompt="x" * (2**20 + 1))
    path = pack(tmp_path / "cats.tar", big | sample("cat2", 2))
    assert "larger than 1 MB" in refusals(path, task)["cats.tar cat1"]
    assert Source.objects.get().external_id == "cat2"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.txt": b"\xff\xfe\x00"}, "is not UTF-8"),
        ({"a.json": "{"}, "is not JSON"),
        ({"a.json": "[1]"}, "is not an object"),
        ({"a.height": "tall"}, "is not a number"),
        ({"a.json": '{"tags": {"x": NaN}}'}, "what JSON has not"),
        ({"a.json": '{"tags": {"x": "\\u0000"}}'}, "null character"),
        ({"a.json": '{"licence": "\\ud800"}'}, "half a character"),
    ],
)
def test_it_says_what_is_wrong_with_a_sample(
    tmp_path: Path, task: Task, files: dict[str, bytes | str], reason: str
) -> None:
    assert reason in refusals(pack(tmp_path / "a.tar", files), task)["a.tar a"]


def test_an_archive_without_samples_says_what_one_is(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ReadError, match="share a name"):
        import_sources(pack(tmp_path / "a.tar", {"README": "hello"}), task)


# Tables of others


def test_it_reads_the_folders_of_flow_factory_and_edit_r1(tmp_path: Path, task: Task) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        make_picture(number).save(tmp_path / "images" / f"{number}.png")
    make_mask_picture().save(tmp_path / "images" / "mask.png")
    rows: list[dict[str, object]] = [
        {"prompt": "a hat", "image": "0.png", "negative_prompt": "blurry"},
        {"prompt": "a cap", "images": ["images/1.png"], "requirement": "keep the face"},
        {"prompt": "a wig", "images": ["1.png", "2.png"]},
    ]
    for name in ("train.jsonl", "train_metadata.jsonl"):
        table = tmp_path / name
        table.write_text("".join(json.dumps(row | {"mask": "mask.png"}) + "\n" for row in rows))
        report = import_sources(tmp_path, task)
        table.unlink()
        assert [reason for _, reason in report.refused] == [
            "It names 2 pictures; a source has one."
        ]
    assert report.existing == 2
    assert list(Source.objects.order_by("pk").values_list("prompt", "tags")) == [
        ("a hat", {"negative_prompt": "blurry"}),
        ("a cap", {"requirement": "keep the face"}),
    ]


def test_the_alpha_channel_may_be_the_mask(tmp_path: Path, task: Task) -> None:
    picture = make_picture(1)
    alpha = Pillow.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 16, 64))
    picture.putalpha(alpha)
    picture.save(tmp_path / "cat.png")
    make_picture(2).save(tmp_path / "dog.png")

    report = import_sources(tmp_path, task, prompt="a hat", mask_from="alpha")

    assert [name for name, _ in report.refused] == ["dog.png"]
    mask = images.open_image(Source.objects.get().mask)
    assert (mask.getpixel((3, 3)), mask.getpixel((40, 3))) == (255, 0)
