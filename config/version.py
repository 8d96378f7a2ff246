"""Which OneLoop this is: the package's version and the commit it was built from."""

import subprocess
import tomllib
from functools import cache
from importlib import metadata

from django.conf import settings

from config import env


@cache
def version() -> str:
    try:
        return metadata.version("oneloop")
    except metadata.PackageNotFoundError:  # the code was copied, not installed
        project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
        return str(project["version"])


@cache
def commit() -> str:
    """What ONELOOP_COMMIT says, else the checkout's own; "" where there is neither."""
    if built := env.text("ONELOOP_COMMIT"):
        return built[:12]
    if not (settings.BASE_DIR / ".git").exists():
        return ""
    command = ["git", "-C", str(settings.BASE_DIR), "rev-parse", "--short=9", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def release() -> str:
    return f"{version()}+{commit()}" if commit() else version()
