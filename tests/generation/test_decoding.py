"""Decoding in processes that may die: their limits, their ends, and what is left of a picture."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image as Pillow
from PIL import ImageCms, PngImagePlugin

from generation import images
from generation.decoding import plain, pool
from generation.images import ImageError
from generation.models import Source
from tests.factories import make_mask_picture, make_picture, make_task, make_user


def saved(picture: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def limits(settings: Any) -> Iterator[Callable[..., None]]:
    """Sets the decoders' limits; those that run under others end before and after."""

    def limit(**values: Any) -> None:
        for name, value in values.items():
            setattr(settings, f"DECODER_{name.upper()}", value)
        pool.POOL.close()
        pool.POOL.slots = None

    yield limit
    pool.POOL.close()
    pool.POOL.slots = None


def running() -> list[int]:
    return [decoder.process.pid for decoder in pool.POOL.all]


# Processes


def test_one_process_reads_many_pictures(limits: Callable[..., None]) -> None:
    limits(processes=1)
    for seed in range(5):
        assert images.decode(saved(make_picture(seed))) == make_picture(seed)
        with pytest.raises(ImageError, match="is not a picture"):
            images.decode(b"words")
    [decoder] = pool.POOL.idle
    assert decoder.pictures == 5
    decoder.pictures = pool.MOST_PICTURES
    images.decode(saved(make_picture(1)))
    assert running() != [decoder.process.pid]
    assert decoder.process.poll() is not None


def test_it_knows_nothing_of_this_site(limits: Callable[..., None]) -> None:
    limits()
    images.decode(saved(make_picture(1)))
    [process] = running()
    assert b"SECRET" not in (environment := Path(f"/proc/{process}/environ").read_bytes())
    assert b"DATABASE" not in environment
    assert b"DJANGO" not in environment
    sockets = [os.readlink(one) for one in Path(f"/proc/{process}/fd").iterdir()]
    assert sum("socket:" in one for one in sockets) == 1
    maps = Path(f"/proc/{process}/maps").read_text()
    assert "torch" not in maps
    assert "psycopg" not in maps


