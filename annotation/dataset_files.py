"""The files of a dataset directory: their columns, their content hash, and reading them back.

The hash is that of the rows, whatever their order, and of the taxonomy; when the dataset was
written and when people judged plays no part. Nothing here needs a database.

Version 2 added the ties, and to preferences how reliable their annotator is and when they judged;
datasets of version 1 are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.errors import DatasetError

SCHEMA = "oneloop-dataset"
SCHEMA_VERSION = 2
READ_ROWS = 2000
# Left out of the hash: the same answers given at another time are the same content.
UNHASHED = {"judged_at"}

TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
MOMENT = pa.timestamp("us", tz="UTC")
TABLES: dict[str, pa.Schema] = {
    "sets": pa.schema(
        [
            ("set", WHOLE),
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
            ("set", WHOLE),
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
            ("assignment", WHOLE),
            ("set", WHOLE),
            ("task", TEXT),
            ("campaign", TEXT),
            ("dimension", TEXT),
            ("wording", WHOLE),  # version
            ("outcome", TEXT),
            ("best", WHOLE),  # candidate indexes, as `order` and `candidates.index`
            ("worst", WHOLE),
            ("order", pa.list_(WHOLE)),  # as shown, from left to right
            ("annotator", TEXT),
            ("simulated", pa.bool_()),
            ("revision", WHOLE),
            ("seconds_spent", REAL),  # on the whole turn
            ("split", TEXT),
            ("judged_at", MOMENT),
        ]
    ),
    "preferences": pa.schema(
        [
            ("set", WHOLE),
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
            ("set", WHOLE),
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
}
# Written only where it was asked for: what production implies, beside what people said.
FEEDBACK = "feedback"
EXTRA = {FEEDBACK: TABLES["preferences"]}
PICTURES = {
    FEEDBACK: ("chosen", "rejected", "source", "mask"),
    "sets": ("source", "mask"),
    "candidates": ("image",),
    "preferences": ("chosen", "rejected", "source", "mask"),
    "ties": ("first", "second", "source", "mask"),
}


def tables_of(version: int) -> dict[str, pa.Schema]:
    """The tables of a dataset of that schema version."""
    if version >= 2:
        return TABLES
    preferences = TABLES["preferences"]
    short = pa.schema([f for f in preferences if f.name not in ("reliability", "judged_at")])
    return {name: t for name, t in TABLES.items() if name != "ties"} | {"preferences": short}


# Hashing ----------------------------------------------------------------------------------------


class RowDigest:
    """A digest of rows that does not depend on their order: the sum of their own digests."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, row: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in row.items() if key not in UNHASHED}
        self._sum += int.from_bytes(hashlib.sha256(_canonical(kept)).digest())
        self.count += 1

    def hex(self) -> str:
        return f"{self.count}:{self._sum % 2**256:064x}"


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def content_hash(
    sums: Mapping[str, str], taxonomy: Mapping[str, Any], version: int = SCHEMA_VERSION
) -> str:
    content = {"version": version, "tables": dict(sums), "taxonomy": taxonomy}
    return hashlib.sha256(_canonical(content)).hexdigest()


# Reading ----------------------------------------------------------------------------------------


def picture_name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}.png"


def read_card(directory: Path | str) -> dict[str, Any]:
    """The dataset's card; raises DatasetError where there is none or it is of another kind."""
    path = Path(directory) / "card.json"
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise DatasetError(
            f"'{directory}' holds no card.json, so it is no dataset. Name the directory that "
            "export_dataset wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"'{path}' cannot be read ({error}). Export the dataset again."
        ) from None
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise DatasetError(f"'{path}' is not the card of a dataset of this kind.")
    if card.get("schema_version") not in range(1, SCHEMA_VERSION + 1):
        raise DatasetError(
            f"'{path}' has schema version {card.get('schema_version')}; this version of the "
            f"program reads up to {SCHEMA_VERSION}. Export the dataset again, or update the "
            "program."
        )
    return card


def rows(directory: Path | str, table: str) -> Iterator[dict[str, Any]]:
    path = Path(directory) / f"{table}.parquet"
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise DatasetError(f"'{path}' is missing. Export the dataset again.") from None
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"'{path}' is damaged ({error}). Export the dataset again.") from None
    with file:
        known = [tables_of(version).get(table) for version in range(1, SCHEMA_VERSION + 1)]
        known.append(EXTRA.get(table))
        if not any(schema and file.schema_arrow.equals(schema) for schema in known):
            raise DatasetError(f"'{path}' has other columns than a dataset of this version.")
        try:
            for batch in file.iter_batches(batch_size=READ_ROWS):
                yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(
                f"'{path}' is damaged ({error}). Export the dataset again."
            ) from None


def verify(directory: Path | str) -> dict[str, Any]:
    """Compare rows and pictures with the card, which is returned; raises DatasetError."""
    card = read_card(directory)
    version = card["schema_version"]
    extra = [name for name in EXTRA if name in card]
    digests = {name: RowDigest() for name in (*tables_of(version), *extra)}
    checked: set[str] = set()
    for name, digest in digests.items():
        for row in rows(directory, name):
            digest.add(row)
            for column in PICTURES.get(name, ()):
                if row[column] and row[column] not in checked:
                    _verify_picture(Path(directory), row[column])
                    checked.add(row[column])
    for name, digest in digests.items():
        if digest.count != card["counts"].get(name):
            raise DatasetError(
                f"'{directory}' has {digest.count} rows in {name}.parquet and its card says "
                f"{card['counts'].get(name)}. Export the dataset again."
            )
    sums = {name: digest.hex() for name, digest in digests.items()}
    if content_hash(sums, card["taxonomy"], version) != card["content_hash"]:
        raise DatasetError(
            f"The rows of '{directory}' are not those its card was written for: the content hash "
            "differs. Export the dataset again."
        )
    return card


def _verify_picture(directory: Path, sha256: str) -> None:
    path = directory / "images" / picture_name(sha256)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DatasetError(
            f"The picture '{path}' is missing. Copy the dataset again, with all its images."
        ) from None
    if digest != sha256:
        raise DatasetError(
            f"The picture '{path}' is not the one its name says. Copy the dataset again."
        )
