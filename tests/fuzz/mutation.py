"""Ways to spoil a file: bits, lengths, order and ends, and the chunks of formats that have them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

PNG = b"\x89PNG\r\n\x1a\n"
ODD_NUMBERS = (0, 1, 7, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
Mutation = Callable[[bytearray, random.Random], bytes]


def flip_bits(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def set_bytes(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    length = min(rng.choice((1, 2, 4, 16, 200)), len(data) - at)
    data[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return bytes(data)


def cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def cut_out(data: bytearray, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data))
    del data[begin : begin + rng.choice((1, 3, 64, 500))]
    return bytes(data)


def repeat(data: bytearray, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data))
    part = data[begin : begin + rng.choice((1, 16, 512, 4000))]
    return bytes(data[:begin] + part * rng.choice((2, 3, 50)) + data[begin:])


def insert(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return bytes(data[:at] + rng.randbytes(rng.choice((1, 8, 300))) + data[at:])


def lengths(data: bytearray, rng: random.Random) -> bytes:
    """Numbers as formats have them, most in the head, where lengths and sizes stand."""
    for _ in range(rng.choice((1, 2, 4))):
        form = rng.choice(("<H", ">H", "<I", ">I", "<Q"))
        size = struct.calcsize(form)
        if len(data) <= size:
            continue
        head = min(len(data), rng.choice((64, 512, len(data))))
        number = rng.choice(ODD_NUMBERS) & (2 ** (8 * size) - 1)
        struct.pack_into(form, data, rng.randrange(max(1, head - size)), number)
    return bytes(data)


def digits(data: bytearray, rng: random.Random) -> bytes:
    """Numbers in text, as in tars, JSON and CSV."""
    places = [at for at, one in enumerate(data) if 48 <= one <= 57]
    for at in rng.sample(places, min(len(places), rng.choice((1, 2, 12)))):
        data[at] = rng.choice(b"0123456789-e.")
    return bytes(data)


def tar_headers(data: bytearray, rng: random.Random) -> bytes:
    """A field of a tar's header, with the sum made right again."""
    blocks = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not blocks:
        return flip_bits(data, rng)
    at = rng.choice(blocks)
    begin, end = rng.choice(((0, 100), (100, 108), (124, 136), (156, 157), (157, 257), (345, 500)))
    if end == 157:
        data[at + 156] = rng.choice(b"01234567xgLKSX\0")
    else:
        place = rng.randrange(begin, end)
        data[at + place : at + min(place + 4, end)] = rng.randbytes(min(place + 4, end) - place)
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def png_chunks(data: bytearray, rng: random.Random) -> bytes:
    """Chunks left out, doubled, swapped, renamed or changed, each with its sum made right."""
    if not data.startswith(PNG):
        return lengths(data, rng)
    chunks, at = [], len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, bytes(data[at + 8 : at + 8 + length])))
        at += length + 12
    if not chunks:
        return flip_bits(data, rng)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    match rng.randrange(6):
        case 0:
            del chunks[place]
        case 1:
            chunks.insert(rng.randrange(len(chunks)), chunks[place])
        case 2:
            rng.shuffle(chunks)
        case 3:
            kinds = (
                b"IHDR",
                b"PLTE",
                b"tRNS",
                b"iCCP",
                b"zTXt",
                b"acTL",
                b"fdAT",
                b"eXIf",
                b"gAMA",
            )
            chunks[place] = (rng.choice(kinds), content)
        case 4:
            odd = struct.pack(">I", rng.choice(ODD_NUMBERS))
            where = rng.randrange(max(1, len(content) - 3))
            chunks[place] = (kind, content[:where] + odd + content[where + 4 :])
        case 5:
            bomb = zlib.compress(bytes(rng.choice((10, 10**6, 2 * 10**7))))
            chunks[place] = (kind, bomb if kind == b"IDAT" else b"x\0\0" + bomb)
    parts = [struct.pack(">I", len(one)) + kind + one + crc(kind + one) for kind, one in chunks]
    return PNG + b"".join(parts)


def crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    set_bytes,
    cut,
    cut_out,
    repeat,
    insert,
    lengths,
    digits,
    tar_headers,
    png_chunks,
)


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    if rng.random() < 0.05:  # the beginning of one file and the end of another
        other = rng.choice(others)
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if data:
            data = rng.choice(MUTATIONS)(bytearray(data), rng)
    return data
