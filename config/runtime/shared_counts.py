"""Where the web workers of one server map their counts. Before anything imports prometheus_client.

Standard library only: it runs first of all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

NAME = "PROMETHEUS_MULTIPROC_DIR"


def prepare(data_dir: Path) -> None:
    """Name the folder of this server's workers, and remove those of servers that ended.

    A server is known by its process and when that began: in a container each has the number 1.
    """
    if os.environ.get(NAME):
        return
    here = data_dir / "metrics" / socket.gethostname()
    server = os.getppid()
    mine = here / f"{server}-{_began(server)}"
    try:
        mine.mkdir(parents=True, exist_ok=True)
    except OSError:  # nothing can be written there: each worker counts for itself
        return
    os.environ[NAME] = str(mine)
    with contextlib.suppress(OSError):
        for other in here.iterdir():
            pid, _, began = other.name.partition("-")
            if pid.isdecimal() and _began(int(pid)) != began:
                shutil.rmtree(other, ignore_errors=True)


def _began(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
