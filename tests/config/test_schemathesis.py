"""Schemathesis asks the API whatever its description allows, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from generation import tokens
from generation.api import Serving
from generation.models import Scope
from modeling.taxonomy import seed
from tests.config.test_permissions import make_site

# All checks are on. Beyond the usual statuses, valid data may be answered 422: what no JSON schema
# can say, for example that a text is no picture, or that no task has this name.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]
"""

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def address(live_server: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    seed()
    settings.API_REQUESTS_PER_MINUTE = 10**6
    monkeypatch.setattr(Serving, "rate", "1000000/min")
    return str(live_server.url)


def ask(address: str, at: Path, *arguments: str) -> None:
    """Fails with the report where something is found."""
    file = at / "schemathesis.toml"
    file.write_text(CONFIG)
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(file), "run"),
            *(f"{address}/api/v1/schema/?format=json", "--checks", "all", "--seed", "1"),
            *("--generation-database", "none", "--no-color", "--request-timeout", "60"),
            *arguments,
        ],
        cwd=at,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2000:]


def bearer() -> list[str]:
    user = make_site()["people"]["root"]
    assert user is not None
    _, secret = tokens.make(user=user, name="schemathesis", scopes=list(Scope.values))
    return ["--header", f"Authorization: Bearer {secret}"]


def test_it_finds_nothing(address: str, tmp_path: Path) -> None:
    ask(address, tmp_path, *bearer(), "--phases", "examples,fuzzing", "--max-examples", "1")


def test_it_finds_nothing_without_a_token(address: str, tmp_path: Path) -> None:
    ask(address, tmp_path, "--phases", "fuzzing", "--max-examples", "1")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_it_finds_nothing_at_length(address: str, tmp_path: Path) -> None:
    ask(address, tmp_path, *bearer(), "--max-examples", os.environ.get("EXAMPLES", "30"))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_it_finds_nothing_at_length_without_a_token(address: str, tmp_path: Path) -> None:
    ask(address, tmp_path, "--max-examples", "10")
