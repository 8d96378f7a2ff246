"""What stands in the log, what it belongs to, and what never stands there."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.test import Client

from annotation import jobs
from config import logs, requests
from generation import tokens, trail
from generation.ownership import Job
from modeling import launch
from tests.factories import make_run, make_user

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "json": logs.Json,
    "text": lambda: logs.Line("{asctime} {levelname} {name}: {message}", style="{"),
}


@pytest.fixture(params=FORMATTERS)
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the log's handler writes, as JSON and as text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[request.param]())
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines() if line.startswith("{")]


# Requests ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_request_is_written_down(client: Client, written: io.StringIO) -> None:
    user = make_user("anna")
    client.force_login(user)
    response = client.get(
        "/label/history/?search=a+secret+wish", headers={"X-Request-ID": "abc-12345"}
    )
    assert response.headers["X-Request-ID"] == "abc-12345"
    text = written.getvalue()
    assert "abc-12345" in text
    assert "GET /label/history/ 200" in text
    assert f"user={user.pk}" in text
    assert "wish" not in text
    assert "anna" not in text
    for line in lines(written):
        assert {"method": "GET", "path": "/label/history/", "status": 200}.items() <= line.items()
        assert line["user"] == user.pk
        assert line["view"] == "annotation:history"
        assert line["milliseconds"] > 0
        assert line["request_id"] == "abc-12345"


@pytest.mark.django_db
@pytest.mark.parametrize("given", ["", "short", "x" * 200, "with space in", "semi;colon-123"])
def test_a_request_that_has_no_proper_name_gets_one(client: Client, given: str) -> None:
    answers = [client.get("/healthz", headers={"X-Request-ID": given}) for _ in range(2)]
    names = {one.headers["X-Request-ID"] for one in answers}
    assert len(names) == 2
    assert given not in names


@pytest.mark.django_db
def test_an_address_cannot_forge_a_line(client: Client, written: io.StringIO) -> None:
    client.get("/nothing%0a2026 INFO root: forged/")
    assert not any(
        line.startswith("2026 INFO root: forged") for line in written.getvalue().split("\n")
    )


@pytest.mark.django_db
def test_probes_are_not_written_down(client: Client, written: io.StringIO) -> None:
    client.get("/healthz")
    assert written.getvalue() == ""


@pytest.mark.django_db
def test_an_answer_that_is_no_page_is_said_once(client: Client, written: io.StringIO) -> None:
    client.get("/nothing/")
    assert written.getvalue().count("/nothing/") == (2 if lines(written) else 1)  # message and path


@pytest.mark.django_db
def test_a_failure_keeps_its_traceback(client: Client, written: io.StringIO, settings: Any) -> None:
    client.force_login(make_user("anna"))
    client.raise_request_exception = False
    settings.TEMPLATES = []  # no page can be made
    client.get("/", headers={"X-Request-ID": "failing-1"})
    text = written.getvalue()
    assert "Traceback" in text
    assert text.count("failing-1") >= 2  # the failure's line and the request's


def test_a_program_with_a_token_is_known_by_its_person(client: Client, db: None) -> None:
    user = make_user("robot")
    _row, secret = tokens.make(user=user, name="t", scopes=["read"])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Json())
    logging.getLogger().addHandler(handler)
    try:
        client.get("/api/v1/me", headers={"Authorization": f"Bearer {secret}"})
    finally:
        logging.getLogger().removeHandler(handler)
    assert [line["user"] for line in lines(stream)] == [user.pk]
    assert secret not in stream.getvalue()


# Secrets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("token olp_Ab3dEf-9_x given", "Ab3dEf-9_x"),
        ("secret whsec_Zz9yYx8wWv", "Zz9yYx8wWv"),
        ("Authorization: Bearer abc.def.ghi", "abc.def.ghi"),
        ("{'Authorization': 'Bearer abcdef'}", "abcdef"),
        ("Cookie: sessionid=0123456789abcdef; csrftoken=xyzzy42", "0123456789abcdef"),
        ("Cookie: sessionid=0123456789abcdef; csrftoken=xyzzy42", "xyzzy42"),
        ("password=hunter2&next=/", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("cannot connect to postgresql://oneloop:hunter2@db/oneloop", "hunter2"),
        ("redis://:hunter2@broker:6379/0", "hunter2"),
        ("GET /join/Qm9yZWRvbV9pc19ncmVhdA/ 200", "Qm9yZWRvbV9pc19ncmVhdA"),
        ("GET /leaderboard/Qm9yZWRvbV9pc19ncmVhdA/ 200", "Qm9yZWRvbV9pc19ncmVhdA"),
        ("DETAIL:  Failing row contains (1, my free words, null).", "free words"),
        ("DETAIL:  Key (comment)=(my free words) already exists.", "free words"),
    ],
)
def test_secrets_and_peoples_words_are_hidden(said: str, secret: str) -> None:
    assert secret in said
    cleaned = logs.scrub(said)
    assert secret not in cleaned
    assert logs.HIDDEN in cleaned


@pytest.mark.parametrize(
    "said",
    [
        "GET /leaderboard/ 200 3.1 ms",
        "GET /lineage/sources/12/ 200",
        "Task annotation.jobs.expire_leases[8d1e] succeeded in 0.01s: None",
        "training 5: step 3 of 9, loss: 0.31",
        "http://localhost:8000/status/",
    ],
)
def test_ordinary_words_stay(said: str) -> None:
    assert logs.scrub(said) == said


@pytest.mark.django_db
def test_no_secret_of_a_login_is_written(client: Client, written: io.StringIO) -> None:
    make_user("anna")
    client.post("/login/", {"username": "anna", "password": "wrong-hunter2"})
    client.post("/login/", {"username": "anna", "password": "secret"})
    session = client.cookies[site.SESSION_COOKIE_NAME].value
    client.get("/")
    client.get("/join/Qm9yZWRvbV9pc19ncmVhdA/")
    text = written.getvalue()
    for secret in ("hunter2", session, client.cookies["csrftoken"].value, "Qm9yZWRvbV9pc19"):
        assert secret not in text
    assert text.count("/login/") >= 2


# Jobs and runs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_knows_the_request_that_asked_for_it(
    celery_worker: Callable[..., Any], tmp_path: Path
) -> None:
    celery_worker("default", LOG_FORMAT="json")
    with trail.following(request_id="the-request-1"):
        jobs.expire_leases.delay()
    log, end = tmp_path / "worker-0.log", time.monotonic() + 30
    while '"the-request-1"' not in log.read_text() or "succeeded" not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    of_the_job = [line for line in said if line.get("request_id") == "the-request-1"]
    assert of_the_job
    assert all(line["job_id"] for line in of_the_job)


@pytest.mark.django_db(transaction=True)
def test_a_run_is_named_while_it_is_worked_on() -> None:
    run: Job = make_run(state="queued")
    assert run.claim()
    with trail.following(request_id="r-12345678"):
        with run.heartbeat():
            assert trail.current() == {
                "request_id": "r-12345678",
                "run": f"generationrun {run.pk}",
            }
        assert "run" not in trail.current()


def test_a_training_inherits_what_it_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "accelerate.yaml"
    config.touch()
    monkeypatch.setenv("ACCELERATE_CONFIG", str(config))
    with trail.following(request_id="r-12345678", run="trainingrun 5"):
        trainer = launch.Trainer("no.such.module", tmp_path, cwd=tmp_path)
    try:
        given = Path(f"/proc/{trainer.process.pid}/environ").read_bytes().decode().split("\0")
    finally:
        trainer.stop()
    assert "ONELOOP_LOG_RUN=trainingrun 5" in given
    program = "from generation import trail; print(dict(trail.current()))"
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, **{"ONELOOP_LOG_RUN": "trainingrun 5"}},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "{'run': 'trainingrun 5'}"


def test_it_sees_threads_that_are_stuck(settings: Any) -> None:
    settings.WEB_THREADS = 3
    now = time.monotonic()
    try:
        requests._under_way.update({-1: now - 500, -2: now})
        assert not requests.is_wedged()
        assert Client().get("/healthz").status_code == 200
        requests._under_way[-3] = now - 500
        assert requests.is_wedged()
        assert Client().get("/healthz").status_code == 503
    finally:
        for thread in (-1, -2, -3):
            requests._under_way.pop(thread, None)
