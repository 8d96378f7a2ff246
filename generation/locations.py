"""Where weights may come from: directories in allowed places, and models of the hub on a list."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from generation.diffusion.spec import HUB_ID
from generation.shared import SCHEME


class LocationError(ValueError):
    """A place from which nothing is loaded; the message says what to do."""


def is_local(location: str) -> bool:
    try:
        path = Path(location).expanduser()
        return path.is_absolute() or location.startswith((".", "~")) or path.exists()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or nobody's home
        return location.startswith(("/", ".", "~"))


def check(location: str, subfolder: str = "") -> None:
    """Raise LocationError unless weights may be loaded from there; "" is nowhere."""
    if not location:
        return
    if "\0" in location + subfolder:
        raise LocationError(_("A location holds a null character. Remove it."))
    if not _stays(subfolder):
        raise LocationError(
            _("The folder “%(folder)s” leads out of its checkpoint. Name one inside it.")
            % {"folder": subfolder}
        )
    if location.startswith(SCHEME):
        if not _stays(location.removeprefix(SCHEME)):
            raise LocationError(
                _("“%(location)s” leads out of the store of checkpoints.") % {"location": location}
            )
    elif is_local(location):
        check_inside(Path(location) / subfolder)
    else:
        _check_listed(location)


def check_all(locations: Iterable[str]) -> None:
    for location in locations:
        check(location)


def _stays(folder: str) -> bool:
    path = PurePosixPath(folder)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in folder


def check_inside(path: Path) -> None:
    """Raise LocationError for a path that is, or leads by a link, out of the allowed places."""
    allowed = roots()
    if not allowed:
        return
    try:
        real = path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise LocationError(
            _("%(path)s cannot be looked at (%(error)s).") % {"path": path, "error": error}
        ) from None
    if not any(real.is_relative_to(root) for root in allowed):
        raise LocationError(
            _(
                "%(path)s lies outside the directories that models are loaded from here. Copy it "
                "into one of them (%(roots)s), or add its directory to MODEL_ROOTS."
            )
            % {"path": path, "roots": ", ".join(str(root) for root in allowed)}
        )


def roots() -> list[Path]:
    """The allowed places; none, and all are: a development machine's own user says which."""
    if not settings.MODEL_ROOTS and not settings.PRODUCTION:
        return []
    given: list[Any] = [settings.DATA_DIR, settings.STARTER_WEIGHTS, *settings.MODEL_ROOTS]
    return [Path(root).expanduser().resolve() for root in given]


def _check_listed(location: str) -> None:
    owner_and_name = "/".join(location.split("/")[:2])
    if not HUB_ID.match(owner_and_name) or not _stays(location):
        raise LocationError(
            _(
                "“%(location)s” is neither a directory that exists nor a hub id such as "
                "black-forest-labs/FLUX.1-Fill-dev."
            )
            % {"location": location}
        )
    if not any(fnmatchcase(owner_and_name, known) for known in settings.MODEL_ALLOWED_HUB_IDS):
        raise LocationError(
            _(
                "“%(location)s” is not among the hub's models that may be loaded here "
                "(%(known)s). Whoever runs this site adds it to MODEL_ALLOWED_HUB_IDS."
            )
            % {"location": owner_and_name, "known": ", ".join(settings.MODEL_ALLOWED_HUB_IDS)}
        )
