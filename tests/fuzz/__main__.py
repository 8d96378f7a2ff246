"""`python -m tests.fuzz --cases 10000 --seed 0`: as the long test, with a number of one's own."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import django

parser = argparse.ArgumentParser(description="Take in spoilt files, and say what came of it.")
parser.add_argument("--cases", type=int, default=10_000)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from tests.fuzz.run import PARENT_MB, prepare, run  # noqa: E402

prepare()
with tempfile.TemporaryDirectory() as folder:
    found = run(options.cases, options.seed, Path(folder))
print("\n".join([*found.lines(), *found.wrong]))
sys.exit(bool(found.wrong) or found.grown_mb > PARENT_MB)
