"""WebDataset: tars whose neighbouring files `key.jpg`, `key.mask.png`, `key.txt` are one sample.

BrushData's tars are such: `key.image`, `.caption`, `.height`, `.width`, `.segmentation`, … A tar is
read as a stream, and nothing of it is ever written under the names in it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from generation.images import MAX_BYTES
from generation.readers import archives
from generation.readers.rows import PICTURES, ReadError, Refusal, Row, rows_of

ENDINGS = (".tar", ".tar.gz", ".tgz")
# As webdataset splits a name: all up to the first dot of the file's name is the key.
NAME = re.compile(r"^((?:.*/|)[^./]+)\.([^/]+)$")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]+)\}")
MOST_SHARDS = 100_000
IMAGE_ENDINGS = {"image", "img"} | {ending[1:] for ending in PICTURES}
MASK_ENDINGS = {f"mask.{ending[1:]}" for ending in PICTURES} | {"mask"}
# The columns that a member is; one called caption may end in txt as well.
TEXTS = {"txt": "prompt", "text": "prompt", "prompt": "prompt", "caption": "prompt"}
NUMBERS = {"height": int, "width": int, "aesthetic_score": float}
OTHERS = {"segmentation", "url", "label", "json"}
MOST_TEXT_BYTES = 16 * 2**20


def expand(path: Path) -> list[Path]:
    """The tars that a path stands for: itself, or each of `shard-{000..012}.tar`."""
    if path.is_file():
        return [path]
    parts, text, at = [], str(path), 0
    for found in BRACES.finditer(text):
        parts += [[text[at : found.start()]], _choices(found)]
        at = found.end()
    parts.append([text[at:]])
    if math.prod(map(len, parts)) > MOST_SHARDS:
        raise ReadError(f"{path} stands for more than {MOST_SHARDS} files. Give a few at a time.")
    shards = [Path("".join(name)) for name in itertools.product(*parts)]
    if not any(shard.is_file() for shard in shards):
        raise ReadError(f"{path} does not exist. Check the path.")
    return shards


def _choices(found: re.Match[str]) -> list[str]:
    first, last, listed = found.groups()
    if listed is not None:
        return listed.split(",")
    if int(last) - int(first) > MOST_SHARDS:
        raise ReadError(f"{found[0]} stands for more than {MOST_SHARDS} files.")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def shards_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(ENDINGS))


def read(shards: Sequence[Path]) -> Iterator[Row | Refusal]:
    seen = False
    for shard in shards:
        for found in _shard(shard):
            seen = True
            yield found
    if not seen:
        raise ReadError(
            f"There are no samples in {shards[0].name}. A sample is files that lie side by side "
            "and share a name: key.jpg, key.mask.png, key.txt."
        )


def _shard(path: Path) -> Iterator[Row | Refusal]:
    try:
        with archives.opened(path) as archive:
            for key, members in _samples(archive):
                yield from _sample(f"{path.name} {key}", key, members)
    except FileNotFoundError:
        yield Refusal(path.name, "This file is not there.")
    except archives.ArchiveError as error:
        yield Refusal(path.name, f"Only the samples before that were read; of the archive, {error}")


Members = dict[str, bytes | str]  # by ending; a sentence where one cannot be taken


def _samples(archive: archives.Archive) -> Iterator[tuple[str, Members]]:
    key, members = "", Members()
    for member in archive:
        named = NAME.match(member.name)
        if member.isdir() or named is None:
            continue
        if (its := named[1].removeprefix("./")) != key:
            if members:
                yield key, members
            key, members = its, {}
        ending = named[2].lower()
        if ending in IMAGE_ENDINGS | MASK_ENDINGS | OTHERS or ending in {*TEXTS, *NUMBERS}:
            members[ending] = _content(archive, member, again=ending in members)
    if members:
        yield key, members


def _content(archive: archives.Archive, member: tarfile.TarInfo, *, again: bool) -> bytes | str:
    name = Path(member.name).name
    most = MAX_BYTES if _is_picture(name) else MOST_TEXT_BYTES
    if member.size > most:
        return f"{name} is larger than {most // 2**20} MB. Make it smaller."
    if again:
        return f"There are two files {name}. Pack each once."
    found = archive.read(member)
    if found is None:
        return f"{name} is a link or a device in the archive, not a file. Pack the file itself."
    return found


def _is_picture(name: str) -> bool:
    return not name.lower().endswith((".json", ".segmentation", *(f".{one}" for one in TEXTS)))


def _sample(name: str, key: str, members: Members) -> Iterator[Row | Refusal]:
    try:
        yield from rows_of(name, _record(key, members), None)
    except ReadError as error:
        yield Refusal(name, str(error))


def _record(key: str, members: Members) -> dict[str, Any]:
    contents: dict[str, bytes] = {}
    for ending, content in members.items():
        if isinstance(content, str):
            raise ReadError(content)
        contents[ending] = content
    record: dict[str, Any] = {"external_id": key}
    if "json" in contents:
        said = _json(contents["json"], "json")
        if not isinstance(said, dict):
            raise ReadError("Its .json is not an object.")
        record |= said
    for ending, content in contents.items():
        if ending in IMAGE_ENDINGS:
            record["image"] = content
        elif ending in MASK_ENDINGS:
            record["mask"] = content
        elif ending == "segmentation":
            record["segmentation"] = _json(content, ending)
        elif ending in NUMBERS:
            record[ending] = _number(content, ending)
        elif ending != "json":
            record[TEXTS.get(ending, ending)] = _text(content, ending)
    return record


def _json(content: bytes, ending: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"Its .{ending} is not JSON ({error}).") from None


def _number(content: bytes, ending: str) -> float:
    try:
        return NUMBERS[ending](_text(content, ending))
    except ValueError:
        raise ReadError(f"Its .{ending} is not a number.") from None


def _text(content: bytes, ending: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ReadError(f"Its .{ending} is not UTF-8. Save it so.") from None
