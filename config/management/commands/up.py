import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from config.runtime.postgres import Postgres, PostgresError, tail
from config.runtime.supervisor import Child, Supervisor
from config.runtime.valkey import Valkey, ValkeyError

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
READY_SECONDS = 180
# A web process that holds more than this is replaced; about 150 are usual.
WEB_MEMORY_MB = "600"
POSTGRES_LOOK_SECONDS = 1.0
# A worker first finishes its short job; a long one is given up, and its row lets the next start
# go on from the last checkpoint.
WORKER_STOP = ((signal.SIGTERM, 4.0), (signal.SIGQUIT, 4.0))


class Command(BaseCommand):
    help = (
        "Run OneLoop on this machine: PostgreSQL, broker, web, workers and beat. "
        "Ctrl-C stops all of it; the data stay. The first start loads the starter project."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
        parser.add_argument(
            "--port", type=int, default=int(os.environ.get("PORT") or 8000), help="Default 8000."
        )
        parser.add_argument("--web-workers", type=int, default=2, help="Web processes (default 2).")
        parser.add_argument(
            "--no-starter", action="store_true", help="Do not load the starter project."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/"
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        with _only_one(settings.DATA_DIR / "up.lock", url):
            _require_free_port(host, port)
            self.stopping = False
            self.supervisor = Supervisor(say=self.say)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self._stop_soon)
            self.postgres = Postgres(settings.DATA_DIR) if settings.DATABASE_IS_EMBEDDED else None
            try:
                self._run(host, port, url, options)
            except (PostgresError, ValkeyError) as error:
                raise CommandError(str(error)) from None
            finally:
                self._stop()

    def say(self, text: str) -> None:
        self.stdout.write(f"{time.strftime('%H:%M:%S')} {text}")
        self.stdout.flush()

    def _stop_soon(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _run(self, host: str, port: int, url: str, options: dict[str, Any]) -> None:
        began = time.monotonic()
        logs = settings.DATA_DIR / "logs"
        logs.mkdir(exist_ok=True)
        self._start_postgres()
        self._start_broker(logs)
        call_command("migrate", verbosity=0, interactive=False)
        is_first_start = _has_no_campaign()
        # No thread of the pool may be alive when children are forked.
        _close_pool()
        for child in _application(host, port, options["web_workers"], logs):
            if not self.stopping:
                self.supervisor.start(child)
        if is_first_start and not options["no_starter"]:
            self._load_starter()
        self._wait_for_site(host, port, logs)
        if not self.stopping:
            self.say(f"Ready after {time.monotonic() - began:.0f} s. Logs: {logs}")
            logins = _demo_logins()
            lines = [f"OneLoop runs at {url}", *logins, "Ctrl-C stops it; your data stay."]
            if logins and host not in LOCAL_HOSTS:
                lines.append(
                    "Others can reach it: give the demo logins other passwords (Admin, Users)."
                )
            self.stdout.write("\n" + "".join(f"    {line}\n" for line in lines))
            self.stdout.flush()
        self._watch()

    def _start_postgres(self) -> None:
        if self.postgres is None:
            self.say("Using the database that DATABASE_URL names.")
            return
        self.postgres.acquire()

    def _start_broker(self, logs: Path) -> None:
        if not settings.BROKER_IS_EMBEDDED:
            self.say("Using the broker that CELERY_BROKER_URL names.")
            return
        valkey = Valkey(settings.DATA_DIR)
        broker = Child("broker", valkey.prepare(), _fresh(logs / "broker.log"), stage=0)
        self.supervisor.start(broker)
        valkey.wait_until_ready()

    def _load_starter(self) -> None:
        self.say("First start: loading the starter project …")
        command = [sys.executable, sys.argv[0], "load_starter", "--queue"]
        loading = subprocess.Popen(command, start_new_session=True)
        while loading.poll() is None:
            self.supervisor.look_after()
            if self.stopping:
                # Half of it does no harm: the next start adds what is missing.
                loading.terminate()
                loading.wait()
                return
            time.sleep(0.1)
        if loading.returncode != 0:
            self.say("The starter project was not loaded. Try again with: manage.py load_starter")

    def _wait_for_site(self, host: str, port: int, logs: Path) -> None:
        end = time.monotonic() + READY_SECONDS
        while not self.stopping and not _answers(host, port):
            self.supervisor.look_after()
            if time.monotonic() > end:
                raise CommandError(
                    f"The site does not answer. Its log ends with:\n{tail(logs / 'web.log', 20)}"
                )
            time.sleep(0.1)

    def _watch(self) -> None:
        look_at = time.monotonic()
        while not self.stopping:
            self.supervisor.look_after()
            if self.postgres is not None and time.monotonic() >= look_at:
                if self.postgres.pid() is None and self.postgres.restart_if_dead():
                    self.say(f"PostgreSQL had ended and runs again. Its log: {self.postgres.log}")
                look_at = time.monotonic() + POSTGRES_LOOK_SECONDS
            time.sleep(0.1)

    def _stop(self) -> None:
        if self.supervisor.children:
            self.say("Stopping …")
        self.supervisor.stop()
        if self.postgres is not None and not self.postgres.release_and_wait():
            self.say("PostgreSQL runs on for another command and stops with it.")
        self.say("Stopped.")


def _application(host: str, port: int, web_workers: int, logs: Path) -> list[Child]:
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "-A", "config"]
    worker = [*celery, "worker", "--loglevel", "info", "--without-gossip", "--without-mingle"]
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ONELOOP_DATA": str(settings.DATA_DIR),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(settings.BASE_DIR),
    }
    if host not in LOCAL_HOSTS:
        names = [*settings.ALLOWED_HOSTS, socket.gethostname(), socket.getfqdn()]
        names += [] if host == "0.0.0.0" else [host]
        environment["ALLOWED_HOSTS"] = ",".join(dict.fromkeys(names))
    granian = [*python, "granian", "--interface", "wsgi", "--no-ws"]
    granian += ["--host", host, "--port", str(port), "--workers", str(web_workers)]
    granian += ["--blocking-threads", str(settings.WEB_THREADS), "--respawn-failed-workers"]
    granian += ["--workers-max-rss", WEB_MEMORY_MB, "config.wsgi:application"]
    return [
        Child("web", granian, _fresh(logs / "web.log"), environment | {"MALLOC_ARENA_MAX": "2"}),
        Child(
            "default worker",
            [*worker, "-Q", "default", "-n", "default@%h", "--concurrency", "2"],
            _fresh(logs / "worker-default.log"),
            environment,
            WORKER_STOP,
        ),
        Child(
            "gpu worker",
            [*worker, "-Q", "gpu", "-n", "gpu@%h", "--concurrency", "1"],
            _fresh(logs / "worker-gpu.log"),
            environment | {"CELERY_WORKER_POOL_START_METHOD": "spawn"},
            WORKER_STOP,
            # Without a GPU it computes on the cores that the pages are served from.
            niceness=5,
        ),
        Child(
            "beat",
            [*celery, "beat", "--loglevel", "info", "--pidfile", ""],
            _fresh(logs / "beat.log"),
            environment,
        ),
    ]


