"""A checkpoint's files, looked at before anything loads them: JSON within bounds, weights as
safetensors whose headers agree with their sizes, and nothing that would run."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NoReturn

from django.utils.translation import gettext as _

from generation import locations

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
MOST_JSON_BYTES = 8 * 2**20
MOST_HEADER_BYTES = 32 * 2**20  # FLUX.1's is below 0.2
MOST_FILES = 10_000
DEEPEST = 40
# What a card says is shown and kept; what follows from the files is never taken from it.
FROM_FILES = {"size_multiple", "text_to_image", "unchecked"}
CARD_TYPES: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "metrics": dict,
    "figures": dict,
    "recipe": dict,
    "versions": dict,
    "name": str,
    "command": str,
    "parent": (str, type(None)),
    "reward_model": (str, type(None)),
    "snapshot": (str, type(None)),
    "run": (int, type(None)),
}


class CheckpointError(ValueError):
    """A checkpoint that is not loaded; the message names the file and says what to do."""


def read_object(path: Path, problem: str) -> dict[str, Any]:
    """A JSON object that a database can hold. Raises CheckpointError, which begins with problem."""

    def refuse(sentence: str) -> NoReturn:
        most = MOST_JSON_BYTES // 2**20
        values = {"problem": problem, "name": path.name, "most": most}
        raise CheckpointError(sentence % values) from None

    try:
        with path.open("rb") as file:
            data = file.read(MOST_JSON_BYTES + 1)
    except (OSError, ValueError):
        refuse(_("%(problem)s: %(name)s is missing."))
    if len(data) > MOST_JSON_BYTES:
        refuse(_("%(problem)s: %(name)s is larger than %(most)d MB."))
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        refuse(_("%(problem)s: %(name)s is not JSON."))
    if not isinstance(content, dict):
        refuse(_("%(problem)s: %(name)s is not a JSON object."))
    if (odd := _odd(content)) is not None:
        raise CheckpointError(
            _("%(problem)s: %(name)s holds %(odd)s. Write it anew without.")
            % {"problem": problem, "name": path.name, "odd": odd}
        )
    return content


def _odd(content: Any) -> str | None:
    """The first value that PostgreSQL's JSON, or anybody's, cannot hold; walked without recursion,
    for depth is one of the things that may be odd."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            return _("too many levels")
        if isinstance(value, dict):
            waiting += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, float) and not math.isfinite(value):
            return str(value)
        elif isinstance(value, int) and abs(value) >= 2**63:
            return _("a number of more than 64 bits")
        elif isinstance(value, str) and ("\0" in value or not _is_utf8(value)):
            return _("a character that is none")
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_card(folder: Path) -> dict[str, Any]:
    """What a checkpoint's card.json tells of it; {} where there is none."""
    path = folder / "card.json"
    if not path.exists():
        return {}
    problem = _("The card of %(path)s cannot be read") % {"path": folder}
    card = read_object(path, problem)
    for key, kinds in CARD_TYPES.items():
        if key in card and (not isinstance(card[key], kinds) or isinstance(card[key], bool)):
            raise CheckpointError(
                _("%(problem)s: its “%(key)s” is of another kind than a card's. Remove it.")
                % {"problem": problem, "key": key}
            )
    return {key: value for key, value in card.items() if key not in FROM_FILES}


def check_model(folder: Path) -> dict[str, Any]:
    """One model's folder in the layout of diffusers or transformers; its config.json."""
    config = read_object(folder / "config.json", _("No model in %(path)s") % {"path": folder})
    if "auto_map" in config:
        raise CheckpointError(
            _(
                "The model in %(path)s brings code of its own (auto_map), which is not run here. "
                "Take one of the layouts that diffusers and transformers know."
            )
            % {"path": folder}
        )
    check_weights(folder)
    return config


def check_weights(folder: Path) -> None:
    """Refuse a folder without sound safetensors; a pickle can run code and is never loaded."""
    try:
        files = sorted(folder.iterdir())[:MOST_FILES]
    except OSError:
        files = []
    weights = [file for file in files if file.suffix == ".safetensors"]
    if not weights:
        if any(file.suffix in PICKLES for file in files):
            raise CheckpointError(
                _(
                    "The weights in %(path)s are pickles, which can run code and are not loaded. "
                    "Save them as safetensors: model.save_pretrained(path, "
                    "safe_serialization=True)."
                )
                % {"path": folder}
            )
        raise CheckpointError(
            _("There are no weights in %(path)s. Download or build the checkpoint first.")
            % {"path": folder}
        )
    for file in files:
        if file.is_symlink():
            try:
                locations.check_inside(file)
            except locations.LocationError as error:
                raise CheckpointError(str(error)) from None
        if file.name.endswith(".safetensors.index.json"):
            _check_index(file)
    for file in weights:
        check_safetensors(file)


def _check_index(path: Path) -> None:
    """A list of shards names files beside it, and nothing elsewhere."""
    index = read_object(path, _("The weights in %(path)s are not whole") % {"path": path.parent})
    named = index.get("weight_map")
    shards = set(map(str, named.values())) if isinstance(named, dict) else {""}
    for shard in shards:
        plain = Path(shard).name == shard and shard.endswith(".safetensors")
        if not plain or not (path.parent / shard).is_file():
            raise CheckpointError(
                _("%(path)s names the file “%(shard)s”, which is not beside it. Download it again.")
                % {"path": path, "shard": shard[:200]}
            )


def check_safetensors(path: Path) -> None:
    """Read a file's header and hold it against the file's size; no weights are read."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise ValueError("its header has no length that fits")
            _check_header(json.loads(file.read(length)), size - 8 - length)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(
            _("%(path)s is damaged or no safetensors file (%(error)s). Download or save it again.")
            % {"path": path, "error": str(error)[:200]}
        ) from None


def _check_header(header: Any, size: int) -> None:
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    spans = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        if not (type(begin) is int and type(end) is int and 0 <= begin <= end <= size):
            raise ValueError("a tensor lies outside the file")
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise ValueError("its tensors overlap, or leave bytes between them")
        place = end
    if place != size:
        raise ValueError("it is cut off, or something follows its tensors")
