"""Typed reading of environment variables; a value that cannot be read stops the process at once."""

import json
import os
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


# Those that were read: whoever looks after the machine asks who else may read them.
secret_files: set[Path] = set()


def secret(name: str) -> str:
    """From the variable itself, or from the file that NAME_FILE names."""
    path = text(f"{name}_FILE")
    if not path or text(name):
        return text(name)
    secret_files.add(Path(path))
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name}_FILE={path!r} cannot be read: {error}.") from None


def flag(name: str, *, default: bool) -> bool:
    value = text(name).lower()
    if not value:
        return default
    if value not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name}={value!r} is not a switch. Write 1 or 0.")
    return value in TRUE


def choice(name: str, known: Sequence[str]) -> str:
    """One of those known, else the first."""
    value = text(name, known[0]).lower()
    if value not in known:
        raise ImproperlyConfigured(
            f"{name}={value!r} is unknown. Write {' or '.join(filter(None, known))}."
        )
    return value


def integer(name: str, default: int) -> int:
    value = text(name)
    try:
        return int(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from None


def words(name: str, default: str = "") -> list[str]:
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(word, strict=False) for word in words(name)]
    except ValueError as error:
        said = (
            f"{name}: {error}. Write addresses or networks, e.g. 10.0.0.0/8, with commas between."
        )
        raise ImproperlyConfigured(said) from None


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def mapping(name: str) -> dict[str, Any]:
    value = secret(name)
    if not value:
        return {}
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ImproperlyConfigured(f"{name} must be a JSON object, for example {{}}.")
    return parsed
