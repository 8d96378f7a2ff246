import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from config.bench.site import parents
from config.runtime.postgres import Postgres

REPOSITORY = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture
def short_dir(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_it_runs_until_its_last_user_is_gone(short_dir: Path) -> None:
    server = Postgres(short_dir, durable=False)
    server.acquire()
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_USER, str(short_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == f"{server.pid()}\n"
    pid = server.pid()

    assert server.release_and_wait() is False
    assert server.pid() == pid

    other.kill()
    other.wait()
    assert server.wait_until_stopped(60)


OTHER_USER = """
import sys
from pathlib import Path
from config.runtime.postgres import Postgres
server = Postgres(Path(sys.argv[1]), durable=False)
server.acquire()
print(server.pid(), flush=True)
sys.stdin.read()
"""


def test_it_starts_beside_a_process_id_that_belongs_to_another_program(short_dir: Path) -> None:
    server = Postgres(short_dir, durable=False)
    server.acquire()
    assert server.release_and_wait()
    # What a reboot leaves: a file that names a process which is somebody else's now.
    with subprocess.Popen(["/bin/sleep", "300"]) as foreign:
        lines = [str(foreign.pid), str(server.cluster), "1", "5432", "", "", "0 0", "ready"]
        (server.cluster / "postmaster.pid").write_text("\n".join(lines))
        assert server.pid() is None
        server.acquire()
        assert server.pid() not in (None, foreign.pid)
        foreign.kill()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.release()


def test_it_finds_a_new_user_while_it_is_stopping(short_dir: Path) -> None:
    server = Postgres(short_dir, durable=False)
    for _ in range(3):
        server.acquire()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        # The keeper takes over at once; the next turn arrives in the middle of the shutdown.
        server.release()
        time.sleep(0.05)
    assert server.release_and_wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root's clusters lie elsewhere.")
def test_it_removes_what_temporary_data_left_behind(tmp_path: Path) -> None:
    homes = []
    for name in ("gone", "kept"):
        server = Postgres(tmp_path / name, durable=False)
        server.acquire()
        assert server.release_and_wait()
        homes.append(server.home.resolve())
    if homes[0].is_relative_to(tmp_path):
        pytest.skip("PostgreSQL's own user reaches the temporary directory here.")
    shutil.rmtree(tmp_path / "gone")

    server = Postgres(tmp_path / "third", durable=False)
    server.acquire()
    assert not homes[0].exists()
    assert homes[1].exists()
    server.release()


def test_it_comes_back_from_kills_in_the_middle_of_its_recovery(short_dir: Path) -> None:
    server = Postgres(short_dir)
    server.acquire()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 2000000) AS n")
    started = threading.Event()

    def ask() -> None:
        """As a site's processes do, over and over: the refusals are what ends the server's log."""
        while not started.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(server.url(), connect_timeout=2).close()
            time.sleep(0.01)

    kill(server)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(ask)
        start = threads.submit(server.restart_if_dead)
        try:
            for recoveries in (1, 2):
                end = time.monotonic() + 120
                while server.log.read_text().count("redo starts") < recoveries:
                    assert time.monotonic() < end
                    if start.done():  # it had recovered before the kill came
                        start.result()
                        start = threads.submit(server.restart_if_dead)
                    time.sleep(0.002)
                kill(server)
            assert start.result(60)
        finally:
            started.set()
            asked.result()
    server.restart_if_dead()  # the last kill may have come too late, too
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2000000,)
    server.release()


def test_it_comes_back_from_the_end_of_the_process_that_recovers(short_dir: Path) -> None:
    """The server ends with it, and the log's end says nothing of a refused connection."""
    server = Postgres(short_dir)
    server.acquire()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 2000000) AS n")
    kill(server)
    end = time.monotonic() + 120
    with ThreadPoolExecutor() as threads:
        start = threads.submit(server.restart_if_dead)
        while not re.search(r"startup process \(PID \d+\) was terminated", server.log.read_text()):
            assert time.monotonic() < end
            if start.done():  # it had recovered before the kill came
                start.result()
                kill(server)
                start = threads.submit(server.restart_if_dead)
            for pid in below(server.pid()):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if b"startup" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
        assert start.result(60)
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2000000,)
    server.release()


def below(pid: int | None) -> list[int]:
    return [child for child, parent in parents() if parent == pid]


def kill(server: Postgres) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid() or 0x7FFFFFFF, signal.SIGKILL)
