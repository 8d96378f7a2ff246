import json
from collections import Counter
from pathlib import Path
from threading import current_thread

import numpy as np
import pytest
import torch
from PIL import Image

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from modeling.policy.conditions import Encoder
from modeling.policy.sources import Batch, Sources, read_rows, working_size
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
        Sources(read_rows(run / "sources.jsonl"), Encoder(models), max_pixels=4096)


def test_it_refuses_a_mask_of_another_size(tmp_path: Path, models: FillModels) -> None:
    run = write_sources(tmp_path / "run")
    Image.new("L", (16, 16), 255).save(run / "pictures" / "mask.png")
    sources = Sources(read_rows(run / "sources.jsonl"), Encoder(models), max_pixels=4096)
    with pytest.raises(RunError, match="mask of source s0 is 16 x 16, its picture 32 x 32"):
        sources.batch([0])


def _mixed(run: Path) -> Path:
    """Sources 1 and 2 become larger."""
    for name in ("1", "2", "mask"):
        source = Image.open(run / "pictures" / f"{name}.png")
        source.resize((64, 48)).save(run / "pictures" / f"{name}-large.png")
    path = run / "sources.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:3]:
        row["image"] = row["image"].replace(".png", "-large.png")
        row["mask"] = row["mask"].replace(".png", "-large.png")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_its_batches_have_one_size_and_the_tasks_shares(tmp_path: Path, models: FillModels) -> None:
    """Sources 1 and 2 are larger: a third of the tasks' whole weight lies on them."""
    path = _mixed(write_sources(tmp_path / "run"))
    sources = Sources(read_rows(path), Encoder(models), max_pixels=4096)
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
    first = Sources(rows, Encoder(models), max_pixels=4096).batch([3, 1])
    other = Sources(rows, Encoder(models), max_pixels=4096).batch([0, 1, 2])
    assert torch.equal(first.conditions.masked_image[1], other.conditions.masked_image[1])
    assert torch.equal(first.conditions.prompt_embeds[1], other.conditions.prompt_embeds[1])


def test_it_follows_a_schedule_of_resolutions(tmp_path: Path, models: FillModels) -> None:
    """Two steps at 16 x 16, one at 24 x 24, then the pictures' own 32 x 32 or 64 x 48."""
    rows = read_rows(_mixed(write_sources(tmp_path / "run")))
    stages = [(2, 16 * 16), (3, 24 * 24)]
    sources = Sources(rows, Encoder(models), max_pixels=4096, stages=stages)
    seen = []
    for step in (1, 2, 3, 4, 9):
        sources.at(step)
        batch = sources.batch([0])
        assert batch.images.shape[2:] == batch.masks.shape[2:]
        seen.append((batch.images.shape[-1], sources.key(rows[0])))
    small = [(16, "s0 16x16")] * 2
    assert seen == [*small, (24, "s0 24x24"), (32, "s0"), (32, "s0")]
    sources.at(1)
    assert sources.batch([1]).images.shape[2:] == (8, 16)
    # The schedule may mix sizes that a later step keeps apart, and the other way round.
    assert len({sources.sizes[i] for i in sources.draw(np.random.default_rng(0), 4)}) == 1


def test_it_loads_the_next_batch_in_a_thread(tmp_path: Path, models: FillModels) -> None:
    rows = read_rows(_mixed(write_sources(tmp_path / "run")))
    plain = Sources(rows, Encoder(models), max_pixels=4096, stages=[(1, 256)])
    ahead = Sources(rows, Encoder(models), max_pixels=4096, stages=[(1, 256)])
    threads = []
    read = ahead._read
    ahead._read = lambda *one: threads.append(current_thread().name) or read(*one)  # type: ignore
    for step in (1, 2, 3):
        batches = []
        for sources in (plain, ahead):
            sources.at(step)
            drawn = sources.draw(np.random.default_rng([7, step]), 4)
            batches.append(sources.batch(drawn[1:3]))
        ahead.preload(step + 1, np.random.default_rng([7, step + 1]), 4, slice(1, 3))
        assert [row.id for row in batches[0].rows] == [row.id for row in batches[1].rows]
        for first, second in zip(_tensors(batches[0]), _tensors(batches[1]), strict=True):
            assert torch.equal(first, second)
    assert {name.split("_")[0] for name in threads[2:]} == {"sources"}
    assert ahead.loading_seconds > 0


def test_a_picture_that_is_lost_while_it_is_loaded_ahead_is_named_in_time(
    tmp_path: Path, models: FillModels
) -> None:
    run = write_sources(tmp_path / "run")
    sources = Sources(read_rows(run / "sources.jsonl"), Encoder(models), max_pixels=4096)
    for path in (run / "pictures").glob("*.png"):
        path.unlink()
    sources.preload(1, np.random.default_rng(0), 2, slice(None))
    with pytest.raises(RunError, match="of source s. cannot be read"):
        sources.batch(sources.draw(np.random.default_rng(0), 2))


def test_it_keeps_a_bounded_part_of_the_sources_in_memory(
    tmp_path: Path, models: FillModels
) -> None:
    rows = read_rows(write_sources(tmp_path / "run") / "sources.jsonl")
    whole = Sources(rows, Encoder(models), max_pixels=4096)
    everything = whole.batch(range(6))
    limit = whole._loaded.nbytes // 2
    bounded = Sources(rows, Encoder(models), max_pixels=4096, memory_bytes=limit)
    for index in (0, 1, 2, 3, 4, 5, 0):
        part = bounded.batch([index])
        assert bounded._loaded.nbytes <= limit
        assert torch.equal(
            part.conditions.masked_image[0], everything.conditions.masked_image[index]
        )
    assert len(bounded._loaded) == 3


def _tensors(batch: Batch) -> list[torch.Tensor]:
    found = batch.conditions
    return [batch.images, batch.masks, found.prompt_embeds, found.pooled, found.masked_image]