@contextlib.contextmanager
def _only_one(lock: Path, url: str) -> Iterator[None]:
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            with contextlib.suppress(ValueError, KeyError):
                other = json.loads(file.read())
                raise CommandError(
                    f"OneLoop already runs at {other['url']} (process {other['pid']}). Stop that "
                    "one first, or give this one its own data: ONELOOP_DATA=… manage.py up --port …"
                ) from None
            raise CommandError(f"OneLoop already runs on {lock.parent}.") from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "url": url}))
        file.flush()
        yield


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError:
            raise CommandError(f"--port {port}: a port lies between 1 and 65535.") from None
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {host}:{port} ({error.strerror}). "
                f"Choose another port: manage.py up --port {port + 1}"
            ) from None


def _close_pool() -> None:
    connection.close_pool()  # type: ignore[attr-defined]


def _has_no_campaign() -> bool:
    from annotation.models import Campaign

    return not Campaign.objects.exists()


def _demo_logins() -> list[str]:
    from django.contrib.auth import get_user_model

    from modeling.starter_project import PASSWORD, PEOPLE

    people = get_user_model().objects.filter(username__in=PEOPLE, is_active=True)
    names = [user.get_username() for user in people.order_by("pk") if user.check_password(PASSWORD)]
    _close_pool()
    if not names:
        return []
    known = ", ".join(f"{name} ({PEOPLE[name].label.lower()})" for name in names)
    return [f"Log in as {known}; password {PASSWORD}"]


def _answers(host: str, port: int) -> bool:
    address = "127.0.0.1" if host == "0.0.0.0" else host
    try:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def _fresh(log: Path) -> Path:
    """Keep the previous run's log beside the new one."""
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    return log
