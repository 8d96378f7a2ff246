"""Whether a file is a PNG as this store writes it, and nothing else: such a one is kept as it is.

Nothing is decoded. The chunks are walked, their sums checked, and the pixels inflated a few rows at
a time and forgotten, so that it takes little memory whatever the file says.
"""

from __future__ import annotations

import struct
import zlib

from generation.decoding.pixels import MAX_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: ("L", 1), 2: ("RGB", 3)}
AT_ONCE = 2**20


class NotPlain(ValueError):
    """What is in the file that should not be there, or missing."""


def check(data: bytes) -> tuple[str, tuple[int, int]]:
    """Mode and size of an 8-bit grey or RGB PNG of header, pixels and end. Raises NotPlain."""
    if not data.startswith(SIGNATURE):
        raise NotPlain("it is no PNG")
    chunks = _chunks(data)
    kinds = [kind for kind, _content in chunks]
    if kinds != [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"] or len(kinds) < 3:
        raise NotPlain("it holds more than pixels")
    header = chunks[0][1]
    if len(header) != 13 or len(chunks[-1][1]):
        raise NotPlain("its header is not understood")
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    if depth != 8 or colour not in CHANNELS or any(rest):
        raise NotPlain("its pixels are of another kind")
    if not 0 < width * height <= MAX_PIXELS:
        raise NotPlain("its size is out of range")
    mode, channels = CHANNELS[colour]
    _check_rows([content for _kind, content in chunks[1:-1]], width * channels + 1, height)
    return mode, (width, height)


def _chunks(data: bytes) -> list[tuple[bytes, memoryview]]:
    found: list[tuple[bytes, memoryview]] = []
    view, at = memoryview(data), len(SIGNATURE)
    while at < len(data):
        if len(data) - at < 12:
            raise NotPlain("something follows its end")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or (found and found[-1][0] == b"IEND"):
            raise NotPlain("it is cut off, or something follows its end")
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise NotPlain("a checksum is wrong")
        found.append((kind, view[at + 8 : end - 4]))
        at = end
    return found


def _check_rows(contents: list[memoryview], stride: int, height: int) -> None:
    """The stream holds exactly the picture's rows, each beginning with one of PNG's filters."""
    stream, place, total = zlib.decompressobj(), 0, stride * height
    try:
        for content in contents:
            rest, full = bytes(content), True
            while rest or full:
                if stream.eof:
                    if rest:
                        raise NotPlain("something follows its pixels")
                    break
                rows = stream.decompress(rest, AT_ONCE)
                if any(one > 4 for one in rows[-place % stride :: stride]):
                    raise NotPlain("its pixels are damaged")
                place += len(rows)
                if place > total:
                    raise NotPlain("it holds more rows than it says")
                rest, full = stream.unconsumed_tail or stream.unused_data, len(rows) == AT_ONCE
    except zlib.error as error:
        raise NotPlain(str(error)) from None
    if not stream.eof or place != total:
        raise NotPlain("its pixels are cut off")
