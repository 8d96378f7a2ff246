"""`make audit`: known holes of what is locked, suspicious code, and unsafe production settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCKS = ["requirements-web.lock", "requirements-models.lock"]
# A deployment as compose.yaml starts it, of which only the settings are looked at.
PRODUCTION = {
    "ONELOOP_ENV": "production",
    "ALLOWED_HOSTS": "loop.example.org",
    "BEHIND_TLS_PROXY": "1",
    "SECRET_KEY": "".join(f"{ord(letter):02x}" for letter in "of an audit, and nowhere else used"),
    "DATABASE_URL": "postgresql://oneloop@127.0.0.1:1/oneloop",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
}


def known_holes(lock: str) -> tuple[bool, str]:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-f", "json"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", "-r", str(HERE / lock)],
        capture_output=True,
        text=True,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return False, f"pip-audit could not ask its database: {_last(done.stderr)}"
    return judged(packages)


def judged(packages: list[dict[str, object]]) -> tuple[bool, str]:
    """Whether nothing is known against these packages, and a sentence.

    >>> judged([{"name": "a", "version": "1", "vulns": []}])
    (True, '1 packages, no known hole.')
    >>> judged([{"name": "a", "skip_reason": "not found"}])[1]
    'None of 1 packages could be looked up: the database of known holes is not reached from here.'
    """
    asked = [one for one in packages if "skip_reason" not in one]
    if packages and not asked:
        return True, (
            f"None of {len(packages)} packages could be looked up: the database of known holes is "
            "not reached from here."
        )
    holes = [f"{one['name']} {one['version']}: {one['vulns']}" for one in asked if one["vulns"]]
    if holes:
        return False, "\n".join(holes)
    left = len(packages) - len(asked)
    return True, f"{len(asked)} packages, no known hole." + (f" {left} not found." if left else "")


def suspicious_code() -> tuple[bool, str]:
    command = [sys.executable, "-m", "bandit", "-q", "-ll", "-c", "pyproject.toml", "-r"]
    folders = ["config", "generation", "annotation", "modeling", "manage.py"]
    done = subprocess.run([*command, *folders], cwd=ROOT, capture_output=True, text=True)
    return done.returncode == 0, done.stdout.strip() or "Nothing of medium or high severity."


def unsafe_settings() -> tuple[bool, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=os.environ | PRODUCTION,
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, done.stdout.strip() if not done.returncode else done.stderr.strip()


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."


def main() -> int:
    found = [(f"pip-audit {lock}", *known_holes(lock)) for lock in LOCKS]
    found.append(("bandit", *suspicious_code()))
    found.append(("check --deploy", *unsafe_settings()))
    for name, is_clean, said in found:
        print(f"{name}: {'ok' if is_clean else 'FOUND'}\n  {said}")
    return 0 if all(is_clean for _name, is_clean, _said in found) else 1


if __name__ == "__main__":
    sys.exit(main())
