"""Metrics, health and readiness: in this process, and of a real server with two workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from annotation import queue
from annotation.models import Assignment, Judgment
from config import env, health, metrics, site_metrics
from config.runtime import shared_counts
from tests.annotation.factories import claim, make_campaign, submit
from tests.config.test_doctor import make_heartbeat
from tests.conftest import process_environment
from tests.factories import make_run, make_user
from tests.modeling.test_pages import make_round

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEPLOY = REPOSITORY / "config" / "deploy" / "prometheus"
TOKEN = "a-token-of-prometheus"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    metrics.site.forget()
    health.ready.forget()
    yield
    metrics.site.forget()
    health.ready.forget()


def parsed(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: Client) -> Samples:
    metrics.site.forget()
    response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    return parsed(response.content.decode())


# Who may ask ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_nobody_finds_metrics_where_none_are_set_up(client: Client) -> None:
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@pytest.mark.django_db
def test_the_token_opens_them(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 404
    assert client.get(f"/metrics?token={TOKEN}").status_code == 404
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")


@pytest.mark.django_db
def test_allowed_addresses_need_no_token(client: Client, settings: Any) -> None:
    settings.METRICS_NETWORKS = [ip_network("10.1.0.0/16")]
    assert client.get("/metrics", REMOTE_ADDR="10.1.2.3").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="10.2.2.3").status_code == 404
    # What somebody writes into a header is no address.
    forged = {"X-Forwarded-For": "10.1.2.3"}
    assert client.get("/metrics", REMOTE_ADDR="8.8.8.8", headers=forged).status_code == 404


def test_a_wrong_network_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ADDRESSES", "10.0.0.0/8, somewhere")
    with pytest.raises(ImproperlyConfigured, match="METRICS_ADDRESSES.*somewhere"):
        env.networks("METRICS_ADDRESSES")


# What they say ----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_requests_are_counted_by_address_and_status(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    name = "oneloop_http_requests_total"
    login = (name, (("method", "GET"), ("status", "200"), ("view", "login")))
    nothing = (name, (("method", "GET"), ("status", "404"), ("view", "none")))
    before = scrape(client)
    for path in ("/login/", "/login/", "/nothing/a/", "/nothing/b/"):
        client.get(path)
    after = scrape(client)
    assert after[login] - before.get(login, 0) == 2
    assert after[nothing] - before.get(nothing, 0) == 2
    timed = ("oneloop_http_request_duration_seconds_count", (("view", "login"),))
    assert after[timed] - before.get(timed, 0) == 2
    assert client.generic("MADEUP", "/login/").status_code == 405
    odd = (name, (("method", "other"), ("status", "405"), ("view", "login")))
    assert scrape(client)[odd] >= 1


@pytest.mark.django_db
def test_the_database_tells_the_rest(client: Client, settings: Any, broker_url: str) -> None:
    settings.METRICS_TOKEN, settings.CELERY_BROKER_URL = TOKEN, broker_url
    now = timezone.now()
    worker = make_heartbeat("gpu@a", "gpu")
    worker.gpus = [{"name": "H100", "used": 2**30, "total": 80 * 2**30, "busy": 50}]
    worker.save()
    make_heartbeat("beat@a", ago=7)
    make_run(state="queued")
    make_run(state="running", lease_until=now, started_at=now - timedelta(seconds=100))
    round_ = make_round()
    step = round_.steps.get(name="generate")
    step.state, step.lease_until, step.started_at = "running", now, now - timedelta(seconds=50)
    step.save()
    anna, campaign = make_user("anna"), make_campaign(sets=3)
    judged = claim(anna, campaign)
    submit(judged)
    claim(anna, campaign)

    found = scrape(client)

    def of(name: str, /, **labels: str) -> float:
        return found[f"oneloop_{name}", tuple(sorted(labels.items()))]

    assert of("part_up", part="database") == of("part_up", part="broker") == 1
    assert of("queue_depth", queue="gpu") == 0
    assert of("workers", queue="gpu") == 1
    assert of("workers", queue="default") == 0
    assert 7 <= of("heartbeat_age_seconds", kind="beat", name="beat@a") < 60
    assert of("gpu_memory_used_bytes", worker="gpu@a", gpu="0", model="H100") == 2**30
    assert of("gpu_busy_ratio", worker="gpu@a", gpu="0", model="H100") == 0.5
    assert of("jobs", kind="generationrun", state="queued") == 1
    assert 100 <= of("oldest_job_seconds", kind="generationrun", state="running") < 200
    assert of("turns_open") == 1
    assert of("judged_sets_last_hour") == of("active_annotators") == 1
    assert of("judgments_total") >= Judgment.objects.count() > 0
    assert of("loop_round") == round_.number
    assert of("loop_step", step="generate", state="running") == 1
    assert 50 <= of("loop_step_seconds", step="generate") < 100
    assert of("database_connections_allowed") > 10


@pytest.mark.django_db(transaction=True)
def test_turns_that_ran_out_are_counted(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    campaign = make_campaign(sets=2)
    for name in ("anna", "ben"):
        claim(make_user(name), campaign)
    key = ("oneloop_lease_expiries_total", ())
    assert scrape(client)[key] == 0
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    assert scrape(client)["oneloop_turns_overdue", ()] == 2
    assert queue.expire_leases() == 2
    assert queue.expire_leases() == 0
    assert scrape(client)[key] == 2


@pytest.mark.folder
@pytest.mark.django_db
def test_what_does_not_answer_is_down(client: Client, settings: Any, tmp_path: Path) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.CELERY_BROKER_URL = f"redis+socket://{tmp_path}/nothing.sock"
    settings.MEDIA_ROOT = "/dev/null/media"
    found = scrape(client)
    assert found["oneloop_part_up", (("part", "broker"),)] == 0
    assert found["oneloop_part_up", (("part", "store"),)] == 0
    assert not any(name == "oneloop_queue_depth" for name, _labels in found)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["store"] == "not writable"


@pytest.mark.django_db
def test_readiness_may_leave_a_part_out(client: Client, settings: Any, tmp_path: Path) -> None:
    settings.CELERY_BROKER_URL = f"redis+socket://{tmp_path}/nothing.sock"
    make_heartbeat("gpu@a", "gpu", ago=120, heard=120)
    assert client.get("/readyz").status_code == 503
    answer = client.get("/readyz?exclude=broker")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "database": "ok",
        "broker": "unreachable",
        "store": "ok",
        "degraded": ["worker of gpu"],
    }


@pytest.mark.django_db
def test_probes_cost_no_more_when_they_come_often(
    client: Client, django_assert_num_queries: Any
) -> None:
    client.get("/readyz")
    with django_assert_num_queries(0):
        for _ in range(20):
            client.get("/readyz")


# The examples -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_examples_ask_for_metrics_that_exist(broker_url: str, settings: Any) -> None:
    settings.CELERY_BROKER_URL = broker_url
    families = [*site_metrics.Site().collect(), *metrics.web.collect()]
    names = {family.name for family in families}
    names |= {f"{name}_total" for name in names} | {f"{name}_bucket" for name in names}
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text())
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    wanted = {name for expression in asked for name in re.findall(r"oneloop_\w+", expression)}
    assert len(wanted) > 20
    assert wanted <= names
    assert all(rule["annotations"]["remedy"] for rule in rules)


# A real server ----------------------------------------------------------------------------------


def test_counts_of_a_server_that_ended_are_removed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(shared_counts.NAME, raising=False)
    here = data_dir / "metrics" / socket.gethostname()
    stale = here / f"{os.getppid()}-1"  # the same number, but it began at another time
    stale.mkdir(parents=True)
    shared_counts.prepare(data_dir)
    mine = Path(os.environ[shared_counts.NAME])
    monkeypatch.delenv(shared_counts.NAME)
    assert mine.is_dir()
    assert [one.name for one in here.iterdir()] == [mine.name]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_server_sums_up_what_its_workers_count(
    data_dir: Path, broker_url: str, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(port)]
    command += ["--workers", "2", "--blocking-threads", "2", "config.wsgi:application"]
    more = {"METRICS_TOKEN": TOKEN, "LOG_FORMAT": "json", "WEB_THREADS": "2"}
    log = tmp_path / "web.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=process_environment(data_dir, broker_url) | more,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until(lambda: _get(port, "/readyz")[0] == 200, log)
        for number in range(40):
            assert _get(port, "/login/", **{"X-Request-ID": f"request-{number}"})[0] == 200
        status, text = _get(port, "/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        name = "oneloop_http_requests_total"
        key = (name, (("method", "GET"), ("status", "200"), ("view", "login")))
        assert parsed(text)[key] == 40
        said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        seen = {line["request_id"] for line in said if line.get("path") == "/login/"}
        assert seen == {f"request-{number}" for number in range(40)}
        # Both had a share, or the sum would prove nothing.
        folder = next((data_dir / "metrics" / socket.gethostname()).iterdir())
        assert len(list(folder.glob("counter_*.db"))) == 2
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def _get(port: int, path: str, **headers: str) -> tuple[int, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _wait_until(is_so: Any, log: Path) -> None:
    end = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
