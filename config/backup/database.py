"""The database out and in, by PostgreSQL's own programs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from django.db import connection
from psycopg.conninfo import make_conninfo

from config.backup.errors import BackupError
from config.runtime.postgres import PostgresError, find_binaries

SYSTEM = Path("/usr/lib/postgresql")
# A fresh installation has the rows that migrations bring, and none of these.
PEOPLES = ("auth_user", "generation_image", "generation_source", "annotation_judgment")


def dump(into: Path) -> None:
    """Write what the caller's transaction sees, which has to be of one moment."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_export_snapshot()")
        (moment,) = cursor.fetchone()
    said = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={moment}"]
    _run([_program("pg_dump"), *said, f"--file={into}", f"--dbname={_address()}"])


def load(dump: Path) -> None:
    """Put the dump in the place of whatever is there: all of it, or nothing is changed."""
    connection.close()
    read = [_program("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(dump)]
    write = [_program("psql"), "--no-psqlrc", "--quiet", "--single-transaction"]
    write += ["--set=ON_ERROR_STOP=1", f"--dbname={_address()}"]
    # With a dump of public itself, pg_restore makes it anew.
    write += ["--command=DROP SCHEMA public CASCADE", "--command=CREATE SCHEMA public", "--file=-"]
    with subprocess.Popen(read, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        _run(write, stdin=reading.stdout)
        said = reading.stderr.read().decode(errors="replace") if reading.stderr else ""
    if reading.returncode != 0:
        raise BackupError(f"pg_restore could not read the dump: {said.strip()}")


def server_version() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        return int(cursor.fetchone()[0]) // 10_000


def holds() -> str:
    """What people have put in there, as a sentence's end; "" where there is nothing."""
    found = []
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        for table in PEOPLES:
            if table not in tables:
                continue
            cursor.execute(f"SELECT count(*) FROM {table}")  # nosec B608  # a model's
            if count := cursor.fetchone()[0]:
                found.append(f"{count} rows of {table}")
    return ", ".join(found)


def others() -> int:
    """Connections to this database beside this process's own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


# Programs -----------------------------------------------------------------------------------------


def _program(name: str) -> str:
    """Of the server's own version where it is to be had: an older pg_dump refuses, and what a
    newer one writes an older server may not understand."""
    wanted = server_version()
    folders = [SYSTEM / str(wanted) / "bin"]
    with contextlib.suppress(PostgresError):
        folders.append(find_binaries())
    candidates = [str(folder / name) for folder in folders if (folder / name).exists()]
    if (found := shutil.which(name)) is not None:
        candidates.append(found)
    for candidate in candidates:
        if _version(candidate) == wanted:
            return candidate
    newer = [one for one in candidates if _version(one) > wanted]
    if not newer:
        raise BackupError(
            f"There is no {name} for PostgreSQL {wanted} here. Install the package "
            f"postgresql-client-{wanted}, or point PG_BIN at the folder that holds it."
        )
    return newer[0]


def _version(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)(\.\d+|beta|rc|devel)", done.stdout)
    return int(found[1]) if found else 0


def _run(command: list[str], stdin: object = None) -> None:
    done = subprocess.run(
        command,
        stdin=stdin,  # type: ignore[call-overload]
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | _password(),
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise BackupError(f"{Path(command[0]).name} failed: {said}")


def _address() -> str:
    """Without the password, which everybody could read in the list of processes."""
    return make_conninfo("", **_parameters(but="password"))


def _password() -> dict[str, str]:
    password = _parameters().get("password", "")
    return {"PGPASSWORD": str(password)} if password else {}


def _parameters(but: str = "") -> dict[str, str | int]:
    known = ("host", "port", "user", "password", "dbname")
    found = {
        name: value
        for name, value in connection.get_connection_params().items()
        if (name in known or name.startswith("ssl")) and name != but and value
    }
    return found
