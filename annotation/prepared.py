"""Statements that each connection plans once.

The few large statements in an annotator's path take longer to plan than to run. A connection
prepares each when it first needs it; the pool keeps connections, and with them the plans.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.db import connection, models
from django.db.backends.utils import CursorWrapper

Row = TypeVar("Row", bound=models.Model)

_known: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # names by psycopg's connection


def execute(cursor: CursorWrapper, statement: str, values: Mapping[str, Any]) -> None:
    """As `cursor.execute`; the statement names its values `%(so)s` and may not hold other text."""
    name, prepare, call = _parts(statement)
    connection.ensure_connection()
    names = _known.setdefault(connection.connection, set())
    if name not in names:
        cursor.execute(prepare)
        names.add(name)
    cursor.execute(call, values)


def array(values: Iterable[int | str | None]) -> str:
    """Numbers, or words of our own without quotes, commas and braces, as PostgreSQL writes them.

    psycopg looks at each element to find out how it is written.
    """
    return "{" + ",".join("NULL" if one is None else str(one) for one in values) + "}"


def get(model: type[Row], condition: str, values: Mapping[str, Any]) -> Row | None:
    """The one row that meets the condition in SQL, for models without fields of JSON."""
    statement, names = _select(model, condition)
    with connection.cursor() as cursor:
        execute(cursor, statement, values)
        row = cursor.fetchone()
    return model.from_db("default", names, row) if row else None


@lru_cache(maxsize=32)
def _select(model: type[models.Model], condition: str) -> tuple[str, list[str]]:
    fields = model._meta.concrete_fields
    columns = ", ".join(f'"{field.column}"' for field in fields)
    statement = f'SELECT {columns} FROM "{model._meta.db_table}" WHERE {condition}'  # nosec B608  # a model's
    return statement, [field.attname for field in fields]


@lru_cache(maxsize=32)
def _parts(statement: str) -> tuple[str, str, str]:
    """Its name, how it is prepared, and how it is called."""
    order = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    numbered = re.sub(r"%\((\w+)\)s", lambda m: f"${order.index(m[1]) + 1}", statement)
    name = f"oneloop_{sha256(statement.encode()).hexdigest()[:16]}"
    values = ", ".join(f"%({one})s" for one in order)
    return name, f"PREPARE {name} AS {numbered}", f"EXECUTE {name} ({values})"
