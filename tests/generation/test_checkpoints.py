"""Where weights may come from, and what is looked at before they are loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from django.core.exceptions import ValidationError
from safetensors.torch import save_file

from generation import checkpoints, loaded, locations, policies, shared
from generation.checkpoints import CheckpointError
from generation.locations import LocationError
from generation.models import Policy
from generation.policies import COMPONENTS, WITH_WEIGHTS, PolicyError
from modeling import runs
from modeling.judging import Judge, JudgeError
from modeling.models import RewardModel
from modeling.reward.vlm import check_places
from modeling.starter_project import WEIGHTS

# Places


@pytest.mark.parametrize(
    "location",
    [
        "black-forest-labs/FLUX.1-Fill-dev",
        "bytedance-research/OneReward",
        "bytedance-research/OneReward/flux.1-fill-dev-object-removal-lora",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        str(WEIGHTS / "policy"),
        "",
    ],
)
def test_what_the_readme_names_may_be_loaded(location: str) -> None:
    locations.check(location)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("somebody/model", "is not among the hub's models that may be loaded here .*MODEL_ALLOWED"),
        ("Qwen/Other", "is not among"),
        ("qwen/qwen2.5-vl-7b", "is not among"),
        ("Qwen/Qwen2.5-VL-7B/../../x", "neither a directory"),
        ("Qwen", "neither a directory"),
        ("https://example.org/Qwen/model", "neither a directory"),
        ("Qwen\\model/x", "neither a directory"),
        ("a" * 400 + "/b", "is not among"),
        ("a\0b/c", "null character"),
        ("store:../../etc", "leads out of the store"),
        ("store:/etc", "leads out of the store"),
    ],
)
def test_nothing_else_of_the_hub_is(location: str, reason: str) -> None:
    with pytest.raises(LocationError, match=reason):
        locations.check(location)


def test_the_list_is_a_setting(settings: Any) -> None:
    settings.MODEL_ALLOWED_HUB_IDS = ["mine/*"]
    locations.check("mine/model")
    with pytest.raises(LocationError, match=r"not among .*\(mine/\*\)"):
        locations.check("black-forest-labs/FLUX.1-Fill-dev")


@pytest.mark.parametrize("folder", ["..", "a/../../b", "/etc", "..\\b"])
def test_a_folder_stays_in_its_checkpoint(folder: str) -> None:
    with pytest.raises(LocationError, match="leads out of its checkpoint"):
        locations.check(str(WEIGHTS / "policy"), folder)


def test_in_production_directories_are_those_of_the_settings(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "mine" / "link").symlink_to(tmp_path / "other")
    locations.check(str(tmp_path / "other"))
    settings.PRODUCTION = True
    locations.check(str(WEIGHTS / "policy"))
    locations.check(str(Path(settings.DATA_DIR) / "runs" / "policy-1"))
    with pytest.raises(LocationError, match=r"lies outside .* or add its directory to MODEL_ROOTS"):
        locations.check(str(tmp_path / "mine"))
    settings.MODEL_ROOTS = [str(tmp_path / "mine")]
    locations.check(str(tmp_path / "mine"))
    for outside in ("other", "mine/../other", "mine/link", "mine/link/deeper"):
        with pytest.raises(LocationError, match="lies outside"):
            locations.check(str(tmp_path / outside))
    with pytest.raises(LocationError, match="lies outside"):
        locations.check("~")


def test_a_store_s_name_stays_in_the_store() -> None:
    with pytest.raises(shared.SharedError, match="leads out of the store"):
        shared.place("store:runs/../../etc")


# At every use of a row


@pytest.mark.django_db
def test_rows_that_were_changed_by_hand_are_not_loaded() -> None:
    policy = Policy(name="odd", kind="base", location="somebody/model")
    with pytest.raises(FileNotFoundError, match="is not among the hub's models"):
        loaded.generator(policy)
    with pytest.raises(JudgeError, match="is not among the hub's models"):
        Judge("somebody/model")
    with pytest.raises(JudgeError, match="is not among the hub's models"):
        Judge(str(WEIGHTS / "reward"), "somebody/adapter")
    for check in (runs.check_policy, runs.check_reward):
        row: Any = policy if check is runs.check_policy else RewardModel(location="somebody/model")
        with pytest.raises(runs.RunFailed, match="is not among the hub's models"):
            check(row)


@pytest.mark.django_db
def test_a_reward_model_s_files_are_looked_at(tmp_path: Path) -> None:
    RewardModel(name="good", location=str(WEIGHTS / "reward")).full_clean()
    RewardModel(name="hub", location="Qwen/Qwen2.5-VL-7B-Instruct").full_clean()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for location, reason in (
        (str(tmp_path), "are pickles"),
        ("somebody/model", "is not among"),
        ("/nowhere", "config.json is missing"),
    ):
        with pytest.raises(ValidationError, match=reason):
            RewardModel(name="bad", location=location).full_clean()
    with pytest.raises(ValidationError, match="There are no weights"):
        RewardModel(
            name="bad", location=str(WEIGHTS / "reward"), adapter=str(tmp_path / "none")
        ).full_clean()


def test_a_lora_without_safetensors_is_not_given_to_peft(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match=r"no adapter_model\.safetensors. Pickles are not"):
        check_places(str(WEIGHTS / "reward"), str(tmp_path))


# Files


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The smallest that passes: safetensors of one number."""
    for part in COMPONENTS:
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        if part in WITH_WEIGHTS:
            save_file({"a": torch.zeros(1)}, tmp_path / part / "model.safetensors")
    (tmp_path / "model_index.json").write_text("{}")
    return tmp_path


