import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test.utils import override_settings

from config.runtime.postgres import Postgres, PostgresError
from tests import object_store

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_DATA = Path(os.environ.get("ONELOOP_TEST_DATA", REPOSITORY / ".data" / "test"))
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# live_server and Playwright's synchronous API share a thread with a running event loop.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
# The tests' threads share few cores with their neighbours.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The run's own number is part of its databases' names, so that several runs can share one server.
# Workers of pytest-xdist inherit it.
RUN = os.environ.setdefault("ONELOOP_TEST_RUN", str(os.getpid()))
# Of a broker that is named each process has its own number, or vhost, for all that it does. Celery
# asks the environment before its settings.
if not settings.BROKER_IS_EMBEDDED:
    NUMBER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    settings.CELERY_BROKER_URL = f"{settings.CELERY_BROKER_URL.rpartition('/')[0]}/{NUMBER}"
    os.environ["CELERY_BROKER_URL"] = settings.CELERY_BROKER_URL


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    if object_store.is_named():
        left_out += [item for item in items if item.get_closest_marker("folder")]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        left_out += [] if torch.cuda.is_available() else on_gpu
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


# Database ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Point Django at a PostgreSQL for tests, started here unless DATABASE_URL names one."""
    database = settings.DATABASES["default"]
    if settings.DATABASE_IS_EMBEDDED:
        server = _throwaway_postgres()
        database["HOST"] = _host(server)
    name = f"test_oneloop_{RUN}"
    suffix = os.environ.get("PYTEST_XDIST_WORKER")
    database["TEST"]["NAME"] = f"{name}_{suffix}" if suffix else name
    if settings.DATABASE_IS_EMBEDDED and suffix in (None, "gw0"):
        _drop_databases_of_dead_runs(server)


def _throwaway_postgres() -> Postgres:
    server = Postgres(TEST_DATA, durable=False)
    try:
        server.acquire()
    except PostgresError:
        # Without fsync a power cut leaves ruins, and nothing in here is worth keeping.
        server.release()
        shutil.rmtree(server.home.resolve())
        server = Postgres(TEST_DATA, durable=False)
        server.acquire()
    return server


def _host(server: Postgres) -> str:
    import dj_database_url

    return str(dj_database_url.parse(server.url())["HOST"])


def _drop_databases_of_dead_runs(server: Postgres) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'test\\_oneloop\\_%'"
        for (name,) in connection.execute(query).fetchall():
            run = name.removeprefix("test_oneloop_").partition("_")[0]
            if not (run.isdecimal() and Path(f"/proc/{run}").exists()):
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )


# Files and settings -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Give each test its own data directory: no test sees or leaves a file of the user's."""
    directory = tmp_path / "data"
    with override_settings(
        DATA_DIR=directory,
        MEDIA_ROOT=str(directory / "media"),
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ):
        if not object_store.is_named():
            yield directory
            return
        with object_store.media(os.environ["S3_ENDPOINT_URL"]):
            yield directory


@pytest.fixture(scope="session")
def object_store_url() -> Iterator[str]:
    with object_store.server() as url:
        yield url


@pytest.fixture
def bucket(object_store_url: str, data_dir: Path) -> Iterator[None]:
    """Media in an object store, as on machines that share no disk."""
    with object_store.media(object_store_url):
        object_store.make_bucket()
        yield


