"""A few decoders for this process, started when a picture comes and used for many.

A decoder that dies is replaced and the picture given to a new one; if that dies, too, or where time
or memory ran out, the picture is refused. What a decoder answers is checked as if it were a
stranger's: it has read what strangers sent.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext
from PIL import Image as Pillow

from generation.decoding.pixels import MAX_PIXELS, SENTENCES, Refused
from generation.decoding.process import receive, receive_line, send

HOME = Path(__file__).resolve().parents[2]
# Nothing of ours: no key, no password, no address.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
MOST_PICTURES = 2000  # until a decoder is replaced, whatever it may have leaked
SLACK = 2  # a machine with other work to do gives a process half of its time
CHANNELS = {"RGB": 3, "L": 1}
LONGEST_VALUE = 300

logger = logging.getLogger(__name__)


class Died(Exception):
    """The decoder is no more."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"a decoder ended with status {status}")
        self.status = status


@dataclass(eq=False)
class Decoder:
    process: subprocess.Popen[bytes]
    connection: socket.socket
    pictures: int = 0
    peak_kb: int = 0

    @classmethod
    def start(cls) -> Decoder:
        ours, theirs = socket.socketpair()
        memory, seconds = settings.DECODER_MEMORY_MB, settings.DECODER_SECONDS
        command = [sys.executable, "-m", "generation.decoding.process", str(memory), str(seconds)]
        try:
            process = subprocess.Popen(
                command,
                cwd=HOME,
                env=ENVIRONMENT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    def read(self, data: bytes, kind: str) -> Pillow.Image:
        """Raises Refused, TimeoutError or Died; after the last two it is of no more use."""
        until = time.monotonic() + SLACK * settings.DECODER_SECONDS

        def wait() -> None:
            self.connection.settimeout(max(0.001, until - time.monotonic()))

        try:
            wait()
            send(self.connection, {"kind": kind, "bytes": len(data)}, data)
            header = json.loads(receive_line(self.connection, wait))
            self.peak_kb = int(header["peak_kb"])
            if "refused" in header:
                raise _refused(header["refused"])
            width, height = header["size"]
            mode = header["mode"]
            if min(width, height) < 1 or width * height > MAX_PIXELS:
                raise ValueError("its answer has no size")
            pixels = receive(self.connection, width * height * CHANNELS[mode], wait)
        except (TimeoutError, Refused):
            raise
        except Exception:  # its end, or an answer that makes no sense
            raise Died(self.stop()) from None
        self.pictures += 1
        return Pillow.frombytes(mode, (width, height), pixels)

    def usable(self) -> bool:
        return self.pictures < MOST_PICTURES and self.process.poll() is None

    def stop(self) -> int | None:
        """Its exit status; where it still runs it is killed."""
        self.connection.close()
        try:
            return self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)


def _refused(said: Any, depth: int = 2) -> Refused:
    """What a decoder said, if it is one of the sentences it may say."""
    code, values = said
    if code not in SENTENCES or depth == 0:
        raise ValueError("its answer is none of the sentences")
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            checked[name] = _refused(value, depth - 1)
        else:
            checked[name] = value if isinstance(value, int) else str(value)[:LONGEST_VALUE]
    return Refused(code, **checked)


@dataclass
class Pool:
    idle: list[Decoder] = field(default_factory=list)
    all: set[Decoder] = field(default_factory=set)
    slots: threading.BoundedSemaphore | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def lend(self, *, fresh: bool = False) -> Iterator[Decoder]:
        with self.lock:
            if self.slots is None:
                self.slots = threading.BoundedSemaphore(max(1, settings.DECODER_PROCESSES))
            slots = self.slots
        if not slots.acquire(timeout=2 * SLACK * settings.DECODER_SECONDS):
            raise Refused("busy")
        try:
            decoder = self._take(fresh=fresh)
            try:
                yield decoder
            except Refused as refused:
                self._give(decoder, keep=refused.code != "memory")
                raise
            except BaseException:
                self._give(decoder, keep=False)
                raise
            else:
                self._give(decoder, keep=True)
        finally:
            slots.release()

    def _take(self, *, fresh: bool) -> Decoder:
        with self.lock:
            idle = self.idle.pop() if self.idle and not fresh else None
        if idle is not None and idle.usable():
            return idle
        if idle is not None:
            self._give(idle, keep=False)
        decoder = Decoder.start()
        with self.lock:
            self.all.add(decoder)
        return decoder

    def _give(self, decoder: Decoder, *, keep: bool) -> None:
        with self.lock:
            if keep and len(self.idle) < settings.DECODER_PROCESSES:
                self.idle.append(decoder)
                return
            self.all.discard(decoder)
        decoder.stop()

    def close(self) -> None:
        with self.lock:
            idle, self.idle = self.idle, []
            self.all.difference_update(idle)
        for decoder in idle:
            decoder.stop()

    def forget(self) -> None:
        """In a forked child: the decoders are the parent's, and end when the parent lets go."""
        for decoder in self.all:
            decoder.connection.close()
        self.__init__()  # type: ignore[misc]


POOL = Pool()
os.register_at_fork(after_in_child=POOL.forget)
atexit.register(POOL.close)


def decode(data: bytes, kind: str) -> Pillow.Image:
    """As `pixels.read`, in a process that may die. Raises Refused."""
    for attempt in (1, 2):
        try:
            with POOL.lend(fresh=attempt == 2) as decoder:
                return decoder.read(data, kind)
        except TimeoutError:
            logger.warning("A decoder was killed: %d bytes took too long.", len(data))
            raise Refused("time") from None
        except OSError as error:  # no process, no memory for one
            logger.error("No decoder can be started: %s.", error)
            raise Refused("busy") from None
        except Died as died:
            logger.warning("%s, reading %d bytes.", died, len(data))
            if died.status == -signal.SIGXCPU:
                raise Refused("time") from None
    raise Refused("killed")


def sentence(refused: Refused, name: str) -> str:
    """In the language of whoever reads it."""
    values: dict[str, Any] = {"name": name}
    for key, value in refused.values.items():
        values[key] = sentence(value, name) if isinstance(value, Refused) else value
    return gettext(SENTENCES[refused.code]) % values
