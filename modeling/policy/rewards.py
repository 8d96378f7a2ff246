"""Rewards that need no gradient, by name; `rewards` of the configuration weighs them.

A reward maps finished pictures to one number each, the higher the better, best in [0, 1] so that
weights mean something. To add one: write a function that takes the run's `Parts` and returns a
`Reward`, and put it into REWARDS and into the names that config.py accepts.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from generation.diffusion.generate import pil_images
from modeling.policy.objective import mean_over_dimensions
from modeling.policy.objectives.protocol import Parts
from modeling.policy.objectives.reference_images import ReferenceImages
from modeling.policy.placement import at_work
from modeling.policy.rollouts import score
from modeling.policy.sources import Batch
from modeling.rundir import RunError

# (step, images (B, 3, H, W) in [0, 1], batch) -> (B,)
Reward = Callable[[int, Tensor, Batch], Tensor]

QUOTED = re.compile('["“„«「『](.+?)["”“»」』]', re.DOTALL)
OCR_HEIGHT = 128  # pixels; tesseract misreads letters of fewer than about 20
OCR_BORDER = 16
OCR_SECONDS = 60


def build_rewards(parts: Parts) -> dict[str, Reward]:
    """The rewards that the configuration names."""
    return {name: REWARDS[name](parts) for name in parts.config.rewards}


def reward_vlm(parts: Parts) -> Reward:
    """The reward model's P(Yes) against the parent's cached picture of the same source: the mean
    over the task's dimensions and both orders."""
    references = ReferenceImages(parts, moving=False)
    offload = parts.config.offload_reward

    def judge(step: int, images: Tensor, batch: Batch) -> Tensor:
        others = references.get(step, batch, [0] * len(batch.rows)).images
        size = parts.config.micro_batch_size or len(images)
        found = []
        for begin in range(0, len(images), size):
            part = slice(begin, begin + size)
            first = torch.ones(len(images[part]), dtype=torch.bool)
            orders = torch.stack([first, ~first])
            with torch.no_grad(), at_work(parts.vlm, images.device, offload=offload):
                scores = score(parts.vlm, images[part], others[part], batch[part], orders)
            found.append(mean_over_dimensions(scores.margins.sigmoid().mean(0), scores.present))
        return torch.cat(found)

    return judge


def ocr(parts: Parts) -> Reward:
    """The share of the prompt's quoted characters that tesseract reads inside the mask, in order;
    0 for a prompt that quotes nothing."""
    program = shutil.which("tesseract")
    if program is None:
        raise RunError(
            "The reward 'ocr' needs the program tesseract, which is not installed. Install it "
            "(apt-get install tesseract-ocr), or leave 'ocr' out of rewards."
        )
    path = program

    def read(step: int, images: Tensor, batch: Batch) -> Tensor:
        found = []
        for row, picture, mask in zip(batch.rows, pil_images(images), batch.masks, strict=True):
            wanted = quoted_text(row.prompt)
            shown = recognise(path, _legible(picture, mask[0])) if wanted else ""
            found.append(character_accuracy(wanted, shown))
        return torch.tensor(found)

    return read


REWARDS: dict[str, Callable[[Parts], Reward]] = {"reward_vlm": reward_vlm, "ocr": ocr}


def quoted_text(prompt: str) -> str:
    return " ".join(QUOTED.findall(prompt))


def character_accuracy(wanted: str, shown: str) -> float:
    """1 - edit distance / number of characters, at least 0; spaces and case do not count."""
    first, second = ("".join(text.split()).casefold() for text in (wanted, shown))
    if not first:
        return 0.0
    return max(0.0, 1 - edit_distance(first, second) / len(first))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def recognise(program: str, picture: Image.Image) -> str:
    """What tesseract reads in a picture of one block of text."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    command = [program, "stdin", "stdout", "--psm", "6"]
    try:
        done = subprocess.run(
            command,
            input=buffer.getvalue(),
            capture_output=True,
            check=True,
            timeout=OCR_SECONDS,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        raise RunError(
            f"tesseract failed: {reason[-1] if reason else error}. Check `tesseract --list-langs`."
        ) from error
    return done.stdout.decode(errors="replace")


def _legible(picture: Image.Image, mask: Tensor) -> Image.Image:
    """The mask's bounding box in grey, dark on light, large enough to be read."""
    rows, columns = (mask > 0.5).any(1).nonzero()[:, 0], (mask > 0.5).any(0).nonzero()[:, 0]
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        picture = picture.crop(box)
    grey = ImageOps.autocontrast(picture.convert("L"))
    # The ground is what most of the border shows; tesseract expects it light.
    values = np.asarray(grey)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if np.median(edge) < 128:
        grey = ImageOps.invert(grey)
    factor = max(1, -(-OCR_HEIGHT // grey.height))
    grey = grey.resize((grey.width * factor, grey.height * factor), Image.Resampling.BICUBIC)
    return ImageOps.expand(grey, OCR_BORDER, fill=255)
