"""Processes that have a database, a broker and an object store in common, and no folder."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.middleware.csrf import _get_new_csrf_string
from django.test import Client

from annotation.models import Assignment, Export, Judgment
from generation import candidates, images, jobs
from generation.models import Candidate, CandidateSet, Policy, Role
from generation.ownership import JobState
from tests.annotation.factories import make_campaign, make_judged_task, slugs
from tests.conftest import REPOSITORY, process_environment, stop_process_group
from tests.factories import make_plan, make_policy, make_set, make_source, make_task, make_user
from tests.servers import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
WAIT_SECONDS = 240
DEPLOY = REPOSITORY / "config" / "deploy"


@pytest.fixture
def policy(tmp_path_factory: pytest.TempPathFactory, transactional_db: None) -> Policy:
    from tests.diffusion.tiny import save_tiny_policy

    place = save_tiny_policy(tmp_path_factory.mktemp("weights") / "policy")
    return make_policy("tiny", location=place, max_pixels=32 * 32)


def wait_until(what: Callable[[], Any], *logs: Path) -> Any:
    end = time.monotonic() + WAIT_SECONDS
    while not (found := what()):
        said = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())
        assert time.monotonic() < end, said
        time.sleep(0.1)
    return found


def test_the_other_machine_ends_what_a_killed_one_began(
    bucket: None,
    policy: Policy,
    celery_worker: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    task = make_task("mend")
    make_plan(task, steps=[20, 30, 40], true_cfg_scale=[1.0, 2.0])
    source = make_source(task, size=(32, 32))
    run = candidates.order_sets(policy=policy, sources=[source] * 30, seed=1)
    machines = [
        celery_worker("gpu", ONELOOP_DATA=str(tmp_path / name), JOB_LEASE_SECONDS="6")
        for name in ("one", "two")
    ]
    logs = [tmp_path / f"worker-{number}.log" for number in range(2)]
    jobs.make_candidates.delay(run.pk)

    def progress() -> int:
        run.refresh_from_db()
        return run.progress

    wait_until(progress, *logs)
    owner = next(place for place, log in enumerate(logs) if " received" in log.read_text())
    os.killpg(machines[owner].pid, signal.SIGKILL)
    machines[owner].wait(10)
    run.refresh_from_db()
    assert run.state == JobState.RUNNING
    before = set(Candidate.objects.filter(image__isnull=False).values_list("pk", "image_id"))
    assert 0 < len(before) < run.total

    # The clock rings again for work whose owner fell silent; the dead one hears nothing.
    def finished() -> bool:
        jobs.ring_generation()
        time.sleep(1)
        run.refresh_from_db()
        return run.state not in (JobState.QUEUED, JobState.RUNNING)

    wait_until(finished, *logs)
    assert (run.state, run.error, run.attempt) == (JobState.SUCCEEDED, "", 2)
    made = Candidate.objects.filter(set__run=run, image__isnull=False)
    assert made.count() == run.total == Candidate.objects.count()
    assert before <= set(made.values_list("pk", "image_id"))
    assert CandidateSet.objects.ready().filter(run=run).count() == 30
    for candidate in made.select_related("image")[:: max(1, run.total // 5)]:
        assert candidate.image is not None
        assert images.open_image(candidate.image).size == (32, 32)
    # Neither machine has kept a picture to itself.
    assert not list((tmp_path / "one").rglob("*.png"))
    assert not list((tmp_path / "two").rglob("*.png"))


# Every process as its container would start it -----------------------------------------------


def commands(port: int) -> dict[str, list[str]]:
    """What compose.yaml and the Dockerfile run, here by this Python and on a free port."""
    parts = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    web = re.search(r"\nCMD (\[\"granian.*?\])", (DEPLOY / "Dockerfile").read_text(), re.S)
    assert web is not None
    found = {"web": json.loads(web[1].replace("\\\n", ""))}
    found |= {name: parts[name]["command"] for name in ("worker", "gpu-worker", "beat")}
    place = found["web"].index("--port") + 1
    found["web"][place] = str(port)
    return {name: [sys.executable, "-m", *command] for name, command in found.items()}


@pytest.fixture
def by_hand(
    bucket: None, transactional_db: None, broker_url: str, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    port = free_port()
    started, logs = {}, {}
    for name, command in commands(port).items():
        home = tmp_path / name
        home.mkdir()
        environment = process_environment(home, broker_url) | {"ALLOWED_HOSTS": "localhost"}
        if name == "gpu-worker":
            environment["CELERY_WORKER_POOL_START_METHOD"] = "spawn"
        logs[name] = tmp_path / f"{name}.log"
        with logs[name].open("wb") as log:
            started[name] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    try:
        yield {"port": port, "logs": logs, "processes": started}
    finally:
        for process in started.values():
            stop_process_group(process)


def ask(port: int, path: str, cookies: dict[str, str], fields: Any = None) -> tuple[int, bytes]:
    """A page, or what a form is answered; 0 while nobody listens."""
    headers = {"Host": "localhost", "Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    body = None
    if fields is not None:
        body = urlencode(fields)
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        headers["X-CSRFToken"] = cookies.get("csrftoken", "")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def log_in(user: User) -> dict[str, str]:
    session = Client()
    session.force_login(user)
    session.cookies["csrftoken"] = _get_new_csrf_string()
    return {name: one.value for name, one in session.cookies.items()}


def test_one_turn_goes_through_all_processes(
    by_hand: dict[str, Any], policy: Policy, tmp_path: Path
) -> None:
    """Labelled by the web, exported by one worker, made by the other, rung for by the clock."""
    port, logs = by_hand["port"], by_hand["logs"]
    task = make_judged_task()
    make_plan(task, steps=[1], candidates_per_set=2)
    source = make_source(task, size=(32, 32))
    campaign = make_campaign(task=task, sets=[make_set(source)])
    manager = make_user("max", role=Role.MANAGER)
    wait_until(lambda: ask(port, "/readyz", {})[0] == 200, logs["web"])
    me = log_in(manager)

    # Judged in the browser.
    status, _page = ask(port, f"/label/campaign/{campaign.pk}/", me)
    assert status == 302
    turn = Assignment.objects.get()
    fields = {"submission": str(uuid.uuid4()), "seconds": "8"}
    for slug in slugs(turn):
        fields |= {f"best-{slug}": "1", f"worst-{slug}": "2"}
    status, page = ask(port, f"/label/{turn.pk}/", me, fields)
    assert status in (200, 302), page[-2000:]
    assert Judgment.objects.filter(assignment=turn, outcome="picked").count() == 2

    # Nobody rings but the clock: orders that were never announced are found and done.
    export = Export.objects.create(
        project=campaign.project,
        selection={"campaigns": [campaign.name]},
        format="canonical",
        pictures="files",
        requested_by=manager,
    )
    run = candidates.order_sets(policy=policy, sources=[source], seed=1)

    def done() -> bool:
        export.refresh_from_db()
        run.refresh_from_db()
        return {export.state, run.state} & {JobState.QUEUED, JobState.RUNNING} == set()

    wait_until(done, *logs.values())
    assert (export.state, export.error) == (JobState.SUCCEEDED, "")
    assert (run.state, run.error) == (JobState.SUCCEEDED, "")

    # The web shows what the others made.
    made = Candidate.objects.filter(set__run=run).select_related("image").first()
    assert made is not None
    assert made.image is not None
    status, picture = ask(port, f"/images/{made.image.sha256}.png", me)
    assert (status, picture) == (200, images.read_bytes(made.image))
    status, archive = ask(port, f"/exports/{export.pk}/file/", me)
    assert status == 200
    (tmp_path / "export.zip").write_bytes(archive)
    with zipfile.ZipFile(tmp_path / "export.zip") as file:
        assert any(name.endswith("judgments.parquet") for name in file.namelist())
    assert default_storage.exists(export.archive)
    for process in by_hand["processes"].values():
        assert process.poll() is None
