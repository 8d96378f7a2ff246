"""What is kept about a person, for that person to take away.

The tables are found by their keys to the user, so that a new one is in it without a word here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import Model, Q, QuerySet

from annotation.models import Flag, Judgment, Rating
from generation.models import AuditEntry, IdempotencyKey

# Secrets, and what would let somebody act in the person's name.
HIDDEN = {"password", "digest", "secret", "session_key", "salt"}
# The second factor's secret lies in `data`; answers kept for repeated requests say nothing new.
HIDDEN_OF = {"mfa.Authenticator": {"data"}, "usersessions.UserSession": {"data"}}
LEFT_OUT: set[type[Model]] = {IdempotencyKey, LogEntry}  # Django's own log says what ours says
# Rows that are the person's by way of their turns.
BY_TURNS: list[tuple[type[Model], str]] = [
    (Judgment, "assignment__annotator"),
    (Rating, "assignment__annotator"),
    (Flag, "assignment__annotator"),
]
ACCOUNT = ("username", "first_name", "last_name", "email", "date_joined", "last_login", "is_active")


def of(user: User) -> dict[str, Any]:
    """JSON's own kinds, and times; the biggest parts are read as they are needed."""
    account = {name: getattr(user, name) for name in (*ACCOUNT, "is_staff", "is_superuser")}
    return {"account": account} | {name: list(rows) for name, rows in _tables(user)}


def counts(user: User) -> dict[str, int]:
    """How many rows of each table are about the person, without those that have none."""
    found = {name: rows.count() for name, rows in _tables(user)}
    return {name: count for name, count in found.items() if count}


def _tables(user: User) -> Iterator[tuple[str, QuerySet[Any, dict[str, Any]]]]:
    asked: dict[type[Model], Q] = {}
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.concrete_fields:
            if field.related_model is User and model not in LEFT_OUT:
                asked[model] = asked.get(model, Q()) | Q(**{field.name: user})
    # What others did to the account, such as giving it a role.
    asked[AuditEntry] |= Q(kind=User._meta.verbose_name, object_id=str(user.pk))
    for model, path in BY_TURNS:
        asked[model] = asked.get(model, Q()) | Q(**{path: user})
    for model, chosen in asked.items():
        hidden = HIDDEN | HIDDEN_OF.get(model._meta.label, set())
        names = [field.attname for field in model._meta.concrete_fields]
        rows = model._default_manager.filter(chosen).order_by("pk")
        yield (
            str(model._meta.verbose_name_plural),
            rows.values(*[n for n in names if n not in hidden]),
        )
