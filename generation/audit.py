"""The log of administrative acts: who did what to what, when, from where, before and after."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.db.models import Model, Q, QuerySet
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from generation.access import projects_of
from generation.models import AuditEntry, Project, Role, Verb

Values = Mapping[str, Any]

# The request that is being answered: verbs deep in the code need not be handed it.
_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)


def record(
    *,
    actor: User | AnonymousUser | None,
    verb: str,
    thing: Model | None,
    project: Project | None = None,
    before: Values | None = None,
    after: Values | None = None,
    request: HttpRequest | None = None,
) -> AuditEntry:
    """Write down one act; it stands or falls with the caller's transaction.

    Without an actor it was the program itself, e.g. a round that opens its campaign. The project
    is the thing's own where none is given.
    """
    person = actor if isinstance(actor, User) else None
    changes = {"before": before, "after": after}
    return AuditEntry.objects.create(
        actor=person,
        actor_name=person.get_username() if person else "",
        verb=verb,
        kind=str(thing._meta.verbose_name) if thing is not None else "",
        object_id=str(thing.pk) if thing is not None else "",
        name=str(thing)[:200] if thing is not None else "",
        project_id=project.pk if project else _project_of(thing),
        detail={key: _plain(values) for key, values in changes.items() if values is not None},
        address=address_of(request or _request.get()),
    )


def _project_of(thing: Model | None) -> int | None:
    return thing.pk if isinstance(thing, Project) else getattr(thing, "project_id", None)


def _plain(values: Values) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in values.items()}


def _plain_value(value: Any) -> Any:
    """What JSON can hold: rows by their names, anything odd as its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain_value(inner) for key, inner in value.items()}
    if isinstance(value, QuerySet | list | tuple | set | frozenset):
        return [_plain_value(inner) for inner in value]
    try:
        return DjangoJSONEncoder().default(value)
    except TypeError:
        return str(value)


def address_of(request: HttpRequest | None) -> str | None:
    """Where the request came from; behind a proxy, what the proxy itself saw."""
    if request is None:
        return None
    found = str(request.META.get("REMOTE_ADDR", ""))
    if settings.BEHIND_PROXY:
        # The last entry was written by the proxy; those before it by whoever asked.
        found = str(request.META.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2] or found
    try:
        return str(ipaddress.ip_address(found.strip()))
    except ValueError:
        return None


def remember_request(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return get_response(request)
        finally:
            _request.reset(token)

    return middleware


@contextmanager
def erasing() -> Iterator[None]:
    """Whoever is forgotten leaves the log, too: names, details and addresses may change in here."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('oneloop.erasing', 'yes', true)")
        yield
        cursor.execute("SELECT set_config('oneloop.erasing', '', true)")


def visible_to(user: User) -> QuerySet[AuditEntry]:
    """Superusers see everything; an admin of a project what was done in it."""
    if user.is_superuser:
        return AuditEntry.objects.all()
    return AuditEntry.objects.filter(project__in=projects_of(user, Role.ADMIN))


# Logins -----------------------------------------------------------------------------------------


@receiver(user_logged_in)
def _logged_in(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    record(actor=user, verb=Verb.LOGIN, thing=user, request=request)


@receiver(user_logged_out)
def _logged_out(sender: Any, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        record(actor=user, verb=Verb.LOGOUT, thing=user, request=request)


@receiver(user_login_failed)
def _login_failed(sender: Any, credentials: Values, request: Any = None, **kwargs: Any) -> None:
    # A name that nobody has is not written down: it may be a password in the wrong field.
    name = str(credentials.get("username") or "")
    found = User.objects.filter(Q(username=name)).first() if name else None
    record(actor=None, verb=Verb.LOGIN_FAILED, thing=found, request=request)
