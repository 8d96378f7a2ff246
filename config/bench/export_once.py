"""One export, and what it took, as JSON: `python -m config.bench.export_once CAMPAIGN DIRECTORY`.

The clock starts where a worker's would: connected, with Django and Arrow and what that loads.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

import pyarrow as pa  # noqa: E402
from django.db import connection  # noqa: E402

from annotation import datasets  # noqa: E402
from annotation.exports import Selection  # noqa: E402


def main(campaign: str, directory: Path) -> dict[str, float]:
    told: list[float] = []

    def progress(count: int) -> None:
        if count and not told:
            assert any(path.stat().st_size > 4 for path in directory.parent.rglob("*.parquet"))
            told.append(time.perf_counter() - began)

    pa.array([0])  # Arrow looks for pandas when it makes its first array
    connection.ensure_connection()
    began = time.perf_counter()
    chosen = Selection(campaigns=[campaign])
    datasets.write(
        directory,
        chosen.judgments(),
        ratings=chosen.ratings(),
        salt=datasets.FRESH,
        resumable=True,
        progress=progress,
    )
    return {
        "seconds": time.perf_counter() - began,
        "first": told[0],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
