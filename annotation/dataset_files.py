"""The files of a dataset directory: their columns, and reading and checking them. No database.

Version 2 added the ties, and to preferences how reliable their annotator is and when they judged.
Version 3 names sets and turns so that they keep their names from one database to the next, says
where judgments come from and of what kind they are, and added ratings and the annotators' accuracy.
Datasets of earlier versions are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.dataset_hash import ContentHash, EarlierHash
from annotation.errors import DatasetError
from generation.quoting import one_line

SCHEMA = "oneloop-dataset"
SCHEMA_VERSION = 3
READ_ROWS = 20_000
LONGEST_CARD = 256 * 2**20
CARD_HOLDS = {"content_hash": str, "counts": dict, "taxonomy": dict}

TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
MOMENT = pa.timestamp("us", tz="UTC")
TABLES: dict[str, pa.Schema] = {
    "sets": pa.schema(
        [
            ("set", TEXT),
            ("task", TEXT),
            ("prompt", TEXT),
            ("source", TEXT),
            ("mask", TEXT),
            ("split", TEXT),
            ("size", WHOLE),
            ("width", WHOLE),
            ("height", WHOLE),
            ("tags", TEXT),  # JSON
            ("external_id", TEXT),
            ("licence", TEXT),
            ("attribution", TEXT),
        ]
    ),
    "candidates": pa.schema(
        [
            ("set", TEXT),
            ("index", WHOLE),
            ("image", TEXT),
            ("policy", TEXT),
            ("seed", WHOLE),
            ("num_inference_steps", WHOLE),
            ("strength", REAL),
            ("guidance_scale", REAL),
            ("true_cfg_scale", REAL),
            ("negative_prompt", TEXT),
            ("prompt", TEXT),
            ("width", WHOLE),
            ("height", WHOLE),
        ]
    ),
    "judgments": pa.schema(
        [
            ("assignment", TEXT),
            ("set", TEXT),
            ("task", TEXT),
            ("campaign", TEXT),
            ("dimension", TEXT),
            ("wording", WHOLE),  # version
            ("outcome", TEXT),
            ("best", WHOLE),  # candidate indexes, as `order` and `candidates.index`
            ("worst", WHOLE),
            ("order", pa.list_(WHOLE)),  # as shown, from left to right
            ("annotator", TEXT),
            ("origin", TEXT),  # people, simulated or imported
            ("kind", TEXT),  # work, or a reviewer's decision
            ("revision", WHOLE),
            ("seconds_spent", REAL),  # on the whole turn
            ("split", TEXT),
            ("judged_at", MOMENT),
        ]
    ),
    "preferences": pa.schema(
        [
            ("set", TEXT),
            ("task", TEXT),
            ("dimension", TEXT),
            ("prompt", TEXT),
            ("source", TEXT),
            ("mask", TEXT),
            ("chosen", TEXT),
            ("rejected", TEXT),
            ("relation", TEXT),
            ("weight", REAL),
            ("split", TEXT),
            ("annotator", TEXT),
            # From 0 (guesses) to 1, where the campaign was aggregated.
            ("reliability", REAL),
            ("judged_at", MOMENT),
        ]
    ),
    "ties": pa.schema(
        [
            ("set", TEXT),
            ("task", TEXT),
            ("dimension", TEXT),
            ("prompt", TEXT),
            ("source", TEXT),
            ("mask", TEXT),
            ("first", TEXT),
            ("second", TEXT),
            ("weight", REAL),
            ("split", TEXT),
            ("annotator", TEXT),
            ("reliability", REAL),
            ("judged_at", MOMENT),
        ]
    ),
    "ratings": pa.schema(
        [
            ("assignment", TEXT),
            ("set", TEXT),
            ("candidate", WHOLE),  # its index
            ("task", TEXT),
            ("campaign", TEXT),
            ("dimension", TEXT),  # none: whether it is usable
            ("wording", WHOLE),
            ("value", WHOLE),  # usable: 0 or 1; of a dimension: 1 to 5
            ("order", pa.list_(WHOLE)),
            ("annotator", TEXT),
            ("origin", TEXT),
            ("kind", TEXT),
            ("revision", WHOLE),
            ("seconds_spent", REAL),
            ("split", TEXT),
            ("judged_at", MOMENT),
        ]
    ),
    # How often each person was right, where the campaign was aggregated.
    "annotators": pa.schema(
        [
            ("annotator", TEXT),
            ("campaign", TEXT),
            ("dimension", TEXT),
            ("n", WHOLE),
            ("accuracy", REAL),
            ("attentive", REAL),
        ]
    ),
}
# Written only where it was asked for: what production implies, beside what people said.
FEEDBACK = "feedback"
PICTURES = {
    FEEDBACK: ("chosen", "rejected", "source", "mask"),
    "sets": ("source", "mask"),
    "candidates": ("image",),
    "preferences": ("chosen", "rejected", "source", "mask"),
    "ties": ("first", "second", "source", "mask"),
}
# How pictures lie in the directory: as files, in images-00000.parquet …, in images-00000.tar …
FILES, PARQUET, WEBDATASET, NO_PICTURES = "files", "parquet", "webdataset", "none"
FORMS = (FILES, PARQUET, WEBDATASET, NO_PICTURES)
PICTURE_ROW = [("sha256", TEXT), ("width", WHOLE), ("height", WHOLE)]
# What `datasets` takes for a picture.
PICTURE_CELL = pa.struct([("bytes", pa.binary()), ("path", TEXT)])


def tables_of(version: int) -> dict[str, pa.Schema]:
    """The tables of a dataset of that schema version."""
    if version >= 3:
        return TABLES
    tables = {name: TABLES[name] for name in TABLES if name not in ("ratings", "annotators")}
    tables = {name: pa.schema([_numbered(f) for f in schema]) for name, schema in tables.items()}
    tables["judgments"] = _without(tables["judgments"], "kind")
    if version == 1:
        del tables["ties"]
        tables["preferences"] = _without(tables["preferences"], "reliability", "judged_at")
    return tables


def _numbered(field: pa.Field) -> pa.Field:
    """As it was up to version 2: rows were named by their number in the database."""
    if field.name in ("set", "assignment"):
        return pa.field(field.name, WHOLE)
    return pa.field("simulated", pa.bool_()) if field.name == "origin" else field


def _without(schema: pa.Schema, *names: str) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in names])


def schema_of(table: str, version: int = SCHEMA_VERSION) -> pa.Schema | None:
    return tables_of(version).get("preferences" if table == FEEDBACK else table)


# Reading ----------------------------------------------------------------------------------------


def picture_name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}.png"


def read_card(directory: Path | str) -> dict[str, Any]:
    """The dataset's card; raises DatasetError where there is none or it is of another kind."""
    path = Path(directory) / "card.json"
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_CARD + 1)
        if len(text) > LONGEST_CARD:
            raise ValueError("it is too long")
        card = json.loads(text)
    except FileNotFoundError:
        raise DatasetError(
            f"'{directory}' holds no card.json, so it is no dataset. Name the directory that "
            "export_dataset wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"'{path}' cannot be read ({error}). Export the dataset again."
        ) from None
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise DatasetError(f"'{path}' is not the card of a dataset of this kind.")
    if card.get("schema_version") not in range(1, SCHEMA_VERSION + 1):
        raise DatasetError(
            f"'{path}' has schema version {one_line(repr(card.get('schema_version')))}; this "
            f"version of the program reads up to {SCHEMA_VERSION}. Export the dataset again, or "
            "update the program."
        )
    for key, kind in CARD_HOLDS.items():
        if not isinstance(card.get(key), kind):
            raise DatasetError(f"'{path}' lacks its {key}. Export the dataset again.")
    if not re.fullmatch("[0-9a-f]{64}", card["content_hash"]):
        raise DatasetError(f"The content hash in '{path}' is none. Export the dataset again.")
    shown = card.get("images") or {}
    if not isinstance(shown, dict) or shown.get("form", FILES) not in FORMS:
        raise DatasetError(f"'{path}' does not say how its pictures lie. Export the dataset again.")
    return card


