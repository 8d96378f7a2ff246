"""Tars and tables from anywhere: what they may unpack to, and that nothing of them is believed."""

from __future__ import annotations

import gzip
import io
import lzma
import resource
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generation.readers import ReadError, Refusal, archives, read_rows, tables
from generation.readers.archives import ArchiveError


def names(path: Path) -> list[str]:
    with archives.opened(path) as archive:
        return [member.name for member in archive]


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def block(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


END = bytes(1024)


def pax(text: bytes) -> bytes:
    return header("pax", tarfile.XHDTYPE, len(text)) + block(text)


def zeros(path: Path, first: bytes, count: int) -> None:
    """`first` and so many megabytes of zeros, in a few kilobytes."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(first)
        for _ in range(count):
            file.write(bytes(2**20))


def bomb(path: Path) -> None:
    zeros(path, header("a.txt", size=2**33), 4)


def long_name(path: Path) -> None:
    zeros(path, header("x", tarfile.GNUTYPE_LONGNAME, 100 * 2**20), 100)


def long_pax(path: Path) -> None:
    zeros(path, header("x", tarfile.XHDTYPE, 100 * 2**20), 100)


def chain(path: Path) -> None:
    path.write_bytes(pax(b"13 comment=ab\n") * 3000 + header("a.txt") + END)


def sparse_map(path: Path) -> None:
    said = b"".join(
        b"%d %s\n" % (len(one) + 4, one)
        for one in (b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=ab")
    )
    numbers = b"9" * 9 + b"\n" + b"1\n" * 5000
    path.write_bytes(pax(said) + header("a.txt", size=len(numbers)) + block(numbers) + END)


def negative(path: Path) -> None:
    path.write_bytes(pax(b"17 size=-1000000\n") + header("a.txt", size=5) + bytes(512) + END)


def cut(path: Path) -> None:
    path.write_bytes(header("a.txt", size=5000) + bytes(100))


def packed_by_xz(path: Path) -> None:
    path.write_bytes(lzma.compress(header("a.txt") + END))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (bomb, "unpack to more than 200 times its size"),
        (long_name, "a name in it is longer than names are"),
        (long_pax, "a name in it is longer than names are"),
        (chain, "damaged or cut off"),
        (sparse_map, "sparse"),
        (negative, "200 times its size|damaged"),
        (cut, "damaged or cut off"),
        (packed_by_xz, "damaged or cut off"),
    ],
)
def test_it_stops_before_an_archive_harms(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a.tar"
    make(path)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ArchiveError, match=reason):
        names(path)
    assert time.process_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB
    assert [type(one) for one in read_rows(path)] == [Refusal]


def test_names_lead_nowhere(tmp_path: Path) -> None:
    """Whatever a member is called, nothing is written; and only plain files are read."""
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("../../x.txt", "/etc/x.txt", "a/../../y.txt", "C:\\z.txt"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with archives.opened(path) as archive:
        read = {member.name: archive.read(member) for member in archive}
    assert [data for data in read.values() if data is not None] == [b"hi"] * 4
    assert len(read) == 8
    list(read_rows(path))
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.tar"]


def test_it_counts_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    (tmp_path / "a.tar").write_bytes(header("a.txt") * 6 + END)
    with pytest.raises(ArchiveError, match="more than 5 files. Split it"):
        names(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(header("a.txt") * 5 + END)
    assert names(tmp_path / "a.tar") == ["a.txt"] * 5


# Tables


def test_a_saved_dataset_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    with pytest.raises(ReadError, match=r"names \.\./secret\.arrow, which lies elsewhere"):
        list(read_rows(tmp_path))


def test_a_line_is_no_longer_than_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 1000)
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / name).write_text("x" * 5000)
        with pytest.raises(ReadError, match="Line 1 of a.* is too long for a row"):
            list(read_rows(tmp_path / name))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_bytes_are_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"image,prompt\n" + bytes(range(256)))
    with pytest.raises(ReadError, match="UTF-8"):
        list(read_rows(tmp_path / name))


def test_a_cell_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_CELL", 1000)
    (tmp_path / "a.csv").write_text("image,prompt\na," + "b" * 2000)
    with pytest.raises(ReadError, match="is not CSV in UTF-8"):
        list(read_rows(tmp_path / "a.csv"))


def test_parquet_is_read_elsewhere(tmp_path: Path) -> None:
    rows = [{"prompt": f"a hat {number}", "image": bytes(9)} for number in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = list(tables.parquet(tmp_path / "a.parquet"))
    assert [record for _name, record in found] == rows
    assert found[199][0] == "a.parquet row 200"


def test_a_reader_that_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    table = pa.table({"a": [bytes(10_000)] * 2000})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    rows = tables.parquet(tmp_path / "a.parquet")
    next(rows)
    rows.close()  # type: ignore[attr-defined]


def test_a_parquet_bomb_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a gigabyte in one cell, in a few kilobytes of file."""
    monkeypatch.setattr(tables, "PARQUET_MEMORY_MB", 400)
    path = tmp_path / "a.parquet"
    table = pa.table({"a": pa.array([bytes(2**28)], pa.large_binary())})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    del table
    assert path.stat().st_size < 2**20
    with pytest.raises(ReadError, match="a.parquet is not a readable Parquet file: .*(mem|alloc)"):
        list(tables.parquet(path))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1", b"words" * 99])
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ReadError, match="a.parquet is not a readable Parquet file: "):
        list(tables.parquet(tmp_path / "a.parquet"))
