"""The one-machine runtime, for real: own data directory, own port, real processes."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from config.runtime.paths import database_url

REPOSITORY = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def up(home: Path) -> Iterator[Callable[..., "Up"]]:
    started: list[Up] = []

    def start(*arguments: str, **environment: str) -> Up:
        started.append(Up(home, arguments, environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Up:
    def __init__(self, home: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.home = home
        self.port = free_port()
        self.output = home.parent / f"up-{self.port}.txt"
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), "--no-starter"]
            + ["--web-workers", "1", *arguments],
            cwd=REPOSITORY,
            env=clean_environment(home) | environment,
            stdout=self.output.open("wb"),
            stderr=subprocess.STDOUT,
        )

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            text = self.output.read_text()
            assert time.monotonic() < end, f"never came: {what}\n{text}"
            time.sleep(0.1)

    def wait_until_ready(self) -> None:
        self.wait_for(lambda: "OneLoop runs at" in self.output.read_text(), "the address")

    def get(self, path: str) -> int:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


def clean_environment(home: Path) -> dict[str, str]:
    names = {"DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_ROOT", "PORT"}
    return {k: v for k, v in os.environ.items() if k not in names} | {"ONELOOP_DATA": str(home)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(home: Path) -> dict[int, str]:
    """Living processes of this data directory, by arguments, environment or working directory."""
    found = {}
    needle = os.fsencode(home)
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            marks = command + (directory / "environ").read_bytes()
            # Valkey writes its title over both; it still works in its own directory.
            if needle in marks or needle in os.fsencode(os.readlink(directory / "cwd")):
                found[int(directory.name)] = command.replace(b"\0", b" ").decode()
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command.strip()}


def child(home: Path, text: str) -> int:
    """Process id of the oldest process whose command line holds the text."""
    pids = [pid for pid, command in processes(home).items() if text in command]
    return min(pids, default=0)


def test_it_restarts_what_dies_and_refuses_a_second_start(
    up: Callable[..., Up], home: Path
) -> None:
    site = up()
    site.wait_until_ready()
    assert site.get("/healthz") == 200
    assert site.get("/readyz") == 200

    same_data = up()
    same_port = up("--port", str(site.port), ONELOOP_DATA=str(home.parent / "other"))
    assert same_data.process.wait(120) == 1
    assert f"already runs at http://127.0.0.1:{site.port}/" in same_data.output.read_text()
    assert same_port.process.wait(120) == 1
    assert f"--port {site.port + 1}" in same_port.output.read_text()

    found: list[int] = []

    def both_live() -> bool:
        found[:] = [child(home, "default@"), child(home, "valkey-server")]
        return all(found)

    site.wait_for(both_live, "the default worker and the broker")
    worker, broker = found
    postmaster = int((home / "postgres/data/postmaster.pid").read_text().split()[0])
    for pid in (worker, broker, postmaster):
        os.kill(pid, signal.SIGKILL)
    site.wait_for(lambda: child(home, "default@") not in (0, worker), "a new worker")
    site.wait_for(lambda: child(home, "valkey-server") not in (0, broker), "a new broker")
    site.wait_for(lambda: "PostgreSQL had ended" in site.output.read_text(), "a new database")
    site.wait_for(lambda: site.get("/readyz") == 200, "readiness with the new ones")
    assert "default worker ended (SIGKILL)" in site.output.read_text()


def test_it_stops_cleanly_and_finds_its_data_again(up: Callable[..., Up], home: Path) -> None:
    first = up()
    first.wait_until_ready()
    with psycopg.connect(database_url(home)) as connection:
        connection.execute("CREATE TABLE kept (value int); INSERT INTO kept VALUES (42)")
    assert first.stop() == 0
    assert processes(home) == {}
    assert first.get("/healthz") == 0

    second = up()
    second.wait_until_ready()
    with psycopg.connect(database_url(home)) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
    assert row == (42,)

    second.process.kill()
    second.wait_for(lambda: processes(home) == {}, f"an end of all processes of {home}")


def test_it_starts_the_database_for_a_single_command(home: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=REPOSITORY,
            env=clean_environment(home),
            capture_output=True,
            text=True,
            check=False,
        )

    program = "from django.contrib.auth.models import User; print(User.objects.count())"
    first = run("shell", "-v0", "-c", program)
    assert first.stdout.strip() == "0", first.stderr
    assert "Preparing a new database" in first.stderr
    second = run("shell", "-v0", "-c", program)
    assert second.stdout.strip() == "0"
    assert second.stderr == ""
    end = time.monotonic() + 60
    while processes(home):
        assert time.monotonic() < end, processes(home)
        time.sleep(0.1)
