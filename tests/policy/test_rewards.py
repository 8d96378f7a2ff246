"""Rewards without gradient, by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from generation.diffusion.generate import image_tensor
from modeling.policy.config import REWARDS as NAMES
from modeling.policy.rewards import (
    REWARDS,
    character_accuracy,
    edit_distance,
    ocr,
    quoted_text,
)
from modeling.policy.sources import Batch, Row
from modeling.policy.train import train
from modeling.rundir import RunDirectory, RunError
from tests.policy.tiny import make_run

needs_tesseract = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="tesseract is not installed"
)


def test_every_reward_can_be_configured_by_its_name() -> None:
    assert set(NAMES) == set(REWARDS)


def test_it_counts_the_edits_between_two_texts() -> None:
    """kitten -> sitting: two substitutions and an insertion."""
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("abc", "abc") == 0


def test_it_asks_for_what_the_prompt_quotes() -> None:
    assert quoted_text('the number "42"') == "42"
    assert quoted_text("a sign “Open” above “Now”") == "Open Now"
    assert quoted_text("招牌上写着「开门」") == "开门"
    assert quoted_text("a red circle") == ""


@pytest.mark.parametrize(
    ("wanted", "shown", "accuracy"),
    [
        ("42", " 42\n", 1.0),
        ("OPEN now", "open NOW", 1.0),
        ("42", "47", 0.5),
        ("42", "", 0.0),
        ("42", "a whole sentence of noise", 0.0),
        ("", "42", 0.0),
    ],
)
def test_its_accuracy_is_that_of_the_characters(wanted: str, shown: str, accuracy: float) -> None:
    assert character_accuracy(wanted, shown) == accuracy


def _picture(text: str, colours: tuple[str, str] = ("white", "black")) -> Image.Image:
    """64 x 64, the text in the middle, 18 pixels high."""
    picture = Image.new("RGB", (64, 64), colours[0])
    font = ImageFont.load_default(20)
    ImageDraw.Draw(picture).text((32, 32), text, fill=colours[1], font=font, anchor="mm")
    return picture


def _batch(prompts: list[str]) -> Batch:
    rows = [
        Row(str(i), "text_rendering", 1.0, Path(), Path(), prompt, "train", {})
        for i, prompt in enumerate(prompts)
    ]
    masks = torch.zeros(len(rows), 1, 64, 64)
    masks[:, :, 16:48, 8:56] = 1
    none: Any = None
    return Batch(rows=rows, images=none, masks=masks, conditions=none)


@needs_tesseract
def test_it_reads_the_characters_inside_the_mask() -> None:
    none: Any = None
    read = ocr(none)
    pictures = [
        _picture("42"),
        _picture("42"),
        _picture("37", ("navy", "yellow")),
        _picture(""),
        _picture("42"),
    ]
    pictures[4].paste("white", (8, 16, 56, 48))  # nothing under the mask
    images = torch.cat([image_tensor(picture) for picture in pictures])
    prompts = ['the number "42"', 'the number "17"', 'the number "37"', 'the number "5"', '"42"']
    assert read(1, images, _batch(prompts)).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert read(1, images[:1], _batch(["a red circle"])).tolist() == [0.0]


def test_it_says_that_tesseract_is_missing(
    tmp_path: Path, policy_dir: Path, reward_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = make_run(
        tmp_path / "run",
        policy_dir,
        reward_dir,
        algorithm="diffusion_nft",
        batch_size=4,
        rewards={"reward_vlm": 1.0, "ocr": 0.5},
    )
    with pytest.raises(RunError, match="needs the program tesseract.*apt-get install"):
        train(run)


@needs_tesseract
def test_its_rewards_are_weighed_and_logged(
    tmp_path: Path, policy_dir: Path, reward_dir: Path
) -> None:
    run = make_run(
        tmp_path / "run",
        policy_dir,
        reward_dir,
        algorithm="diffusion_nft",
        batch_size=4,
        steps=1,
        rewards={"reward_vlm": 2.0, "ocr": 0.5},
    )
    train(run)
    (row,) = RunDirectory(run).metrics()
    wanted = 2.0 * row["score_reward_vlm"] + 0.5 * row["score_ocr"]
    assert row["score"] == pytest.approx(wanted)
