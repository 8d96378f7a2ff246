"""Browsers are spread evenly over a server's workers, whoever took their connections."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.balance import Balanced, Lane
from tests.config.test_up import free_port
from tests.conftest import REPOSITORY, stop_process_group

CLIENTS = 8


@pytest.fixture
def server(data_dir: Path) -> Iterator[int]:
    port = free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--no-ws", "--port"]
    command += [str(port), "--workers", "2", "--blocking-threads", "8"]
    process = subprocess.Popen(
        [*command, "tests.config.counted_app:application"],
        cwd=REPOSITORY,
        env=os.environ | {"ONELOOP_DATA": str(data_dir)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port)
        yield port
    finally:
        stop_process_group(process)


def test_a_worker_that_has_more_sends_some_away(server: int) -> None:
    # As uneven as can be: one connection after the other, all of them held by one worker.
    clients = [http.client.HTTPConnection("127.0.0.1", server, timeout=30) for _ in range(CLIENTS)]
    end = time.monotonic() + 4
    counts = [Counter[str]() for _ in clients]

    def ask(number: int) -> None:
        while time.monotonic() < end:
            clients[number].request("GET", "/")
            worker = clients[number].getresponse().read().decode()
            if time.monotonic() > end - 2:
                counts[number][worker] += 1

    threads = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = sum(counts, Counter[str]())
    assert len(served) == 2
    assert min(served.values()) > 0.42 * served.total()  # 3 of 8 would be 0.375


def test_a_worker_alone_sends_nobody_away(server: int, data_dir: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server, timeout=30)
    for _ in range(5):
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        assert not answer.will_close


def test_without_a_place_to_write_it_serves_all_the_same(tmp_path: Path) -> None:
    said: list[str] = []

    def application(environ: dict[str, object], start: object) -> list[bytes]:
        start("200 OK", [])  # type: ignore[operator]
        return [b"here"]

    answer = Balanced(application, tmp_path / "not" / "there")(
        {"SERVER_PROTOCOL": "HTTP/1.1"}, lambda s, h: said.append(s)
    )
    assert list(answer) == [b"here"]
    assert said == ["200 OK"]


def test_labelling_goes_in_the_order_it_came(tmp_path: Path) -> None:
    began: list[int] = []
    may_end = [threading.Event() for _ in range(6)]

    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        began.append(environ["number"])
        assert may_end[environ["number"]].wait(60)
        return [b""]

    server = Balanced(application, tmp_path, lane="/label/", width=2)
    lane = server.lane
    assert lane is not None
    lane.patience = 60

    def ask(number: int, path: str) -> None:
        environ = {"SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": path, "number": number}
        list(server(environ, lambda *_: None))

    for path, at_once in (("/label/7/", 2), ("/images/", 6)):
        began.clear()
        threads = [threading.Thread(target=ask, args=[n, path]) for n in range(6)]
        for number, thread in enumerate(threads, start=1):
            thread.start()
            _until(number, lambda: len(began) + len(lane.waiting))
        assert len(began) == at_once
        for ended, event in enumerate(may_end, start=1):
            event.set()
            _until(min(ended + at_once, 6), lambda: len(began))
        for thread in threads:
            thread.join(60)
        assert began == list(range(6))
        for event in may_end:
            event.clear()


def test_a_stuck_request_holds_up_labelling_for_a_moment_only() -> None:
    lane, stuck, done = Lane(1, patience=0.05), threading.Event(), []

    def ask(name: str) -> None:
        with lane.turn():
            if name == "stuck":
                stuck.wait(10)
        done.append(name)

    threads = [threading.Thread(target=ask, args=[name]) for name in ("stuck", "b", "c", "d")]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.join(10)
    assert done == ["b", "c", "d"]
    stuck.set()
    threads[0].join(10)
    # The place that was taken over is not given back twice.
    assert done[-1] == "stuck"
    assert (len(lane.inside), len(lane.waiting)) == (0, 0)


def _until(number: int, counted: Callable[[], int]) -> None:
    end = time.monotonic() + 60
    while counted() != number:
        assert time.monotonic() < end
        time.sleep(0.001)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server never answered")