def batches(directory: Path | str, table: str) -> Iterator[pa.RecordBatch]:
    path = Path(directory) / f"{table}.parquet"
    with _opened(path) as file:
        known = [schema_of(table, version) for version in range(1, SCHEMA_VERSION + 1)]
        if not any(schema and file.schema_arrow.equals(schema) for schema in known):
            raise DatasetError(f"'{path}' has other columns than a dataset of this version.")
        yield from _read(file, path, READ_ROWS)


def rows(directory: Path | str, table: str) -> Iterator[dict[str, Any]]:
    for batch in batches(directory, table):
        yield from batch.to_pylist()


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DatasetError(f"'{path}' is missing. Export the dataset again.") from None
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"'{path}' is damaged ({error}). Export the dataset again.") from None


def _read(file: pq.ParquetFile, path: Path, size: int) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=size)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"'{path}' is damaged ({error}). Export the dataset again.") from None


# Checking ---------------------------------------------------------------------------------------


def verify(directory: Path | str) -> dict[str, Any]:
    """Compare rows and pictures with the card, which is returned; raises DatasetError."""
    card = read_card(directory)
    version = card["schema_version"]
    found: ContentHash | EarlierHash = ContentHash() if version >= 3 else EarlierHash()
    shown: set[str] = set()
    names = [*tables_of(version), *([FEEDBACK] if FEEDBACK in card else [])]
    for name in names:
        for batch in batches(directory, name):
            found.add(name, batch)
            for column in PICTURES.get(name, ()):
                shown.update(filter(None, batch.column(column).unique().to_pylist()))
    for name in names:
        count = found.counts().get(name, 0)
        if count != card["counts"].get(name):
            raise DatasetError(
                f"'{directory}' has {count} rows in {name}.parquet and its card says "
                f"{card['counts'].get(name)}. Export the dataset again."
            )
    if found.hex(card["taxonomy"], version) != card["content_hash"]:
        raise DatasetError(
            f"The rows of '{directory}' are not those its card was written for: the content hash "
            "differs. Export the dataset again."
        )
    _verify_pictures(Path(directory), card.get("images") or {"form": FILES}, shown)
    return card


