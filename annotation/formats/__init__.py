"""Other people's preference formats, out and in.

Every module has `write(data, out)`, which puts comparisons into files, `read(path)`, which yields
comparisons and refusals, and HOLDS, the aspects of our data (`rows.ASPECTS`) that it can hold.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from annotation.errors import DatasetError
from annotation.formats import (
    argilla,
    editreward_bench,
    editreward_data,
    genai_bench,
    hpdv2,
    hpdv3,
    imagerewarddb,
    label_studio,
    mmrb2,
    pickapic,
    rapidata,
    trl,
    videoalign,
    webdataset,
)

CANONICAL = "canonical"  # our own, of which all others are made: `annotation.datasets`
FORMATS: dict[str, ModuleType] = {
    "pickapic": pickapic,
    "hpdv2": hpdv2,
    "hpdv3": hpdv3,
    "imagerewarddb": imagerewarddb,
    "editreward-data": editreward_data,
    "editreward-bench": editreward_bench,
    "genai-bench": genai_bench,
    "mmrb2": mmrb2,
    "videoalign": videoalign,
    "rapidata": rapidata,
    "trl": trl,
    "label-studio": label_studio,
    "argilla": argilla,
    "webdataset": webdataset,
}
Losses = dict[str, dict[str, int | str]]


@dataclass(frozen=True)
class Converted:
    files: int
    losses: Losses

    def said(self) -> list[str]:
        return [f"lost: {one['what']} ({one['count']})" for one in self.losses.values()]


def export(write: Callable[[Path], object], out: Path | str, format: str) -> Converted:
    """What `write` puts into a dataset directory of ours, in another format."""
    target = _free(out)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as home:
        write(Path(home) / "dataset")
        return convert(Path(home) / "dataset", target, format)


def _free(out: Path | str) -> Path:
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"'{target}' is there already. Choose a new or empty directory.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def convert(directory: Path | str, out: Path | str, format: str) -> Converted:
    """A dataset directory of ours in another format; what that cannot hold stands in losses.json.

    `out` is new or empty, and appears whole or not at all.
    """
    from annotation.formats import canonical
    from annotation.formats.rows import Outgoing

    module, source, target = FORMATS[format], Path(directory), _free(out)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        data = Outgoing(canonical.read(source), canonical.questions(source))
        module.write(data, draft)
        data.lose("ratings", canonical.ratings(source))
        losses = data.losses(module.HOLDS)
        if not any(path.is_file() and path.suffix != ".xml" for path in draft.rglob("*")):
            why = "; ".join(str(one["what"]) for one in losses.values())
            raise DatasetError(f"{format} can hold nothing of this: {why or 'it has no judgment'}.")
        text = json.dumps({"format": format, "losses": losses}, indent=1)
        (draft / "losses.json").write_text(text + "\n")
        files = sum(1 for path in draft.rglob("*") if path.is_file())
        draft.chmod(0o755)
        draft.rename(target)
    except FileNotFoundError as error:
        raise DatasetError(f"The picture '{error.filename}' of the dataset is missing.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Converted(files, losses)
