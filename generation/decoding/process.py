"""One decoder: `python -m generation.decoding.process MEMORY_MB SECONDS`, its standard input a
socket. A request is a line of JSON (kind, bytes) and a file; the answer a line (mode, size, or
what is refused) and pixels.

It starts without this site's environment, reads nothing but its socket, writes no file, and ends
with it. Whatever a file makes of its decoder, it has this process's memory and time and no more.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sys
import warnings
from collections.abc import Callable
from typing import Any

LONGEST_LINE = 16 * 1024
LONGEST_WAIT = 600.0  # seconds without work until it ends by itself
MOST_FILES = 64


def send(connection: socket.socket, header: dict[str, Any], data: Any = b"") -> None:
    connection.sendall(json.dumps(header).encode() + b"\n")
    if data:
        connection.sendall(data)


def receive_line(connection: socket.socket, before: Callable[[], None] = lambda: None) -> bytes:
    """Up to the end of the line, and not a byte more. `before` each wait; EOFError at the end."""
    line = b""
    while not line.endswith(b"\n"):
        before()
        seen = connection.recv(LONGEST_LINE, socket.MSG_PEEK)
        if not seen:
            raise EOFError
        end = seen.find(b"\n")
        line += connection.recv(end + 1 if end >= 0 else len(seen))
        if len(line) > LONGEST_LINE:
            raise ValueError("the line is too long")
    return line


def receive(
    connection: socket.socket, size: int, before: Callable[[], None] = lambda: None
) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        before()
        count = connection.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return data


def main() -> None:
    memory_mb, seconds = int(sys.argv[1]), int(sys.argv[2])
    from PIL import Image as Pillow

    from generation.decoding import pixels

    Pillow.init()  # the formats' modules, while files may be opened
    warnings.simplefilter("ignore")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, MOST_FILES)
    _limit(resource.RLIMIT_AS, memory_mb * 2**20)
    connection = socket.socket(fileno=0)
    connection.settimeout(LONGEST_WAIT)
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = json.loads(receive_line(connection))
            data = bytes(receive(connection, request["bytes"]))
            _allow(seconds)
            try:
                picture = pixels.read(data, request["kind"])
                payload = picture.tobytes()
            except pixels.Refused as refused:
                send(connection, {"refused": refused.as_json(), "peak_kb": _peak_kb()})
            except MemoryError:
                send(connection, {"refused": ["memory", {}], "peak_kb": _peak_kb()})
                return  # what is left of its memory is in pieces
            else:
                header = {"mode": picture.mode, "size": picture.size, "peak_kb": _peak_kb()}
                send(connection, header, payload)
                del picture, payload
            del data


def _limit(which: int, value: int) -> None:
    _soft, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _allow(seconds: int) -> None:
    """So many seconds of computing from now on; then the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(used.ru_utime + used.ru_stime) + seconds + 1
    if hard != resource.RLIM_INFINITY:
        until = min(until, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _peak_kb() -> int:
    """Of this program alone: getrusage() counts what the process held that it was forked from."""
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(b"VmHWM:"))


if __name__ == "__main__":
    main()
