"""The pool's health check: no trip to the server, and no dead connection handed out."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from config.database import Connection

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def whole_again(transactional_db: None) -> Iterator[None]:
    """Leave no broken connection to the tests that follow."""
    yield
    connections["default"].close()


@pytest.fixture
def link() -> Any:
    connection.ensure_connection()
    named = connection.get_connection_params()
    with Connection.connect(**named, autocommit=True) as link:
        yield link


def test_an_open_connection_is_not_asked_again(link: Connection) -> None:
    link.execute("")
    asked_at = link.asked_at
    assert asked_at > 0
    link.execute("")
    assert link.asked_at == asked_at


def test_after_a_while_the_server_is_asked(link: Connection) -> None:
    link.execute("")
    link.asked_at = stale = link.asked_at - 60
    link.execute("")
    assert link.asked_at > stale + 50


def test_one_that_the_server_has_ended_is_found_out(link: Connection) -> None:
    link.execute("")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [link.info.backend_pid])
    _wait_for_its_end(link)
    with pytest.raises(psycopg.OperationalError):
        link.execute("")


def test_a_request_after_the_database_ended_all_connections_succeeds() -> None:
    connection.ensure_connection()
    pool = connection.pool  # type: ignore[attr-defined]
    connections["default"].close()
    busy = [pool.getconn() for _ in range(pool.max_size)]  # as many as there may be, just used
    for one in busy:
        pool.putconn(one)
    with psycopg.connect(**_plain(), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for one in busy:
        _wait_for_its_end(one)
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    assert time.monotonic() - began < 5  # the pool's patience is 10


def _wait_for_its_end(link: Connection) -> None:
    """The server's last word takes a moment to arrive."""
    with select.epoll() as poll:
        poll.register(link.pgconn.socket, select.EPOLLIN)
        assert poll.poll(30)


def _plain() -> dict[str, Any]:
    named = dict(connection.get_connection_params())
    return {key: named[key] for key in ("dbname", "user", "host", "port") if named.get(key)}