def test_it_starts_without_django_and_torch() -> None:
    program = """
import sys
import generation.decoding.pixels, generation.decoding.process
print(sorted({"django", "torch", "celery", "pyarrow"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=pool.HOME, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_more_processes_than_allowed_serve_many_threads(limits: Callable[..., None]) -> None:
    limits(processes=2)
    seen: set[int] = set()

    def read(seed: int) -> bool:
        same = images.decode(saved(make_picture(seed))) == make_picture(seed)
        seen.update(running())
        return same

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(40)))
    assert 1 <= len(seen) <= 2


def test_a_decoder_that_was_killed_is_replaced(limits: Callable[..., None]) -> None:
    limits(processes=1)
    for _attempt in range(3):
        images.decode(saved(make_picture(1)))
        [process] = running()
        os.kill(process, signal.SIGKILL)
        assert images.decode(saved(make_picture(2))) == make_picture(2)


def test_a_decoder_that_is_killed_at_work_costs_nothing(limits: Callable[..., None]) -> None:
    limits(processes=1)
    images.decode(saved(make_picture(1)))
    [process] = running()
    os.kill(process, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (process, signal.SIGKILL))
    killer.start()
    assert images.decode(saved(make_picture(2))) == make_picture(2)
    killer.join()


def test_one_that_hangs_is_killed_and_the_file_refused(limits: Callable[..., None]) -> None:
    limits(processes=1, seconds=1)
    images.decode(saved(make_picture(1)))
    [process] = running()
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(ImageError, match=r"cat\.png takes too long to read\. Scale it down"):
        images.decode(saved(make_picture(2)), name="cat.png")
    assert not Path(f"/proc/{process}").exists()
    assert images.decode(saved(make_picture(3))) == make_picture(3)


def test_one_that_computes_too_long_is_ended_by_the_kernel(limits: Callable[..., None]) -> None:
    limits(processes=1, seconds=1)
    data = PNG[:33] + chunk(b"zzZz", b"") * 2_000_000 + PNG[33:]
    with pytest.raises(ImageError, match="takes too long to read"):
        images.decode(data, name="long.png")
    assert images.decode(saved(make_picture(3))) == make_picture(3)


def test_one_that_takes_too_much_memory_refuses_and_ends(limits: Callable[..., None]) -> None:
    limits(processes=1, memory_mb=400)
    images.decode(saved(make_picture(1)))
    before = running()
    with pytest.raises(ImageError, match=r"wide\.png takes too much memory to read"):
        images.decode(saved(Pillow.new("1", (8000, 8000))), name="wide.png")
    assert images.decode(saved(make_picture(2))) == make_picture(2)
    assert running() != before


@pytest.mark.long
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "16 bits"])
def test_the_largest_pictures_fit_into_the_limits(limits: Callable[..., None], kind: str) -> None:
    limits()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    size = (8000, 8000)
    if kind == "16 bits":
        data = saved(Pillow.fromarray(np.zeros(size, np.uint16)), compress_level=1)
    else:
        picture = Pillow.new("RGBA" if kind == "PNG" else "RGB", size, (9, 80, 7))
        data = saved(picture, kind, icc_profile=profile, exif=exif)
    assert images.decode(data).size == size
    [decoder] = pool.POOL.idle
    assert decoder.peak_kb < 1_600_000


def test_where_no_decoder_lives_the_file_is_refused(limits: Callable[..., None]) -> None:
    limits(processes=1, memory_mb="none")  # it ends before it begins
    with pytest.raises(ImageError, match=r"cat\.png could not be read: .* Open it in an image"):
        images.decode(saved(make_picture(1)), name="cat.png")
    assert running() == []


def test_where_none_can_be_started_it_says_try_again(
    limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(processes=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(ImageError, match=r"cat\.png was not read: .*Try again in a minute"):
            images.decode(saved(make_picture(1)), name="cat.png")
    assert images.decode(saved(make_picture(1))) == make_picture(1)


def test_a_forked_process_has_decoders_of_its_own(limits: Callable[..., None]) -> None:
    limits(processes=1)
    images.decode(saved(make_picture(1)))
    before = running()
    child = os.fork()
    if child == 0:
        good = running() == [] and images.decode(saved(make_picture(2))) == make_picture(2)
        pool.POOL.close()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert images.decode(saved(make_picture(3))) == make_picture(3)
    assert running() == before


def test_decoders_end_with_those_they_work_for(limits: Callable[..., None], tmp_path: Path) -> None:
    limits(processes=1)
    child = os.fork()
    if child == 0:
        images.decode(saved(make_picture(2)))
        (tmp_path / "decoder").write_text(str(running()[0]))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    decoder = int((tmp_path / "decoder").read_text())
    until = time.monotonic() + 10
    while Path(f"/proc/{decoder}").exists() and time.monotonic() < until:
        # Whoever inherits it may not have collected it yet.
        if "Z" in Path(f"/proc/{decoder}/stat").read_text().rpartition(")")[2][:3]:
            break
        time.sleep(0.02)
    assert time.monotonic() < until


@pytest.mark.parametrize(
    "answer",
    [
        b'{"mode": "RGB", "size": [100000, 100000], "peak_kb": 1}\n',
        b'{"mode": "RGB", "size": [-1, -1], "peak_kb": 1}\n',
        b'{"mode": "P", "size": [1, 1], "peak_kb": 1}\n',
        b'{"refused": ["%(name)9999999999s", {}], "peak_kb": 1}\n',
        b'{"refused": ["damaged", 3], "peak_kb": 1}\n',
        b'{"refused": [["damaged"], {}], "peak_kb": 1}\n',
        b"[" * 100_000,
        b"[" * 9_000 + b"\n",
        b"null\n",
        b"\xff\n",
        b"",
    ],
)
def test_what_a_captured_decoder_answers_harms_nobody(
    limits: Callable[..., None], answer: bytes
) -> None:
    limits(processes=1)
    with pool.POOL.lend() as decoder:
        decoder.read(saved(make_picture(1)), "picture")
        decoder.connection.close()
        ours, theirs = socket.socketpair()
        decoder.connection = ours
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(pool.Died):
            decoder.read(b"a picture", "picture")
        theirs.close()


@pytest.mark.django_db
def test_a_page_says_so_and_serves_on(limits: Callable[..., None], client: Client) -> None:
    limits(processes=1, memory_mb=400)
    task = make_task("mend")
    client.force_login(make_user("maker", role="manager"))

    def send(picture: bytes) -> Any:
        file = io.BytesIO(picture)
        file.name = "cat.png"
        mask = io.BytesIO(saved(make_mask_picture()))
        mask.name = "mask.png"
        sent = {"task": task.pk, "image": file, "mask": mask, "prompt": "a hat"}
        return client.post(reverse("generation:source_new"), sent)

    response = send(saved(Pillow.new("1", (8000, 8000))))
    assert response.status_code in (200, 422)
    assert "cat.png takes too much memory to read" in response.content.decode()
    assert Source.objects.count() == 0
    assert send(saved(make_picture(1))).status_code == 302
    assert Source.objects.count() == 1


# Polyglots and what else a file carries


def zipped(name: str = "Main.class") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"\xca\xfe\xba\xbe")
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


PNG, JPEG = saved(make_picture(1)), saved(make_picture(1), "JPEG", quality=95)
GIF = saved(Pillow.new("RGB", (16, 16)), "GIF")
TWO_IN_ONE = {
    "PNG and ZIP": (PNG + zipped(), "an archive"),
    "PNG with a ZIP in a chunk": (PNG[:33] + chunk(b"zzZz", zipped()) + PNG[33:], "an archive"),
    "JPEG and JAR": (JPEG + zipped("META-INF/MANIFEST.MF"), "an archive"),
    "ZIP with a long comment": (JPEG + zipped() + b"\0" * 300, "an archive"),
    "JPEG and RAR": (JPEG + b"Rar!\x1a\x07\x01\x00" + bytes(30), "an archive"),
    "JPEG and 7z": (JPEG + b"7z\xbc\xaf\x27\x1c" + bytes(30), "an archive"),
    "GIF and script": (GIF + b"/*<SCRIPT>alert(1)</script>", "a web page or script"),
    "JPEG and HTML": (JPEG + b"\n<!DOCTYPE html><body>", "a web page or script"),
    "JPEG with PHP in its comment": (
        saved(make_picture(1), "JPEG", comment=b"<?php system($_GET[0]);"),
        "a web page or script",
    ),
    "JPEG and PDF": (JPEG[:2] + b"\xff\xfe\x00\x0b%PDF-1.7\n" + JPEG[2:], "a PDF document"),
}


@pytest.mark.parametrize("name", TWO_IN_ONE)
def test_it_refuses_a_picture_that_is_something_else_as_well(name: str) -> None:
    data, kind = TWO_IN_ONE[name]
    with Pillow.open(io.BytesIO(data)) as picture:
        picture.load()  # a picture it is
    with pytest.raises(ImageError, match=f"cat is a picture and {kind} in one file. Open it in"):
        images.decode(data, name="cat")


def test_nothing_but_pixels_survives() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x010F] = "SECRET-camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 15.0), 29: "SECRET-date"})
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "SECRET-author")
    notes.add_itxt("XML:com.adobe.xmp", "SECRET-xmp")
    files = [
        saved(make_picture(1), "JPEG", exif=exif, icc_profile=profile, comment=b"SECRET-note"),
        saved(make_picture(1), "PNG", exif=exif, icc_profile=profile, pnginfo=notes),
        saved(make_picture(1), "WEBP", exif=exif, icc_profile=profile, xmp=b"SECRET-xmp"),
        saved(make_picture(1), "TIFF", exif=exif, icc_profile=profile),
        saved(make_picture(1), "AVIF", exif=exif, icc_profile=profile, xmp=b"SECRET-xmp"),
        PNG + b"SECRET behind its end",
        JPEG + b"MZ\x90\x00SECRET program",
    ]
    for data in files:
        assert b"SECRET" in data
        picture = images.decode(data)
        assert picture.info == {}
        assert not picture.getexif()
        kept = images.encode(picture)
        assert b"SECRET" not in kept
        assert plain.check(kept) == ("RGB", (64, 64))
        with Pillow.open(io.BytesIO(kept)) as again:
            assert again.info == {}


def test_chance_bytes_are_no_archive() -> None:
    """The mark of ZIP's end without a directory is what compressed pixels may look like."""
    assert images.decode(PNG + b"PK\x05\x06" + bytes(18)) == make_picture(1)
    assert images.decode(PNG + b"PK\x05\x06") == make_picture(1)


