"""Is the worker or the clock of this machine alive? A probe for containers; standard library only.

    python -m config.alive worker

`manage.py alive worker` does the same in half a second instead of a twentieth.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from pathlib import Path

KINDS = ("worker", "beat")
SECONDS = 60.0


def beat_file(data_dir: Path, kind: str, name: str) -> Path:
    """Touched every ten seconds by the process of that name; machines may share the folder."""
    return _folder(data_dir) / f"{kind}-{re.sub(r'[^A-Za-z0-9.@-]', '_', name)}"


def _folder(data_dir: Path) -> Path:
    return data_dir / "alive" / socket.gethostname()


def complaint(data_dir: Path, kind: str, name: str = "", seconds: float = SECONDS) -> str:
    """ "" when every such process of this machine has shown itself lately, else what is wrong."""
    pattern = beat_file(data_dir, kind, name).name if name else f"{kind}-*"
    found = sorted(_folder(data_dir).glob(pattern))
    if not found:
        return f"No {kind} has started on this machine, or none with the data in {data_dir}."
    ages = {file.name: time.time() - file.stat().st_mtime for file in found}
    late = [f"{file} ({age:.0f} s)" for file, age in ages.items() if age > seconds]
    return f"Silent for too long: {', '.join(late)}." if late else ""


def main() -> None:
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 2) or arguments[0] not in KINDS:
        sys.exit("usage: python -m config.alive worker|beat [NAME]")
    kind, name = arguments[0], "".join(arguments[1:])
    here = Path(__file__).resolve().parent.parent / ".data"
    data_dir = Path(os.environ.get("ONELOOP_DATA", "").strip() or here).expanduser().resolve()
    sys.exit(complaint(data_dir, kind, name) or 0)


if __name__ == "__main__":
    main()
