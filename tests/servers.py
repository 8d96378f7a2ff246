"""The suite against servers of the system's own: `python -m tests.servers redis [pytest's words]`.

    redis       PostgreSQL and Redis
    rabbitmq    PostgreSQL, RabbitMQ and an S3 server (moto's), where all media are kept

Each server gets ports and a folder of its own and ends with this program; what the machine runs
otherwise is left alone. `apt-get install postgresql redis-server rabbitmq-server` brings them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

START_SECONDS = 120
# One vhost of RabbitMQ, and one number of Redis, for each of the suite's processes.
PROCESSES = 4
REPOSITORY = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """One readable sentence: which server is not installed."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def program(name: str, *places: str) -> str:
    for pattern in places:
        for place in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            return str(place)
    found = shutil.which(name)
    if found is None:
        raise Missing(
            f"There is no {name} here: apt-get install postgresql redis-server rabbitmq-server"
        )
    return found


@contextmanager
def running(
    command: list[str], log: Path, answers: Callable[[], bool], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            # SIGINT ends PostgreSQL without waiting for its clients.
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def listens(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return answers


# The servers ------------------------------------------------------------------------------------


@contextmanager
def postgres(home: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL as its own user, since it refuses to run as root; durable, as in production."""
    bin = Path(program("postgres", "/usr/lib/postgresql/*/bin/postgres")).parent
    cluster, port = home / "postgres", free_port()
    cluster.mkdir()
    as_user: list[str] = []
    if os.getuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        os.chown(cluster, pwd.getpwnam("postgres").pw_uid, pwd.getpwnam("postgres").pw_gid)
    subprocess.run(
        [*as_user, str(bin / "initdb"), "-D", str(cluster), "-U", "oneloop", "-A", "trust"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = [*as_user, str(bin / "postgres"), "-D", str(cluster), "-p", str(port)]
    command += ["-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", "max_connections=200"]
    ready = [str(bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    with running(command, home / "postgres.log", lambda: subprocess.run(ready).returncode == 0):
        yield {"DATABASE_URL": f"postgresql://oneloop@127.0.0.1:{port}/postgres"}


@contextmanager
def redis(home: Path) -> Iterator[dict[str, str]]:
    folder, port = home / "redis", free_port()
    folder.mkdir()
    command = [program("redis-server"), "--port", str(port), "--dir", str(folder)]
    command += ["--bind", "127.0.0.1", "--appendonly", "yes"]
    with running(command, home / "redis.log", listens(port)):
        yield {"CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0"}


@contextmanager
def rabbitmq(home: Path) -> Iterator[dict[str, str]]:
    folder, port, epmd = home / "rabbitmq", free_port(), str(free_port())
    folder.mkdir()
    (folder / "plugins").write_text("[].\n")
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": epmd,
        "RABBITMQ_NODENAME": f"oneloop{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
    }
    # The programs in /usr/sbin change to the system's own node and user.
    server = program("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
    control = program("rabbitmqctl", "/usr/lib/rabbitmq/bin/rabbitmqctl")
    try:
        with running([server], home / "rabbitmq.log", listens(port), **environment):
            for number in range(PROCESSES):
                _control(control, environment, "add_vhost", str(number))
                _control(
                    control,
                    environment,
                    "set_permissions",
                    "-p",
                    str(number),
                    "guest",
                    ".*",
                    ".*",
                    ".*",
                )
            yield {"CELERY_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{port}/0"}
    finally:
        subprocess.run(
            [program("epmd"), "-kill"], env=os.environ | environment, capture_output=True
        )


def _control(control: str, environment: Mapping[str, str], *words: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        done = subprocess.run(
            [control, *words], env=os.environ | environment, capture_output=True, text=True
        )
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            raise RuntimeError(done.stderr or done.stdout)
        time.sleep(1)


@contextmanager
def s3(home: Path) -> Iterator[dict[str, str]]:
    import boto3

    port = free_port()
    named = {
        "S3_BUCKET": "oneloop",
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "S3_REGION": "us-east-1",
        "S3_ACCESS_KEY_ID": "key",
        "S3_SECRET_ACCESS_KEY": "secret",
        "S3_ADDRESSING_STYLE": "path",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, home / "s3.log", listens(port)):
        client = boto3.client(
            "s3",
            endpoint_url=named["S3_ENDPOINT_URL"],
            region_name=named["S3_REGION"],
            aws_access_key_id=named["S3_ACCESS_KEY_ID"],
            aws_secret_access_key=named["S3_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=named["S3_BUCKET"])
        yield named


TOGETHER = {"redis": [postgres, redis], "rabbitmq": [postgres, rabbitmq, s3]}


@contextmanager
def together(name: str) -> Iterator[dict[str, str]]:
    """The environment of a program that works on these servers."""
    home = Path(tempfile.mkdtemp(prefix="oneloop-servers-"))
    home.chmod(0o755)
    try:
        with ExitStack() as stack:
            found: dict[str, str] = {}
            for start in TOGETHER[name]:
                found |= stack.enter_context(start(home))
            yield found
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main(words: list[str]) -> int:
    if not words or words[0] not in TOGETHER:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with together(words[0]) as environment:
            command = [sys.executable, "-m", "pytest", *words[1:]]
            return subprocess.run(command, cwd=REPOSITORY, env=os.environ | environment).returncode
    except Missing as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
