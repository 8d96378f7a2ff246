"""What one person, one page and one process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from config.celery import app
from generation.candidates import CandidateError, order_sets
from generation.models import GenerationRun
from modeling import runs
from modeling.models import TrainingRun
from tests.conftest import REPOSITORY, address
from tests.factories import make_plan, make_policy, make_source, make_user

pytestmark = pytest.mark.django_db


def test_one_person_cannot_fill_the_queue_of_generations(settings: Any) -> None:
    settings.OPEN_RUNS_PER_PERSON = 2
    user, source, policy = make_user("manager"), make_source(), make_policy()
    make_plan(source.task)
    for seed in range(2):
        order_sets(policy=policy, sources=[source], seed=seed, requested_by=user)
    with pytest.raises(CandidateError, match="2 generations of yours are waiting"):
        order_sets(policy=policy, sources=[source], seed=2, requested_by=user)
    # Others may, and rounds, which belong to nobody.
    order_sets(policy=policy, sources=[source], seed=3, requested_by=make_user("another"))
    order_sets(policy=policy, sources=[source], seed=4)
    GenerationRun.objects.filter(requested_by=user).update(state="cancelled")
    order_sets(policy=policy, sources=[source], seed=5, requested_by=user)


def test_one_person_cannot_fill_the_queue_of_trainings(settings: Any) -> None:
    settings.OPEN_RUNS_PER_PERSON = 0
    with pytest.raises(runs.RunFailed, match="0 trainings of yours are waiting"):
        runs._create(
            kind=TrainingRun.Kind.REWARD,
            config={},
            fill=lambda directory: None,
            user=make_user("manager"),
        )
    assert not list(runs.root().glob("*"))


def test_a_statement_of_the_web_ends() -> None:
    ask = (
        "from config import wsgi\n"
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        "    for name in ('statement_timeout', 'idle_in_transaction_session_timeout'):\n"
        "        cursor.execute(f'SHOW {name}'); print(cursor.fetchone()[0])\n"
    )
    named = connection.get_connection_params()
    host = str(named["host"]).replace("/", "%2F")
    port = f":{named['port']}" if named.get("port") else ""
    url = f"postgresql://{named['user']}@{host}{port}/{named['dbname']}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ask],
        cwd=REPOSITORY,
        env=os.environ | {"DATABASE_URL": url, "DATABASE_STATEMENT_SECONDS": "7"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["7s", "7s"], done.stderr


def test_what_takes_too_long_is_a_failure_that_may_pass() -> None:
    import psycopg

    with psycopg.connect(address(), options="-c statement_timeout=50ms") as other:
        with pytest.raises(psycopg.errors.QueryCanceled) as error:
            other.execute("SELECT pg_sleep(5)")
        # Pages answer it as they do a database that is away: 503, try again.
        assert issubclass(type(error.value), psycopg.OperationalError)


def test_processes_of_workers_are_replaced_in_time() -> None:
    assert app.conf.worker_max_tasks_per_child == 500
