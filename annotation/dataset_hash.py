"""The content hash of a dataset: of its rows, whatever their order, and of what they mean.

A row's digest is the sha256 of its values' codes in the order of the columns. A code begins with a
byte, 1 for a value and 0 for none; then come 16 bytes of the sha256 of a text (of a list: of its
JSON), or the 8 bytes of a number, little-endian. A table's digest is the sum of its rows' digests
modulo 2²⁵⁶. Who an annotator is plays no part, but which rows are of one person does: in tables
with that column the rows of each person are summed apart, and what counts is the sum of the hashes
of the persons' sums. When people judged plays no part, either.

Rows are hashed in columns, since a million judgments make five million preferences.

Up to version 2 a row's digest was the sha256 of its JSON, pseudonyms included (`RowDigest`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

# The same answers given at another time are the same content.
UNHASHED = {"judged_at"}
PERSON = "annotator"
# What labels mean. How often a task is drawn or whether it is active says nothing about them.
MEANING = {
    "tasks": ("name", "wording", "fixed_prompt", "needs_source"),
    "dimensions": ("name", "uses_prompt", "question", "query", "guideline", "version", "wordings"),
    "campaigns": ("purpose", "origin"),
    "policies": ("kind", "parent"),
}
MODULUS = 2**256
Bytes = NDArray[np.uint8]
Sum = tuple[int, int]  # how many rows, and the sum of their digests
NONE: Sum = (0, 0)


class ContentHash:
    """What has been added so far; it can be put into JSON and taken out again."""

    def __init__(self) -> None:
        self.tables: dict[str, Sum] = {}
        self.people: dict[str, dict[str, Sum]] = defaultdict(dict)

    def add(self, table: str, rows: pa.RecordBatch) -> None:
        if not len(rows):
            return
        digests = _digests(rows)
        count, total = self.tables.get(table, NONE)
        self.tables[table] = (count + len(digests), total)
        if PERSON not in rows.schema.names:
            self.tables[table] = (count + len(digests), (total + _sum(digests)) % MODULUS)
            return
        coded = _coded(rows.column(PERSON))
        codes = coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
        names = [*coded.dictionary.to_pylist(), ""]
        for code in np.unique(codes):
            mine = digests[codes == code]
            known = self.people[names[code]]
            n, before = known.get(table, NONE)
            known[table] = (n + len(mine), (before + _sum(mine)) % MODULUS)

    def counts(self) -> dict[str, int]:
        return {name: count for name, (count, _total) in self.tables.items()}

    def hex(self, taxonomy: Mapping[str, Any], version: int) -> str:
        people = sum(_whole(_canonical(said)) for said in self.people.values()) % MODULUS
        content = {
            "version": version,
            "tables": {name: f"{n}:{total:064x}" for name, (n, total) in self.tables.items()},
            "people": f"{len(self.people)}:{people:064x}",
            "taxonomy": meaning(taxonomy),
        }
        return hashlib.sha256(_canonical(content)).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {"tables": self.tables, "people": self.people}

    def add_json(self, stored: Mapping[str, Any]) -> None:
        """Add what `as_json` gave."""
        for name, found in stored["tables"].items():
            self.tables[name] = _both(self.tables.get(name, NONE), found)
        for person, tables in stored["people"].items():
            known = self.people[person]
            for name, found in tables.items():
                known[name] = _both(known.get(name, NONE), found)


def meaning(taxonomy: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: {
            name: {key: row[key] for key in keys if key in row}
            for name, row in taxonomy.get(kind, {}).items()
        }
        for kind, keys in MEANING.items()
    }


def _both(one: Sum, other: Sum) -> Sum:
    return one[0] + other[0], (one[1] + other[1]) % MODULUS


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _whole(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest())


# Rows in columns --------------------------------------------------------------------------------


def _digests(rows: pa.RecordBatch) -> NDArray[np.uint32]:
    """(rows, 8): sha256 of each row."""
    kept = [name for name in rows.schema.names if name not in UNHASHED | {PERSON}]
    codes = np.concatenate([_codes(rows.column(name)) for name in kept], axis=1)
    width = codes.shape[1]
    data = memoryview(codes.tobytes())
    sha256 = hashlib.sha256
    digests = [sha256(data[at : at + width]).digest() for at in range(0, len(data), width)]
    return np.frombuffer(b"".join(digests), ">u4").reshape(-1, 8)


def _sum(digests: NDArray[np.uint32]) -> int:
    # In halves of 32 bits, so that nothing overflows.
    words = digests.sum(axis=0, dtype=np.uint64)
    return sum(int(word) << 32 * (7 - place) for place, word in enumerate(words))


def _codes(column: pa.Array) -> Bytes:
    """(rows, bytes of a code)"""
    kind = column.type
    if pa.types.is_list(kind):
        column = _json(column)
    if pa.types.is_list(kind) or pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return _codes_of_text(_coded(column))
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    found = np.zeros((len(column), 9), np.uint8)
    found[:, 0] = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(kind):
        values = values + 0.0  # minus nought is nought
    found[:, 1:] = (
        np.ascontiguousarray(values)
        .astype(values.dtype.newbyteorder("<"))
        .view(np.uint8)
        .reshape(-1, 8)
    )
    return found


def _codes_of_text(column: pa.DictionaryArray) -> Bytes:
    texts = column.dictionary.to_pylist()
    table = np.zeros((len(texts) + 1, 17), np.uint8)  # the last one is that of no value
    table[:-1, 0] = 1
    table[:-1, 1:] = np.frombuffer(b"".join(map(_code, texts)), np.uint8).reshape(-1, 16)
    return table[column.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)]


@lru_cache(2**15)  # one table's texts are those of the next
def _code(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _json(lists: pa.ListArray) -> pa.StringArray:
    """Lists of whole numbers, written as JSON."""
    numbers = compute.binary_join(lists.cast(pa.list_(pa.string())), ", ")
    return compute.binary_join_element_wise("[", numbers, "]", "")


def _coded(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


# Up to version 2 --------------------------------------------------------------------------------


class RowDigest:
    """A digest of rows that does not depend on their order: the sum of their own digests."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, row: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in row.items() if key not in UNHASHED}
        self._sum += _whole(_canonical(kept))
        self.count += 1

    def hex(self) -> str:
        return f"{self.count}:{self._sum % MODULUS:064x}"


class EarlierHash:
    """`ContentHash` as it was then."""

    def __init__(self) -> None:
        self.tables: dict[str, RowDigest] = defaultdict(RowDigest)

    def add(self, table: str, rows: pa.RecordBatch) -> None:
        for row in rows.to_pylist():
            self.tables[table].add(row)

    def counts(self) -> dict[str, int]:
        return {name: digest.count for name, digest in self.tables.items()}

    def hex(self, taxonomy: Mapping[str, Any], version: int) -> str:
        sums = {name: digest.hex() for name, digest in self.tables.items()}
        content = {"version": version, "tables": sums, "taxonomy": taxonomy}
        return hashlib.sha256(_canonical(content)).hexdigest()
