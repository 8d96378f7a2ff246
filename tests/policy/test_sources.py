import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from modeling.policy.sources import Sources, read_rows, working_size
from modeling.rundir import RunError
from tests.policy.tiny import write_sources


@pytest.fixture(scope="module")
def models(policy_dir: Path) -> FillModels:
    return load_models(PolicySpec(location=str(policy_dir)))


def test_it_scales_large_pictures_down_to_multiples() -> None:
    assert working_size((64, 64), 262144, 8) == (64, 64)
    assert working_size((1024, 1024), 262144, 16) == (512, 512)
    assert working_size((1000, 500), 125000, 16) == (496, 240)
    assert working_size((4000, 10), 1024, 8)[1] == 8


def test_it_reads_rows_and_leaves_out_those_without_a_question(tmp_path: Path) -> None:
    path = write_sources(tmp_path / "run") / "sources.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text() + "\n" + json.dumps({**row, "id": "none", "queries": {}}))
    rows = read_rows(path)
    assert [found.id for found in rows] == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert rows[0].image == tmp_path / "run" / "pictures" / "0.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Line 1 of .* is not a JSON object"),
        ('{"id": 1, "task": "fill"}', "lacks image, mask, prompt, queries"),
    ],
)
def test_it_names_the_line_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sources.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_rows(path)


def test_it_names_the_missing_picture(tmp_path: Path, models: FillModels) -> None:
    run = write_sources(tmp_path / "run")
    (run / "pictures" / "2.png").unlink()
    with pytest.raises(RunError, match=r"2\.png' of source s2 cannot be read"):
        Sources(read_rows(run / "sources.jsonl"), models, max_pixels=4096)


def test_it_refuses_a_mask_of_another_size(tmp_path: Path, models: FillModels) -> None:
    run = write_sources(tmp_path / "run")
    Image.new("L", (16, 16), 255).save(run / "pictures" / "mask.png")
    sources = Sources(read_rows(run / "sources.jsonl"), models, max_pixels=4096)
    with pytest.raises(RunError, match="mask of source s0 is 16 x 16, its picture 32 x 32"):
        sources.batch([0])


def test_its_batches_have_one_size_and_the_tasks_shares(tmp_path: Path, models: FillModels) -> None:
    """Sources 1 and 2 are larger: a third of the tasks' whole weight lies on them."""
    run = write_sources(tmp_path / "run")
    for name in ("1", "2", "mask"):
        source = Image.open(run / "pictures" / f"{name}.png")
        source.resize((64, 48)).save(run / "pictures" / f"{name}-large.png")
    path = run / "sources.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:3]:
        row["image"] = row["image"].replace(".png", "-large.png")
        row["mask"] = row["mask"].replace(".png", "-large.png")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = Sources(read_rows(path), models, max_pixels=4096)
    rng = np.random.default_rng(0)
    seen: Counter[int] = Counter()
    for _ in range(600):
        indices = sources.draw(rng, 3)
        assert len({sources.sizes[index] for index in indices}) == 1
        seen.update(indices)
    # Weights 2 (fill: sources 1, 2, 4, 5) and 1 (removal: 0, 3): 1800 draws, 300 each.
    assert all(abs(seen[index] - 300) < 75 for index in range(6)), seen
    batch = sources.batch([1, 2])
    assert batch.images.shape == (2, 3, 48, 64)
    assert batch.conditions.grid == (6, 8)


def test_it_encodes_a_source_the_same_in_any_batch(tmp_path: Path, models: FillModels) -> None:
    rows = read_rows(write_sources(tmp_path / "run") / "sources.jsonl")
    first = Sources(rows, models, max_pixels=4096).batch([3, 1])
    other = Sources(rows, models, max_pixels=4096).batch([0, 1, 2])
    assert torch.equal(first.conditions.masked_image[1], other.conditions.masked_image[1])
    assert torch.equal(first.conditions.prompt_embeds[1], other.conditions.prompt_embeds[1])
