"""Where the parts of a one-machine installation lie. Standard library only."""

import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote

DATABASE = "oneloop"
ROLE = "oneloop"
# A unix socket's path may be 107 bytes long; PostgreSQL appends ".s.PGSQL.5432.lock" to it.
LONGEST_DIRECTORY = 85


def secret_key(data_dir: Path) -> str:
    """Read this machine's own key; the first process to ask makes it."""
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f".secret_key.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        try:
            # A link never replaces: of two processes that start at once, one key wins.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def postgres_home(data_dir: Path) -> Path:
    return data_dir / "postgres"


def valkey_home(data_dir: Path) -> Path:
    return data_dir / "valkey"


def socket_directory(home: Path) -> Path:
    directory = home / "run"
    if len(os.fsencode(directory)) <= LONGEST_DIRECTORY:
        return directory
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"oneloop-{os.getuid()}-{digest}"


def database_url(data_dir: Path, name: str = DATABASE) -> str:
    host = quote(str(socket_directory(postgres_home(data_dir))), safe="")
    return f"postgresql://{ROLE}@{host}/{name}"


def broker_url(data_dir: Path) -> str:
    return f"redis+socket://{socket_directory(valkey_home(data_dir))}/valkey.sock"
