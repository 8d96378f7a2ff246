"""Waits for the last user of an embedded PostgreSQL and stops it. See `postgres.py`."""

import sys
from pathlib import Path

from config.runtime.postgres import Postgres

if __name__ == "__main__":
    Postgres(Path(sys.argv[1])).keep()
