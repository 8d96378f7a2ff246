"""A family whose patches are not known here: LLaVA, through its own processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling.reward.prefix import encode_reference
from modeling.reward.rerank import rerank
from modeling.reward.scoring import margins
from modeling.reward.train import train
from modeling.reward.view_config import ViewConfig
from modeling.reward.vlm import RewardVLM, load_reward_vlm
from modeling.rundir import RunError
from tests.reward.test_scoring import QUERIES, pictures
from tests.reward.test_train import new_run
from tests.reward.tiny import save_llava
from tests.reward.worlds import snapshot


@pytest.fixture(scope="module")
def llava_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def llava(llava_dir: Path) -> RewardVLM:
    return load_reward_vlm(llava_dir, dtype=torch.float64)


@torch.no_grad()
def test_it_equals_the_official_forward(llava: RewardVLM) -> None:
    first, second = pictures(0), pictures(1)
    rows = [QUERIES[0][:1], QUERIES[1]]
    found = margins(llava, first, second, rows)
    assert found[0, 1:].tolist() == [0, 0]
    picture = "<|vision_start|>" + 16 * "<|image_pad|>" + "<|vision_end|>"
    for b, row in enumerate(rows):
        shown = [
            Image.fromarray((x[b] * 255).round().byte().permute(1, 2, 0).numpy())
            for x in (first, second)
        ]
        pixel_values = llava.processor.image_processor(shown, return_tensors="pt").pixel_values
        for d, query in enumerate(row):
            text = (
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
                f"{picture}{picture}{query}<|im_end|>\n<|im_start|>assistant\n"
            )
            ids = torch.tensor([llava.tokenizer.encode(text, add_special_tokens=False)])
            logits = llava.model(input_ids=ids, pixel_values=pixel_values.double()).logits[0, -1]
            torch.testing.assert_close(found[b, d], logits[llava.yes_id] - logits[llava.no_id])
    assert found.std() > 1e-3


def test_it_ranks_with_a_context_too(llava: RewardVLM) -> None:
    llava.view = ViewConfig(context=2.0)
    views = pictures(0, count=3)
    one = rerank(llava, views, QUERIES[0], pictures(2)[:1])
    other = rerank(llava, views, QUERIES[0], pictures(3)[:1])
    assert sorted(one.order) == [0, 1, 2]
    assert (one.scores - other.scores).abs().max() > 1e-4


def test_it_passes_no_gradient_and_says_so(llava: RewardVLM) -> None:
    with pytest.raises(ValueError, match=r"no gradient to their pixels: .* Qwen2.5-VL"):
        margins(llava, pictures(0).requires_grad_(), pictures(1), QUERIES)
    with pytest.raises(ValueError, match="reference first needs a model of the families"):
        encode_reference(llava, pictures(0)[0])


def test_a_lora_of_it_learns_from_labels(llava_dir: Path, tmp_path: Path) -> None:
    labels = snapshot(tmp_path / "labels", sources=8, holdout=4)
    values = {"steps": 2, "batch_size": 4, "min_pairs": 4, "swap_share": 0.0}
    run = new_run(tmp_path / "run", labels, llava_dir, **values)
    train(run)
    result = json.loads((run / "result.json").read_text())
    vlm = load_reward_vlm(llava_dir, adapter=result["output"]["adapter"])
    trained = {n for n, p in vlm.model.named_parameters() if "lora_B" in n and p.abs().max() > 0}
    assert {"vision_tower" in name for name in trained} == {True, False}
    with pytest.raises(RunError, match="max_pixels cannot be set"):
        train(new_run(tmp_path / "other", labels, llava_dir, max_pixels=1024, **values))