# Processes --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey server on a unix socket, for the whole run, or what CELERY_BROKER_URL names."""
    from config.runtime.valkey import Valkey

    if not settings.BROKER_IS_EMBEDDED:
        yield settings.CELERY_BROKER_URL
        return
    server = Valkey(tmp_path_factory.mktemp("broker"), durable=False)
    process = subprocess.Popen(server.prepare(), stdout=subprocess.DEVNULL)
    try:
        server.wait_until_ready()
        yield server.url()
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def celery_worker(
    broker_url: str, transactional_db: None, data_dir: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start real workers on the test's database: `celery_worker("default")`.

    The returned process may be killed by the test; the rest are stopped at the test's end.
    Jobs rung in the test's own process go to the same broker.
    """
    from config.celery import app

    started: list[subprocess.Popen[bytes]] = []

    def start(*queues: str, **environment: str) -> subprocess.Popen[bytes]:
        names = queues or ("default", "gpu")
        log = (tmp_path / f"worker-{len(started)}.log").open("wb")
        command = [sys.executable, "-m", "celery", "-A", "config", "worker"]
        command += ["-Q", ",".join(names), "--concurrency", "1", "--loglevel", "info"]
        command += ["-n", f"test{len(started)}@{RUN}", "--without-mingle", "--without-gossip"]
        worker = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=process_environment(data_dir, broker_url) | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(worker)
        _wait_for_line(Path(log.name), " ready.", worker)
        return worker

    broker_before = app.conf.broker_url
    app.conf.broker_url = broker_url
    forget_broker_connections(app)
    # What tests before rang for, where the broker is not this run's own.
    _empty_queues(app)
    try:
        yield start
    finally:
        _empty_queues(app)
        app.conf.broker_url = broker_before
        forget_broker_connections(app)
        for worker in started:
            stop_process_group(worker)


def _empty_queues(app: Any) -> None:
    with app.connection_for_write() as connection:
        for queue in ("default", "gpu"):
            waiting(connection, queue)
            connection.default_channel.queue_purge(queue)


def waiting(connection: Any, queue: str) -> int:
    """How many jobs wait in a queue, which is made where there is none yet."""
    channel = connection.default_channel
    return int(channel.queue_declare(queue, durable=True, auto_delete=False).message_count)


def forget_broker_connections(app: Any) -> None:
    """The pools are kept per process and address; a closed one would be handed out again."""
    from kombu import pools

    pools.reset()
    app._after_fork()


def process_environment(data_dir: Path, broker_url: str) -> dict[str, str]:
    """Environment of a subprocess that works on the running test's database, broker and files."""
    database = connections["default"].settings_dict
    user = database["USER"] + (f":{database['PASSWORD']}" if database["PASSWORD"] else "")
    host = str(database["HOST"]).replace("/", "%2F").replace(" ", "%20")
    port = f":{database['PORT']}" if database["PORT"] else ""
    return os.environ | {
        "DATABASE_URL": f"postgresql://{user}@{host}{port}/{database['NAME']}",
        "CELERY_BROKER_URL": broker_url,
        "ONELOOP_DATA": str(data_dir),
        "SECRET_KEY": settings.SECRET_KEY,
        **object_store.environment(),
    }


def address(database: str = "") -> str:
    """Of the running test's database, or of another one on its server, as psycopg takes it."""
    from psycopg.conninfo import make_conninfo

    there = connections["default"].settings_dict
    said = {"host": there["HOST"], "port": there["PORT"], "user": there["USER"]}
    said |= {"password": there["PASSWORD"], "dbname": database or there["NAME"]}
    return make_conninfo("", **{key: str(one) for key, one in said.items() if one})


def stop_process_group(process: subprocess.Popen[Any], seconds: float = 10) -> None:
    import signal

    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait_for_line(log: Path, text: str, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 180
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"{text!r} never came:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)


# Browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=CHROMIUM_FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fresh browser page of a person who is not logged in."""
    asks_a_site = bool(request.node.get_closest_marker("django_db"))
    context = browser.new_context(viewport={"width": 1366, "height": 820})
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()
    if asks_a_site:
        _wait_for_quiet()


def _wait_for_quiet(seconds: float = 5) -> None:
    """Until the page's last requests are answered: emptying tables beside them may deadlock."""
    end, quiet = time.monotonic() + seconds, 0
    while quiet < 3 and time.monotonic() < end:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND state <> 'idle'"
            )
            (busy,) = cursor.fetchone()
        quiet = 0 if busy else quiet + 1
        time.sleep(0.02)
