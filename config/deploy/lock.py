"""`make lock`: write what the images install, each package with its version and its files' hashes.

    requirements-web.lock      the dependencies in pyproject.toml and the extra "sentry"
    requirements-models.lock   those and the extras "models" and "quantisation"

Both lists are whole, so that images install them with --no-deps. Two things are left out of them:
transformers from the web's, since crowd-kit asks for it and uses none of it; and torch with what
comes with its CUDA build, since a CPU's wheels and those of each CUDA version differ. The image for
GPUs installs torch first, in the version that stands in TORCH here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TORCH = "2.13.0"
LOCKS = {
    "requirements-web.lock": (["--extra", "sentry"], re.compile(r"transformers==")),
    "requirements-models.lock": (
        ["--extra", "models", "--extra", "quantisation", "--extra", "sentry"],
        re.compile(r"(torch|triton|nvidia-(?!ml-py)[a-z0-9-]+|cuda-[a-z0-9-]+)=="),
    ),
}
FLAGS = [
    "--quiet",
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
]


def without(text: str, left_out: re.Pattern[str]) -> str:
    """The lock less the entries that are left out; an entry is a line and the indented ones below.

    >>> print(without("a==1 \\\\\\n    --hash=x\\nb==2 \\\\\\n    --hash=y\\n", re.compile("a==")))
    b==2 \\
        --hash=y
    <BLANKLINE>
    """
    kept, keeps = [], True
    for line in text.splitlines(keepends=True):
        if not line[0].isspace():
            keeps = left_out.match(line) is None
        if keeps:
            kept.append(line)
    return "".join(kept)


def write(name: str, extras: list[str], left_out: re.Pattern[str], *, upgrade: bool) -> None:
    path = HERE / name
    command = [sys.executable, "-m", "piptools", "compile", *FLAGS, *extras]
    command += ["--upgrade"] if upgrade else []
    # Packages of this machine must not decide: a CPU's torch would be found here first.
    alone = {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    subprocess.run(
        [*command, "-o", str(path), "pyproject.toml"],
        cwd=ROOT,
        env=os.environ | alone,
        check=True,
    )
    head = "# Written by `make lock`; why some packages are missing stands in lock.py.\n"
    path.write_text(head + without(path.read_text().removeprefix(head), left_out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="Take the newest versions.")
    chosen = parser.parse_args()
    for name, (extras, left_out) in LOCKS.items():
        write(name, extras, left_out, upgrade=chosen.upgrade)
        print(f"{name} is written.")