def test_a_whole_checkpoint_passes(pipeline: Path) -> None:
    assert policies.inspect(str(pipeline)) == {"size_multiple": 16}
    assert policies.inspect(str(WEIGHTS / "policy"))["what"]


def write_card(**values: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "card.json").write_text(json.dumps(values))


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def safetensors(header: Any, data: bytes = b"") -> Callable[[Path], object]:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return put("vae/model.safetensors", struct.pack("<Q", len(said)) + said + data)


def tensor(begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [begin, end]}


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "index is a list": (put("model_index.json", b"[]"), "is not a JSON object"),
    "index too deep": (put("model_index.json", b"[" * 100_000), "is not JSON"),
    "deep object": (
        put("model_index.json", b'{"a":' * 300 + b"1" + b"}" * 300),
        "holds too many levels",
    ),
    "index too large": (put("model_index.json", b" " * (8 * 2**20 + 1)), "is larger than 8 MB"),
    "index in bytes": (put("model_index.json", b"\xff\xfe\x00"), "is not JSON"),
    "card with NaN": (put("card.json", b'{"figures": {"a": NaN}}'), "holds nan"),
    "card with infinity": (put("card.json", b'{"a": [1e999]}'), "holds inf"),
    "card with null": (put("card.json", b'{"a": "\\u0000"}'), "a character that is none"),
    "card with null key": (put("card.json", b'{"a\\u0000": 1}'), "a character that is none"),
    "card with half a character": (put("card.json", b'{"a": "\\ud800"}'), "a character that is"),
    "card with a long number": (put("card.json", b'{"a": 1' + b"0" * 99 + b"}"), "more than 64"),
    "card with digits": (put("card.json", b'{"a": ' + b"9" * 9999 + b"}"), "is not JSON"),
    "card is a number": (put("card.json", b"7"), "is not a JSON object"),
    "card's metrics": (write_card(metrics=[1]), "“metrics” is of another kind"),
    "card's parent": (write_card(parent={"a": 1}), "“parent” is of another kind"),
    "card's run": (write_card(run=True), "“run” is of another kind"),
    "own code": (put("vae/config.json", b'{"auto_map": {"AutoModel": "x.Y"}}'), "code of its own"),
    "pickle": (
        lambda folder: (folder / "vae/model.safetensors").rename(folder / "vae/model.bin"),
        "are pickles, which can run code",
    ),
    "no length": (put("vae/model.safetensors", b"abc"), "no length that fits"),
    "long header": (put("vae/model.safetensors", b"\xff" * 64), "no length that fits"),
    "header in words": (safetensors(b"words"), "damaged or no safetensors"),
    "header too deep": (safetensors(b'{"a":' * 99_999), "damaged or no safetensors"),
    "header is a list": (safetensors([1, 2]), "its header is no object"),
    "tensor is text": (safetensors({"a": "b"}), "damaged or no safetensors"),
    "offsets outside": (safetensors({"a": tensor(0, 99)}, bytes(4)), "outside the file"),
    "offsets backwards": (safetensors({"a": tensor(4, 0)}, bytes(4)), "outside the file"),
    "offsets are floats": (safetensors({"a": tensor(0.0, 4.0)}, bytes(4)), "outside the file"),
    "offsets overlap": (
        safetensors({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
        "overlap",
    ),
    "bytes behind": (safetensors({"a": tensor(0, 4)}, bytes(400)), "something follows"),
    "shard elsewhere": (
        put("vae/x.safetensors.index.json", b'{"weight_map": {"a": "../../etc/x.safetensors"}}'),
        "which is not beside it",
    ),
    "shard is a pickle": (
        put("vae/x.safetensors.index.json", b'{"weight_map": {"a": "model.bin"}}'),
        "which is not beside it",
    ),
    "no shards": (put("vae/x.safetensors.index.json", b"{}"), "which is not beside it"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused_in_a_sentence(pipeline: Path, name: str) -> None:
    change, reason = HOSTILE[name]
    change(pipeline)
    with pytest.raises(PolicyError, match=reason):
        policies.inspect(str(pipeline))


def test_a_card_tells_nothing_that_the_files_tell(pipeline: Path) -> None:
    write_card(size_multiple=0, text_to_image=True, unchecked="x", what="a model")(pipeline)
    assert policies.inspect(str(pipeline)) == {"size_multiple": 16, "what": "a model"}
    adapter = pipeline / "adapter"
    adapter.mkdir()
    save_file({"a": torch.zeros(1)}, adapter / "pytorch_lora_weights.safetensors")
    write_card(size_multiple=10**9)(adapter)
    assert policies.inspect(str(pipeline), adapter=str(adapter))["size_multiple"] == 16
    (pipeline / "vae/config.json").write_text(json.dumps({"block_out_channels": [1] * 10**6}))
    assert policies.inspect(str(pipeline))["size_multiple"] == 16


@pytest.mark.parametrize("location", ["~nobody/x", "/" + "a" * 400, "/proc/self/mem", "/dev/null"])
def test_odd_paths_are_refused_in_a_sentence(location: str) -> None:
    with pytest.raises(PolicyError):
        policies.inspect(location)


def test_weights_behind_a_link_stay_in_the_allowed_places(
    settings: Any, tmp_path: Path, pipeline: Path
) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere.safetensors"
    (pipeline / "vae/model.safetensors").rename(elsewhere)
    (pipeline / "vae/model.safetensors").symlink_to(elsewhere)
    policies.inspect(str(pipeline))
    settings.MODEL_ROOTS = [str(pipeline)]
    with pytest.raises(PolicyError, match="lies outside the directories"):
        policies.inspect(str(pipeline))


def test_the_largest_header_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**31))
        file.truncate(2**32)
    with pytest.raises(CheckpointError, match="no length that fits"):
        checkpoints.check_safetensors(path)
