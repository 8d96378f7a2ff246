"""Trainers in processes of their own, on machines that run out of something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling import launch

ROOT = Path(__file__).parents[1]
TWO_PROCESSES = ROOT / "modeling" / "accelerate" / "cpu_2_processes.yaml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

# Memory is limited once everything is imported: what counts is what the training asks for.
WITH_LITTLE_MEMORY = """
import importlib, resource, sys
trainer = importlib.import_module({module!r})
import datasets, peft  # imported by the way otherwise
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {room}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = ["train", "--run", {run!r}]
sys.exit(trainer.main())
"""

# A disk of its own for the run directory: too small at first, then large enough.
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=$SIZE none "$RUN"
cp -r "$INPUTS"/. "$RUN"
"$PYTHON" -m $MODULE --run "$RUN" > "$OUT/first.txt" 2>&1 && exit 99
cp "$RUN/error.json" "$OUT/"
ls -A "$RUN/checkpoints" > "$OUT/checkpoints.txt"
mount -o remount,size=200m "$RUN"
"$PYTHON" -m $MODULE --run "$RUN" > "$OUT/second.txt" 2>&1
test ! -e "$RUN/error.json"
cp -r "$RUN/adapter" "$RUN/metrics.jsonl" "$RUN/result.json" "$OUT/"
"""


def start(module: str, run: Path) -> subprocess.Popen[bytes]:
    """The trainer of `module` on `run`; what it says is in log.txt."""
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, "--run", str(run)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
        )


def start_two(module: str, run: Path) -> subprocess.Popen[bytes]:
    """The same by two processes, as the platform would launch it with that configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_CONFIG", str(TWO_PROCESSES))
        arguments = launch.command(module, run)
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            arguments, cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )


def train_with_little_memory(module: str, run: Path, *, room: int) -> subprocess.CompletedProcess:
    code = WITH_LITTLE_MEMORY.format(module=module, run=str(run), room=room)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )


def train_on_a_small_disk(module: str, inputs: Path, out: Path, *, size: str) -> None:
    """Start the run in `inputs` on a disk of `size`, then again on a larger one.

    `out` holds error.json and checkpoints.txt of the first attempt, and the second one's results.
    """
    try:
        subprocess.run(["unshare", "-Urm", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a disk in a namespace")
    place = out / "disk"
    place.mkdir(parents=True)
    places = {"RUN": str(place), "INPUTS": str(inputs), "OUT": str(out), "SIZE": size}
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", ON_A_SMALL_DISK],
        cwd=ROOT,
        env={**ENVIRONMENT, **places, "PYTHON": sys.executable, "MODULE": module},
        capture_output=True,
        text=True,
    )
    said = "".join(path.read_text() for path in sorted(out.glob("*.txt")))
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}\n{said}"
