import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import env
from config.runtime import paths

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def settings_of(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    names = {"DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_ROOT", "SECRET_KEY", "DEBUG"}
    clean = {key: value for key, value in os.environ.items() if key not in names}
    return subprocess.run(
        [sys.executable, "-c", f"from config import settings as s; {program}"],
        cwd=REPOSITORY,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_replaces_the_embedded_parts_one_by_one(tmp_path: Path) -> None:
    program = "print(s.DATABASES['default']['HOST'], s.CELERY_BROKER_URL, s.MEDIA_ROOT, s.DEBUG)"
    embedded = settings_of(program, ONELOOP_DATA=str(tmp_path)).stdout.split()
    assert embedded == [
        f"{tmp_path}/postgres/run",
        f"redis+socket://{tmp_path}/valkey/run/valkey.sock",
        f"{tmp_path}/media",
        "False",
    ]
    own = settings_of(
        program,
        ONELOOP_DATA=str(tmp_path),
        DATABASE_URL="postgresql://me@db.example/one",
        CELERY_BROKER_URL="redis://broker.example/0",
        MEDIA_ROOT="/pictures",
    ).stdout.split()
    assert own == ["db.example", "redis://broker.example/0", "/pictures", "False"]


def test_it_stops_at_a_value_it_cannot_read(tmp_path: Path) -> None:
    result = settings_of("pass", ONELOOP_DATA=str(tmp_path), DEBUG="perhaps")
    assert result.returncode != 0
    assert "DEBUG='perhaps' is not a switch" in result.stderr
    result = settings_of("pass", ONELOOP_DATA=str(tmp_path), ONELOOP_ENV="prod")
    assert "ONELOOP_ENV='prod' is unknown. Write development or production." in result.stderr


def test_it_reads_secrets_from_files(tmp_path: Path) -> None:
    kept = {
        "SECRET_KEY": "the key",
        "DATABASE_URL": "postgresql://me:it@db.example/one",
        "CELERY_BROKER_URL": "redis://:it@broker.example/0",
    }
    files = {}
    for name, value in kept.items():
        (tmp_path / name).write_text(f"{value}\n")
        files[f"{name}_FILE"] = str(tmp_path / name)
    program = "print(s.SECRET_KEY, s.DATABASES['default']['PASSWORD'], s.CELERY_BROKER_URL)"
    found = settings_of(program, ONELOOP_DATA=str(tmp_path), **files).stdout.strip()
    assert found == "the key it redis://:it@broker.example/0"


def test_it_makes_one_secret_key_and_keeps_it_private(tmp_path: Path) -> None:
    first = paths.secret_key(tmp_path / "data")
    assert len(first) > 50
    assert paths.secret_key(tmp_path / "data") == first
    assert (tmp_path / "data" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_it_finds_a_short_place_for_sockets_under_a_long_path(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    directory = paths.socket_directory(home)
    assert len(str(directory)) < paths.LONGEST_DIRECTORY
    assert directory == paths.socket_directory(home)
    assert directory != paths.socket_directory(tmp_path / ("long" * 31))


@pytest.mark.parametrize(
    ("value", "message"), [("x", "not a whole number"), ("1.5", "not a whole number")]
)
def test_it_names_a_number_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("DATABASE_POOL_SIZE", value)
    with pytest.raises(ImproperlyConfigured, match=f"DATABASE_POOL_SIZE='{value}' is {message}"):
        env.integer("DATABASE_POOL_SIZE", 10)


def test_it_asks_for_an_object_in_media_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_OPTIONS", "[1]")
    with pytest.raises(ImproperlyConfigured, match="MEDIA_OPTIONS must be a JSON object"):
        env.mapping("MEDIA_OPTIONS")
