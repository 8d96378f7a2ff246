"""Tars from anywhere, member by member, in a stream. Nothing is ever unpacked to a name in it.

`tarfile` reads what a header announces: names of gigabytes, chains of headers, maps of sparse
files. Those have bounds here, and so have the number of members and how much a small file may
unpack to.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_MEMBERS = 10_000_000
MOST_RATIO = 200  # pictures hardly shrink, and words by ten
MOST_NAME_BYTES = 2**20
# Every file of some bytes may unpack to so much: an archive's padding alone does.
SLACK_BYTES = 64 * 2**20
GZIP = b"\x1f\x8b"
DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
)


class ArchiveError(Exception):
    """One readable sentence: why an archive is not read any further."""


class _Header(tarfile.TarInfo):
    """A member's header, whose extensions have bounds."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        extends = self.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if extends and not 0 <= self.size <= MOST_NAME_BYTES:
            raise ArchiveError("a name in it is longer than names are. Pack it anew.")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise ArchiveError("it holds sparse files. Pack it anew without --sparse.")


class Archive:
    """An open tar; it is gone through once."""

    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self._tar = tar
        self._most = path.stat().st_size * MOST_RATIO + SLACK_BYTES

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        count = 0
        while (member := self._tar.next()) is not None:
            # Otherwise it keeps every member it has seen.
            self._tar.members = []  # type: ignore[attr-defined]
            count += 1
            if count > MOST_MEMBERS:
                raise ArchiveError(f"it holds more than {MOST_MEMBERS} files. Split it.")
            if member.size < 0 or member.offset_data + member.size > self._most:
                raise ArchiveError(
                    f"it would unpack to more than {MOST_RATIO} times its size. Pack it without "
                    "compression, if it is what it seems."
                )
            yield member
        self._check_end()

    def read(self, member: tarfile.TarInfo) -> bytes | None:
        """The content of a plain file; None for a link, a device or a file with holes."""
        if not member.isreg() or member.issparse():
            return None
        file = self._tar.extractfile(member)
        data = b"" if file is None else file.read()
        if len(data) != member.size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    def _check_end(self) -> None:
        """An archive ends with two blocks of zeros; tarfile takes a broken header for the end."""
        stream = self._tar.fileobj
        if stream is None or stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """A tar, or one packed by gzip. Raises FileNotFoundError, or ArchiveError for every other
    trouble while it is open."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            mode = "r|gz" if packed else "r|"
            with tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as tar:  # type: ignore[call-overload]
                yield Archive(tar, path)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArchiveError(f"it is damaged or cut off ({words}). Copy it again.") from None
