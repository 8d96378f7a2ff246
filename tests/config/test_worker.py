"""What a worker does before it works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parent.parent.parent

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