# Kept as they are


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (1500, 900)])
def test_our_own_files_are_plain(size: tuple[int, int]) -> None:
    assert plain.check(images.encode(make_picture(3, size))) == ("RGB", size)
    assert plain.check(images.encode(Pillow.new("L", size))) == ("L", size)


def image_data(rows: bytes, *more: bytes, size: tuple[int, int] = (2, 2)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    parts = [chunk(b"IDAT", zlib.compress(rows)), *more, chunk(b"IEND", b"")]
    return plain.SIGNATURE + header + b"".join(parts)


NOT_PLAIN = {
    "trailing bytes": (PNG + b"MZ", "follows its end"),
    "trailing chunk": (PNG + chunk(b"IEND", b""), "follows its end"),
    "a note": (PNG[:33] + chunk(b"tEXt", b"a\0b") + PNG[33:], "more than pixels"),
    "wrong sum": (PNG[:-2] + b"xx", "checksum"),
    "cut off": (PNG[:-20], "cut off"),
    "no PNG": (JPEG, "no PNG"),
    "palette": (saved(make_picture(1).convert("P")), "more than pixels"),
    "16 bits": (saved(Pillow.fromarray(np.zeros((9, 9), np.uint16))), "another kind"),
    "alpha": (saved(make_picture(1).convert("RGBA")), "another kind"),
    "too large": (image_data(b"", size=(9000, 9000)), "out of range"),
    "more rows": (image_data(bytes(9)), "more rows"),
    "fewer rows": (image_data(bytes(3)), "cut off"),
    "a bomb": (image_data(bytes(10**7)), "more rows"),
    "odd filter": (image_data(b"\7\0\0\0\0\0"), "damaged"),
    "behind the pixels": (image_data(bytes(6), chunk(b"IDAT", b"SECRET")), "follows its pixels"),
    "no rows": (plain.SIGNATURE + chunk(b"IHDR", b"") + chunk(b"IEND", b""), "more than pixels"),
    "empty header": (
        plain.SIGNATURE + chunk(b"IHDR", b"") + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "not understood",
    ),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_named(name: str) -> None:
    data, reason = NOT_PLAIN[name]
    assert plain.check(image_data(bytes(6))) == ("L", (2, 2))
    with pytest.raises(plain.NotPlain, match=reason):
        plain.check(data)
