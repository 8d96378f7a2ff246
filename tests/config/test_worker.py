"""A worker does not outlive the process that looks after it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parent.parent.parent
# Starts a worker that waits for a broker which isn't there, and goes without a word to it.
SUPERVISOR = """
import os, subprocess, sys, time
os.environ["ONELOOP_SUPERVISOR"] = str(os.getpid())
command = [sys.executable, "-m", "celery", "-A", "config", "worker", "--loglevel", "info"]
log = open(sys.argv[1], "wb")
worker = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
end = time.monotonic() + 60
while b"Trying again" not in open(sys.argv[1], "rb").read() and time.monotonic() < end:
    time.sleep(0.2)
print(worker.pid)
"""


def test_it_ends_after_a_supervisor_that_died_without_a_word(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    found = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, str(log)],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "CELERY_BROKER_URL": "redis://127.0.0.1:1",
            "ONELOOP_DATA": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    worker = Path(f"/proc/{int(found.stdout)}")
    assert "Trying again" in log.read_text()
    assert worker.exists()
    end = time.monotonic() + 40
    while worker.exists():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


# A worker's children are forked right after it began.
BEGUN = """
import sys, threading
import django
django.setup()
from config import heartbeats
waits = threading.Thread.start
threading.Thread.start = lambda thread: None if thread.name == "heart" else waits(thread)
heartbeats.Heart(name="one", kind="worker", queues=[]).start()
print("pynvml" in sys.modules)
"""


def test_its_heart_imports_nothing_beside_the_fork(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", BEGUN],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "ONELOOP_DATA": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "True"
