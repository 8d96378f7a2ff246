"""What a training leaves beside its weights for whoever finds them."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from modeling.policy.train import train
from tests.policy.tiny import make_run


@pytest.mark.parametrize(
    ("values", "output", "loads"),
    [
        ({}, "adapter", 'pipe.load_lora_weights("THIS_DIRECTORY")'),
        (
            {"full_finetune": True},
            "transformer",
            '    "THIS_DIRECTORY", torch_dtype=torch.bfloat16',
        ),
    ],
)
def test_its_weights_come_with_a_card(
    tmp_path: Path,
    policy_dir: Path,
    reward_dir: Path,
    values: dict[str, Any],
    output: str,
    loads: str,
) -> None:
    monitor = {"every": 1, "sources": 2}
    run = make_run(tmp_path / "run 7", policy_dir, reward_dir, steps=1, monitor=monitor, **values)
    result = train(run)
    text = (run / output / "README.md").read_text()
    head = ModelCard(text).data.to_dict()
    assert head["pipeline_tag"] == "image-to-image"
    assert ("lora" in head["tags"]) == (output == "adapter")
    assert "# run 7" in text
    assert f"trained from “{policy_dir.name}” against the reward model “{reward_dir.name}”" in text
    assert "never compared with its parent" in text
    drift = result["monitor"]["drift"]
    assert f"| drift of the velocity field, relative to its size | {drift:.3f} |" in text
    assert "| `steps` | `1` |" in text
    assert str(tmp_path) not in text
    assert str(policy_dir) not in text
    assert "![Samples](samples.png)" in text
    newest = Image.open(run / "samples" / "step-000001.png")
    assert Image.open(run / output / "samples.png").size == newest.size
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert loads in code
    assert json.loads((run / "card.json").read_text())["metrics"] == result