def _verify_pictures(directory: Path, images: dict[str, Any], shown: set[str]) -> None:
    form, max_side = images["form"], images.get("max_side")
    if form == NO_PICTURES:
        return
    if form == FILES:
        for sha256 in shown:
            path = directory / "images" / picture_name(sha256)
            _verify_picture(str(path), _bytes(path), sha256, max_side)
        return
    found = _in_parquet(directory) if form == PARQUET else _in_tars(directory)
    missing = set(shown)
    for where, sha256, data in found:
        _verify_picture(f"{sha256} in {where}", data, sha256, max_side)
        missing.discard(sha256)
    if missing:
        raise DatasetError(
            f"The picture {min(missing)} is missing from '{directory}'. Copy the dataset again, "
            "with all its images."
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(
            f"The picture '{path}' is missing. Copy the dataset again, with all its images."
        ) from None


def _in_parquet(directory: Path) -> Iterator[tuple[str, str, bytes]]:
    for path in sorted(directory.glob("images-*.parquet")):
        with _opened(path) as file:
            for batch in _read(file, path, 16):
                for row in batch.to_pylist():
                    yield path.name, row["sha256"], row["image"]["bytes"]


def _in_tars(directory: Path) -> Iterator[tuple[str, str, bytes]]:
    from generation.images import MAX_BYTES
    from generation.readers import archives

    for path in sorted(directory.glob("images-*.tar")):
        try:
            with archives.opened(path) as archive:
                for member in archive:
                    if member.name.endswith(".png") and member.size <= MAX_BYTES:
                        data = archive.read(member)
                        if data is not None:
                            yield path.name, member.name.removesuffix(".png"), data
        except (FileNotFoundError, archives.ArchiveError) as error:
            raise DatasetError(f"'{path}' is not whole: {error}") from None


def _verify_picture(name: str, data: bytes, sha256: str, max_side: int | None) -> None:
    """A picture that was made smaller keeps its name; that it is one of that size is all to see."""
    if hashlib.sha256(data).hexdigest() == sha256:
        return
    if max_side is not None:
        from generation import images

        with suppress(images.ImageError):
            if max(images.decode(data, name=name).size) <= max_side:
                return
    raise DatasetError(
        f"The picture '{name}' is not the one its name says. Copy the dataset again."
    )
