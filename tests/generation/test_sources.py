import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image as Pillow
from pyarrow import parquet

from generation import images
from generation.images import ImageError
from generation.models import Image, Source, Split, Task
from generation.readers import ReadError
from generation.sources import SourceError, add_source, import_sources, split_of, task_named
from tests.factories import make_mask_picture, make_picture, make_task

pytestmark = pytest.mark.django_db


def png(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def task() -> Task:
    return make_task("mend")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures with masks in both ways of naming, and prompts beside them."""
    home = tmp_path / "photographs"
    (home / "masks").mkdir(parents=True)
    make_picture(1).save(home / "cat.jpg")
    make_mask_picture().save(home / "cat_mask.png")
    (home / "cat.txt").write_text("a green hat\n")
    make_picture(2, (80, 48)).save(home / "dog.v2.PNG")
    make_mask_picture((80, 48)).save(home / "masks" / "dog.v2.png")
    return home


# One by one


def test_it_stores_a_source_once(task: Task) -> None:
    def add() -> tuple[Source, bool]:
        return add_source(
            task=task, image=make_picture(1), mask=make_mask_picture(), prompt=" a hat "
        )

    source, created = add()
    assert created
    assert source.prompt == "a hat"
    assert source.split == split_of(source.image.sha256)
    assert add() == (source, False)
    assert Image.objects.count() == 2


def test_it_never_puts_one_picture_into_both_splits(task: Task) -> None:
    other = make_task()
    for seed in range(30):
        for where, prompt in ((task, "one"), (task, "two"), (other, "one")):
            add_source(
                task=where, image=make_picture(seed), mask=make_mask_picture(), prompt=prompt
            )
    by_image: dict[int, set[str]] = {}
    for source in Source.objects.all():
        by_image.setdefault(source.image_id, set()).add(source.split)
    assert len(by_image) == 30
    assert {len(splits) for splits in by_image.values()} == {1}


def test_it_holds_out_a_fifth() -> None:
    shares = [split_of(f"{number * 2654435761 % 2**32:08x}" + "0" * 56) for number in range(5000)]
    assert shares.count(Split.HOLDOUT) / 5000 == pytest.approx(0.2, abs=0.01)


def test_it_starts_a_task_without_source_from_a_blank_picture() -> None:
    task = make_task(needs_source=False, needs_mask=False)
    prompts = [f"picture {number}" for number in range(40)]
    made = [add_source(task=task, image=None, mask=None, prompt=prompt)[0] for prompt in prompts]
    assert {source.image_id for source in made} == {made[0].image_id}
    assert images.open_image(made[0].mask).getextrema() == (255, 255)
    # The picture is the same for all, so the prompt decides.
    assert {source.split for source in made} == {"train", "holdout"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": "  "}, "Mend needs a prompt"),
        ({"prompt": "nul\0"}, "null character"),
        ({"prompt": "long " * 1000}, "longer than 2400 bytes"),
        ({"image": None}, "starts from a picture"),
        ({"mask": None}, "has no mask, which Mend needs"),
        ({"mask": Pillow.new("L", (32, 64), 255)}, "has 32 × 64 pixels and the picture 64 × 64"),
        ({"mask": Pillow.new("L", (64, 64), 0)}, "is empty"),
    ],
)
def test_it_refuses_a_source_that_cannot_work(
    task: Task, changes: dict[str, Any], reason: str
) -> None:
    good: dict[str, Any] = {"image": make_picture(1), "mask": make_mask_picture()}
    with pytest.raises((SourceError, ImageError), match=reason):
        add_source(task=task, **(good | {"prompt": "a hat"} | changes))
    assert not Source.objects.exists()
    assert not Image.objects.exists()


def test_it_needs_no_prompt_where_the_task_has_a_fixed_one() -> None:
    task = make_task(fixed_prompt="remove")
    source, _ = add_source(task=task, image=make_picture(1), mask=make_mask_picture(), prompt="")
    assert source.effective_prompt == "remove"


def test_it_names_the_known_tasks(task: Task) -> None:
    assert task_named("mend") == task
    with pytest.raises(SourceError, match="no task “mendd”.*mend"):
        task_named("mendd")


# Folders


def test_it_imports_a_folder_of_photographs(task: Task, folder: Path) -> None:
    report = import_sources(folder, task, prompt="a bone")

    assert report.as_json() == {"rows": 2, "created": 2, "existing": 0, "refused": []}
    cat, dog = Source.objects.order_by("external_id")
    assert (cat.prompt, cat.external_id) == ("a green hat", "cat.jpg")
    assert (dog.prompt, dog.image.width, dog.image.height) == ("a bone", 80, 48)
    assert images.open_image(dog.mask) == make_mask_picture((80, 48))


def test_it_changes_nothing_when_run_again(task: Task, folder: Path) -> None:
    import_sources(folder, task, prompt="a bone")
    before = list(Source.objects.values_list("pk", flat=True))
    report = import_sources(folder, task, prompt="a bone")
    assert (report.created, report.existing) == (0, 2)
    assert list(Source.objects.values_list("pk", flat=True)) == before


def test_it_checks_without_storing(task: Task, folder: Path) -> None:
    report = import_sources(folder, task, prompt="a bone", dry_run=True)
    assert (report.created, report.refused) == (2, [])
    assert not Source.objects.exists()
    assert not Image.objects.exists()
    import_sources(folder, task, prompt="a bone")
    assert import_sources(folder, task, prompt="a bone", dry_run=True).existing == 2


def test_it_takes_the_good_rows_and_lists_the_others(task: Task, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:500])
    make_mask_picture().save(folder / "broken_mask.png")
    make_picture(3).save(folder / "lonely.png")
    make_picture(4).save(folder / "wide.png")
    make_mask_picture((32, 32)).save(folder / "wide-mask.png")
    (folder / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))

    report = import_sources(folder, task, prompt="a bone")

    assert (report.rows, report.created) == (6, 2)
    reasons = dict(report.refused)
    assert "broken.jpg is damaged" in reasons["broken.jpg"]
    assert reasons["lonely.png"].startswith("lonely.png has no mask")
    assert "wide-mask.png has 32 × 32 pixels and wide.png 64 × 64" in reasons["wide.png"]
    assert "HEIC" in reasons["phone.heic"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere", "does not exist"), ("notes.md", "is not read here"), ("hollow", "no pictures")],
)
def test_it_says_what_it_expected(task: Task, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(ReadError, match=reason):
        import_sources(tmp_path / name, task)


# Tables


def test_it_imports_json_lines(task: Task, folder: Path) -> None:
    rows = [
        {
            "image": "cat.jpg",
            "mask": "cat_mask.png",
            "prompt": "a hat",
            "tags": {"scene": "garden"},
            "licence": "CC0-1.0",
            "attribution": "Somebody",
            "id": 7,
        },
        {"image": "cat.jpg", "mask": "cat_mask.png", "prompt": "a bow", "tags": ["red", "old"]},
        {"image": "bird.jpg", "mask": "cat_mask.png", "prompt": "a bow"},
        {"image": "https://example.org/cat.jpg", "mask": "cat_mask.png", "prompt": "a bow"},
        {"mask": "cat_mask.png", "prompt": "a bow"},
    ]
    file = folder / "rows.jsonl"
    lines = [json.dumps(row) for row in rows] + ["", "{not json", "[1]"]
    file.write_text("\n".join(lines))

    report = import_sources(file, task)

    assert report.created == 2
    assert {row: reason.split(".")[0] for row, reason in report.refused} == {
        "line 3": "bird",
        "line 4": "https://example",
        "line 5": "Mend starts from a picture",
        "line 7": "This is not JSON (Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1))",
        "line 8": "This is not a JSON object",
    }
    hat, bow = Source.objects.order_by("pk")
    assert (hat.tags, hat.external_id, hat.licence) == ({"scene": "garden"}, "7", "CC0-1.0")
    assert bow.tags == {"red": True, "old": True}


def test_it_imports_csv(task: Task, folder: Path) -> None:
    file = folder / "rows.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["image", "mask", "prompt", "tags"])
        writer.writerow(["cat.jpg", "cat_mask.png", 'a "red", hat', "red, indoor"])
        writer.writerow(["dog.v2.PNG", "masks/dog.v2.png", "", '{"scene": "park"}'])
    report = import_sources(file, task)
    assert report.created == 1
    assert report.refused == [
        ("line 3", "Mend needs a prompt. Say what the edit should show."),
    ]
    source = Source.objects.get()
    assert source.prompt == 'a "red", hat'
    assert source.tags == {"red": True, "indoor": True}


def test_it_imports_parquet_with_pictures_inside(task: Task, tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": [
                {"bytes": png(make_picture(5)), "path": "five.png"},
                {"bytes": b"nothing", "path": "six.png"},
            ],
            "mask": [{"bytes": png(make_mask_picture()), "path": None}] * 2,
            "text": ["a hat", "a bow"],
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    report = import_sources(tmp_path / "rows.parquet", task)
    assert report.created == 1
    assert report.refused[0][0] == "rows.parquet row 2"
    assert report.refused[0][1].startswith("six.png is not a picture")
    assert Source.objects.get().prompt == "a hat"


def test_it_imports_a_saved_hugging_face_dataset(task: Task, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        image=datasets.Image(), mask=datasets.Image(), prompt=datasets.Value("string")
    )
    rows = {
        "image": [{"bytes": png(make_picture(seed)), "path": None} for seed in (5, 6)],
        "mask": [{"bytes": png(make_mask_picture()), "path": None}] * 2,
        "prompt": ["a hat", "a bow"],
    }
    dataset = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "saved")
    report = import_sources(tmp_path / "saved", task)
    assert (report.rows, report.created, report.refused) == (2, 2, [])


def test_it_imports_a_folder_with_metadata(task: Task, folder: Path) -> None:
    row = {"file_name": "cat.jpg", "mask": "cat_mask.png", "text": "a scarf"}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    assert import_sources(folder, task).created == 1
    assert Source.objects.get().prompt == "a scarf"
