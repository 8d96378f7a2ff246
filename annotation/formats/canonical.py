"""A dataset directory of ours as comparisons, one by one, whatever its size.

Its tables are not sorted alike, so they are put side by side in a small database on disk first.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from annotation.formats.rows import Answer, Comparison, Picture

CHUNK = 2000


def questions(directory: Path) -> dict[str, str]:
    """What people are asked, by dimension, in the newest wording."""
    from annotation.dataset_files import read_card

    found = {}
    for slug, dimension in read_card(directory)["taxonomy"]["dimensions"].items():
        wordings = dimension.get("wordings") or [dimension]
        found[slug] = max(wordings, key=lambda wording: int(wording["version"]))["question"]
    return found


def ratings(directory: Path) -> int:
    from annotation.dataset_files import read_card

    return int(read_card(directory)["counts"].get("ratings", 0))


def read(directory: Path) -> Iterator[Comparison]:
    """Every set that somebody judged, by the candidates that were shown together."""
    from annotation.dataset_files import read_card

    tasks = read_card(directory)["taxonomy"]["tasks"]
    with tempfile.TemporaryDirectory() as folder, closing(_side_by_side(directory, folder)) as base:
        for key, text in base.execute("SELECT key, row FROM sets ORDER BY rowid"):
            made = json.loads(text)
            shown = [json.loads(row) for (row,) in base.execute(SELECT["candidates"], [key])]
            said = [json.loads(row) for (row,) in base.execute(SELECT["judgments"], [key])]
            blank = not tasks.get(made["task"], {}).get("needs_source", True)
            for places, answers in _by_shown(said).items():
                part = [row for row in shown if row["index"] in places and row["image"]]
                yield _comparison(directory, key, made, part, answers, blank=blank)


SELECT = {
    table: f"SELECT row FROM {table} WHERE key = ? ORDER BY rowid"  # nosec B608  # the two names below
    for table in ("candidates", "judgments")
}


def _side_by_side(directory: Path, folder: str) -> sqlite3.Connection:
    from annotation.dataset_files import rows

    base = sqlite3.connect(Path(folder) / "rows.sqlite", isolation_level=None)
    base.execute("PRAGMA journal_mode = OFF")
    base.execute("PRAGMA synchronous = OFF")
    base.execute("BEGIN")
    for table in ("sets", "candidates", "judgments"):
        base.execute(f"CREATE TABLE {table} (key TEXT, row TEXT)")
        lines = (
            (str(row["set"]), json.dumps(row, default=_plain)) for row in rows(directory, table)
        )
        base.executemany(f"INSERT INTO {table} VALUES (?, ?)", lines)  # nosec B608  # as above
        base.execute(f"CREATE INDEX {table}_key ON {table} (key)")
    base.execute("COMMIT")
    return base


def _by_shown(said: list[dict[str, Any]]) -> dict[tuple[int, ...], list[dict[str, Any]]]:
    """The answers by the candidates that they are about: a comparison may show two of a set."""
    found: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in said:
        found.setdefault(tuple(sorted(row["order"])), []).append(row)
    return found


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _comparison(
    directory: Path,
    key: str,
    made: dict[str, Any],
    shown: list[dict[str, Any]],
    said: list[dict[str, Any]],
    *,
    blank: bool,
) -> Comparison:
    shown = sorted(shown, key=lambda row: int(row["index"]))
    places = {row["index"]: place for place, row in enumerate(shown)}
    # What was said about a candidate whose picture is gone says nothing to anybody.
    said = [
        row for row in said if row["best"] is None or {row["best"], row["worst"]} <= set(places)
    ]
    return Comparison(
        prompt=made["prompt"] or "",
        pictures=tuple(
            _picture(directory, row["image"], model=row["policy"] or "", seed=row["seed"])
            for row in shown
        ),
        answers=tuple(_answer(row, places) for row in said),
        source=None if blank or not made["source"] else _picture(directory, made["source"]),
        mask=None if blank or not made["mask"] else _picture(directory, made["mask"]),
        name=f"set {key}",
        key=key,
        task=made["task"],
        split=made["split"],
        external_id=made["external_id"] or "",
        said={
            name: text
            for name in ("tags", "licence", "attribution")
            if (text := made.get(name)) and text != "{}"
        },
    )


def _picture(directory: Path, sha256: str, *, model: str = "", seed: int | None = None) -> Picture:
    from annotation.dataset_files import picture_name

    path = directory / "images" / picture_name(sha256)
    return Picture(path, f"{sha256}.png", sha256, model, seed)


def _answer(row: dict[str, Any], places: dict[int, int]) -> Answer:
    picked = row["outcome"] == "picked"
    return Answer(
        outcome=row["outcome"],
        best=places[row["best"]] if picked else None,
        worst=places[row["worst"]] if picked else None,
        dimension=row["dimension"],
        annotator=row["annotator"],
        at=datetime.fromisoformat(row["judged_at"]) if row["judged_at"] else None,
        seconds=row["seconds_spent"],
    )
