"""What is installed, and how it is set up."""

from __future__ import annotations

import platform
import stat
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from django.conf import settings
from django.core.checks import WARNING, CheckMessage, run_checks
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from packaging.requirements import Requirement
from packaging.version import Version

from config import env, safety
from config.doctor import Finding, State, broken, examines, ok
from config.version import commit, version

# Where container engines mount secrets, readable for whoever is in the container.
MOUNTED = ("/run/secrets/", "/var/run/secrets/")


@examines(name=_("Version"))
def oneloop() -> Finding:
    said = _("OneLoop {version}, commit {commit}.") if commit() else _("OneLoop {version}.")
    return ok(format_lazy(said, version=version(), commit=commit()))


@examines(name=_("Python and packages"))
def packages() -> Finding:
    wrong = list(_unmet())
    python = platform.python_version()
    if wrong:
        return broken(
            format_lazy(
                _("Python {python}; not as required: {wrong}."),
                python=python,
                wrong="; ".join(wrong),
            ),
            _("Install what pyproject.toml asks for: pip install -e ."),
        )
    said = _(
        "Python {python}, Django {django}, Celery {celery}, psycopg {psycopg}; all as required."
    )
    found = {name: metadata.version(name) for name in ("django", "celery", "psycopg")}
    return ok(format_lazy(said, python=python, **found))


def _unmet() -> Iterator[str]:
    try:
        required = metadata.requires("oneloop") or []
    except metadata.PackageNotFoundError:  # the code was copied, and its packages were locked
        return
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} is missing"
            continue
        if not requirement.specifier.contains(Version(found), prereleases=True):
            yield f"{requirement.name} {found}, not {requirement.specifier}"


@examines(name=_("Embedded parts"))
def embedded_parts() -> Finding:
    parts = {
        _("database"): settings.DATABASE_IS_EMBEDDED,
        _("broker"): settings.BROKER_IS_EMBEDDED,
    }
    names = [name for name, is_embedded in parts.items() if is_embedded]
    if not names:
        return ok(_("Database and broker run by themselves."))
    found = format_lazy(", ".join(["{}"] * len(names)), *names)
    if not _is_production():
        return ok(format_lazy(_("Started by manage.py up on this machine: {parts}."), parts=found))
    return broken(
        format_lazy(_("In production, and still embedded: {parts}."), parts=found),
        _("Set DATABASE_URL and CELERY_BROKER_URL to servers of their own."),
    )


@examines(name=_("Secrets"))
def secrets() -> Finding:
    kept = [settings.DATA_DIR / "secret_key", settings.BASE_DIR / ".env", *sorted(env.secret_files)]
    open_to_others = [str(path) for path in kept if _others_read(path)]
    if open_to_others:
        files = ", ".join(open_to_others)
        return broken(
            format_lazy(_("Readable by every user of this machine: {files}."), files=files),
            format_lazy(
                _("Take that right away: chmod o-rwx {files}"), files=" ".join(open_to_others)
            ),
        )
    return ok(_("No file with a secret is readable by others."))


def _others_read(path: Path) -> bool:
    if str(path).startswith(MOUNTED):
        return False
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


@examines(name=_("Settings"), is_slow=True, seconds=30)
def deployment() -> list[Finding]:
    """What `check --deploy` says; only a deployment has to heed it."""
    found = [one for one in run_checks(include_deployment_checks=True) if not one.is_silenced()]
    found = [one for one in found if one.level >= WARNING]
    if not found:
        return [ok(_("`check --deploy` finds nothing."))]
    if not _is_production():
        heeded = [one for one in found if one.is_serious()]
        names = ", ".join(str(one.id) for one in found if not one.is_serious())
        said = _(
            "Not a deployment (ONELOOP_ENV is not “production”). One would have to heed: {names}."
        )
        return [*map(_of_check, heeded), *([ok(format_lazy(said, names=names))] if names else [])]
    return [_of_check(one) for one in found]


@examines(name=_("Settings"), needs="database", is_slow=True)
def safe_database() -> list[Finding]:
    """What only the database can tell, e.g. that the starter's logins are still open."""
    found = safety.database_is_safe(databases=["default"])
    return [_of_check(one) for one in found if not one.is_silenced()]


def _of_check(message: CheckMessage) -> Finding:
    state = State.BROKEN if message.is_serious() else State.WARNING
    remedy = message.hint or _("Look it up in Django’s list of system checks.")
    return Finding(
        format_lazy("{name} {id}", name=_("Settings"), id=message.id or ""),
        state,
        message.msg,
        remedy,
    )


def _is_production() -> bool:
    return bool(settings.PRODUCTION)
