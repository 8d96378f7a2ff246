"""What the doctor finds in an installation that is well, and in ones that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.utils import timezone

from annotation.models import Assignment
from config import alive, doctor, second_factor
from config.doctor import Examination, Finding, State, examinations
from config.examinations import database, installation, intake, people, store, work, workers
from config.models import Heartbeat
from config.version import release
from generation.decoding import pool
from generation.models import Delivery, Endpoint, GenerationRun, default_project
from modeling.models import RoundStep
from tests.annotation.factories import claim, make_campaign
from tests.factories import make_image, make_run, make_user
from tests.modeling.test_pages import make_round

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def each(found: doctor.Found) -> dict[str, Finding]:
    assert not isinstance(found, Finding)
    return {str(one.name): one for one in found}


def only(found: doctor.Found) -> Finding:
    findings = [found] if isinstance(found, Finding) else list(found)
    assert len(findings) == 1, findings
    return findings[0]


# How it asks ------------------------------------------------------------------------------------


def examined(*looks: Examination) -> dict[str, Finding]:
    return {str(one.name): one for _, found in doctor.examine(looks) for one in found}


def test_it_gives_up_an_examination_that_does_not_answer() -> None:
    def sleep() -> Finding:
        time.sleep(30)
        return doctor.ok("rested")

    began = time.monotonic()
    found = examined(
        Examination("sleeper", "Sleeper", sleep, seconds=0.1),
        Examination("next", "Next", lambda: doctor.ok("here")),
    )
    assert time.monotonic() - began < 5
    assert found["Sleeper"].state == State.BROKEN
    assert str(found["Sleeper"].what) == "No answer within 0.1 seconds."
    assert found["Next"].state == State.OK


def test_it_says_in_one_line_that_an_examination_failed() -> None:
    def fail() -> Finding:
        raise ValueError("no such thing\nDETAIL: Failing row contains (secret)")

    found = examined(Examination("failing", "Failing", fail))
    assert found["Failing"].state == State.BROKEN
    assert found["Failing"].what == "ValueError: no such thing"


def test_it_leaves_out_what_needs_a_broken_part() -> None:
    asked: list[str] = []

    def dependent() -> Finding:
        asked.append("dependent")
        return doctor.ok("fine")

    found = examined(
        Examination("cellar", "Cellar", lambda: doctor.broken("damp", "Open a window.")),
        Examination("wine", "Wine", dependent, needs="cellar"),
    )
    assert asked == []
    assert found["Wine"].state == State.WARNING
    assert str(found["Wine"].what) == "Not looked at: it needs “Cellar”, which is broken."


def test_others_may_register_an_examination() -> None:
    try:

        @doctor.examines
        def wine_cellar() -> Finding:
            return Finding("wine cellar", "ok", "It is cool.")

        found = {one.key: one for one in examinations()}
        assert wine_cellar() == found["wine_cellar"].look()
    finally:
        doctor._registered.pop("wine_cellar")


def test_each_stands_after_what_it_needs() -> None:
    seen: set[str] = {""}
    for one in examinations():
        assert one.needs in seen, one.key
        seen.add(one.key)


# The command ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_explains_when_everything_is_down(tmp_path: Path) -> None:
    closed = "postgresql://oneloop:hidden-password@127.0.0.1:1/oneloop"
    result = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json", str(tmp_path / "found.json")],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "DATABASE_URL": closed,
            "CELERY_BROKER_URL": "redis://:hidden-password@127.0.0.1:1/0",
            "ONELOOP_DATA": str(tmp_path),
            "MEDIA_ROOT": "/dev/null/media",
            "S3_BUCKET": "",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "Traceback" not in said
    assert "hidden-password" not in said
    assert "\x1b[" not in said  # colour is for terminals
    found = {one["name"]: one for one in json.loads((tmp_path / "found.json").read_text())}
    assert {"Database", "Broker", "Media store"} <= {
        name for name, one in found.items() if one["state"] == "broken"
    }
    assert all(one["remedy"] for one in found.values() if one["state"] != "ok")
    assert found["Migrations"]["what"].startswith("Not looked at")
    assert "BROKEN   Database: Not reachable" in result.stdout


# The parts --------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_it_asks_the_database() -> None:
    assert only(database.database()).state == State.OK
    assert only(database.migrations()).state == State.OK
    assert only(database.clock_skew()).state == State.OK
    assert " are in use" in str(only(database.connections_used()).what)
    assert only(database.longest_transaction()).state == State.OK
    assert "GB" in str(only(database.database_size()).what)


@pytest.mark.django_db
def test_it_warns_of_commits_that_a_power_cut_would_lose(settings: Any) -> None:
    from django.db import connection

    connection.cursor().execute("SET LOCAL synchronous_commit = off")
    found = only(database.durability())
    assert found.state == State.BROKEN
    assert "synchronous_commit" in str(found.what)


def test_it_knows_its_version_and_packages() -> None:
    assert only(installation.packages()).state == State.OK
    assert release().split("+")[0] in str(only(installation.oneloop()).what)


def test_it_finds_secrets_that_others_may_read(data_dir: Path) -> None:
    data_dir.mkdir()
    key = data_dir / "secret_key"
    key.touch(mode=0o600)
    assert only(installation.secrets()).state == State.OK
    key.chmod(0o644)
    found = only(installation.secrets())
    assert found.state == State.BROKEN
    assert f"chmod o-rwx {key}" in str(found.remedy)


def test_embedded_parts_are_no_part_of_a_deployment(settings: Any) -> None:
    settings.DATABASE_IS_EMBEDDED = settings.BROKER_IS_EMBEDDED = True
    settings.PRODUCTION = False
    assert only(installation.embedded_parts()).state == State.OK
    settings.PRODUCTION = True
    assert only(installation.embedded_parts()).state == State.BROKEN
    settings.DATABASE_IS_EMBEDDED = settings.BROKER_IS_EMBEDDED = False
    assert only(installation.embedded_parts()).state == State.OK


def test_a_deployment_heeds_the_checks(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")  # the browser's tests need it
    settings.PRODUCTION = False
    found = each(installation.deployment())
    assert {one.state for one in found.values()} == {State.OK}, found
    settings.PRODUCTION = True
    found = each(installation.deployment())
    assert found["Settings security.W008"].state == State.WARNING
    assert "SECURE_SSL_REDIRECT" in found["Settings security.W008"].what


@pytest.mark.django_db
def test_it_finds_logins_that_everybody_knows(settings: Any) -> None:
    User.objects.create_user("anna", password="oneloop")
    assert installation.safe_database() == []
    settings.PRODUCTION = True
    found = each(installation.safe_database())["Settings oneloop.E120"]
    assert found.state == State.BROKEN
    assert "log in as anna" in found.what


@pytest.mark.django_db
def test_staff_should_have_second_factors(settings: Any) -> None:
    make_user("anna")
    safe, bare = make_user("safe", is_staff=True), make_user("bare", is_staff=True)
    second_factor.turn_on(safe, "A" * 32)
    assert only(people.second_factors()).state == State.OK
    settings.PRODUCTION = True
    found = only(people.second_factors())
    assert (found.state, str(found.what)) == (State.WARNING, "1 of 2 staff have none.")
    settings.REQUIRE_SECOND_FACTOR = "staff"
    assert only(people.second_factors()).state == State.OK
    settings.REQUIRE_SECOND_FACTOR = ""
    second_factor.turn_on(bare, "B" * 32)
    assert only(people.second_factors()).state == State.OK


@pytest.mark.folder
def test_it_writes_to_the_store(settings: Any, data_dir: Path) -> None:
    assert only(store.media_store()).state == State.OK
    assert list((data_dir / "media" / "doctor").iterdir()) == []
    settings.MEDIA_ROOT = "/dev/null/media"
    assert only(store.media_store()).state == State.BROKEN


def test_it_has_a_picture_decoded(settings: Any) -> None:
    pool.POOL.close()
    assert only(intake.decoders()).state == "ok"
    pool.POOL.close()
    settings.DECODER_MEMORY_MB = "none"
    found = only(intake.decoders())
    assert (found.state, "DECODER_MEMORY_MB" in str(found.remedy)) == ("broken", True)


@pytest.mark.django_db
def test_it_misses_pictures_whose_files_are_gone() -> None:
    image = make_image()
    assert only(store.pictures()).state == State.OK
    default_storage.delete(f"images/{image.storage_key}")
    # Fifty keys are drawn between 1 and the newest, anew each time.
    draws = (only(store.pictures()) for _ in range(500))
    found = next(one for one in draws if one.state == State.BROKEN)
    assert image.storage_key in str(found.what)


def test_it_sees_how_much_room_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> set[str]:
        return {one.state for one in each(store.disks()).values()}

    monkeypatch.setattr(store, "ROOM", 0)
    monkeypatch.setattr(store, "LITTLE_ROOM", 0)
    assert states() == {State.OK}
    monkeypatch.setattr(store, "ROOM", 2**62)
    assert states() == {State.WARNING}
    monkeypatch.setattr(store, "LITTLE_ROOM", 2**61)
    assert states() == {State.BROKEN}


# Workers ----------------------------------------------------------------------------------------


def make_heartbeat(name: str, *queues: str, ago: float = 1, heard: float | None = 1) -> Heartbeat:
    now = timezone.now()
    return Heartbeat.objects.create(
        name=name,
        kind="worker" if queues else "beat",
        queues=list(queues),
        machine="here",
        pid=1,
        version=release(),
        started_at=now - timedelta(hours=1),
        beat_at=now - timedelta(seconds=ago),
        heard_at=None if heard is None else now - timedelta(seconds=heard),
    )


@pytest.mark.django_db
def test_it_knows_which_queue_nobody_works_for() -> None:
    make_heartbeat("default@a", "default")
    found = each(workers.workers())
    assert found["Worker of the queue default"].state == State.OK
    assert found["Worker of the queue gpu"].state == State.BROKEN
    assert "-Q gpu" in str(found["Worker of the queue gpu"].remedy)

    make_heartbeat("gpu@a", "gpu", heard=None)  # lives, and has no broker
    found = each(workers.workers())
    assert "does not hear" in str(found["Worker of the queue gpu"].what)


@pytest.mark.django_db
def test_it_misses_a_worker_that_fell_silent() -> None:
    make_heartbeat("default@a", "default", "gpu")
    make_heartbeat("default@b", "default", ago=120, heard=120)
    found = each(workers.workers())
    assert found["default@b"].state == State.WARNING
    assert found["Worker of the queue default"].what == "default@a"


@pytest.mark.django_db
def test_one_clock_has_to_tick() -> None:
    assert only(workers.beat()).state == State.BROKEN
    make_heartbeat("beat@a")
    assert only(workers.beat()).state == State.OK
    make_heartbeat("beat@b")
    assert only(workers.beat()).state == State.WARNING


@pytest.mark.django_db
def test_a_deployment_without_a_gpu_is_told_so(settings: Any) -> None:
    settings.PRODUCTION = True
    worker = make_heartbeat("gpu@a", "gpu")
    assert only(workers.gpu()).state == State.WARNING
    worker.gpus = [{"name": "H100", "used": 2**30, "total": 80 * 2**30, "busy": 3}]
    worker.save()
    found = only(workers.gpu())
    assert (found.state, found.what) == (State.OK, "H100 1.0/80 GiB")


@pytest.mark.slow
def test_a_worker_and_the_clock_tell_that_they_live(
    celery_worker: Callable[..., subprocess.Popen[bytes]], data_dir: Path, broker_url: str
) -> None:
    from tests.conftest import process_environment, stop_process_group

    worker = celery_worker("default")
    command = [sys.executable, "-m", "celery", "-A", "config", "beat", "--pidfile", ""]
    log = (data_dir / "beat.log").open("wb")
    clock = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=process_environment(data_dir, broker_url),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        rows: dict[str, Heartbeat] = {}
        while len(rows) < 2 or not all(row.heard_at for row in rows.values()):
            assert time.monotonic() < end, (data_dir / "beat.log").read_text()
            time.sleep(0.2)
            rows = {row.kind: row for row in Heartbeat.objects.listening()}
        assert rows["worker"].queues == ["default"]
        assert rows["worker"].pid == worker.pid
        assert rows["beat"].pid == clock.pid
        assert alive.complaint(data_dir, "worker") == alive.complaint(data_dir, "beat") == ""
    finally:
        stop_process_group(clock)
    # Who ends in order takes its row along; who is killed leaves it, to be missed.
    assert not Heartbeat.objects.filter(kind="beat").exists()
    os.killpg(worker.pid, 9)
    worker.wait(10)
    assert Heartbeat.objects.filter(kind="worker").exists()
    assert "No beat has started" in alive.complaint(data_dir, "beat")


def test_a_probe_says_who_is_silent(data_dir: Path) -> None:
    assert "No worker has started" in alive.complaint(data_dir, "worker")
    file = alive.beat_file(data_dir, "worker", "gpu@here")
    file.parent.mkdir(parents=True)
    file.touch()
    assert alive.complaint(data_dir, "worker") == ""
    assert alive.complaint(data_dir, "worker", name="gpu@here") == ""
    assert "No worker" in alive.complaint(data_dir, "worker", name="default@here")
    os.utime(file, (time.time() - 300, time.time() - 300))
    assert "worker-gpu@here (300 s)" in alive.complaint(data_dir, "worker")


def test_the_probe_needs_neither_django_nor_torch(data_dir: Path) -> None:
    program = "import sys, config.alive; print({'django', 'torch', 'celery'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
    probe = [sys.executable, "-m", "config.alive", "worker"]
    environment = os.environ | {"ONELOOP_DATA": str(data_dir)}
    said = subprocess.run(
        probe, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.startswith("No worker has started on this machine")


# The work ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_it_finds_jobs_that_nobody_works_on() -> None:
    assert only(work.stuck_jobs()).state == State.OK
    run = make_run(state="queued")
    assert only(work.stuck_jobs()).state == State.OK
    GenerationRun.objects.update(created_at=timezone.now() - timedelta(minutes=10))
    found = only(work.stuck_jobs())
    assert found.state == State.WARNING
    assert str(run) in str(found.what)
    # Behind one that runs, it waits for its turn.
    lease = timezone.now() + timedelta(seconds=20)
    other = make_run(state="running", lease_until=lease)
    assert only(work.stuck_jobs()).state == State.OK
    GenerationRun.objects.filter(pk=other.pk).update(lease_until=lease - timedelta(minutes=5))
    assert only(work.stuck_jobs()).state == State.WARNING


@pytest.mark.django_db
def test_later_steps_of_a_round_are_not_stuck() -> None:
    make_round()
    RoundStep.objects.update(created_at=timezone.now() - timedelta(hours=1), state="queued")
    assert only(work.stuck_jobs()).state == State.OK


@pytest.mark.django_db
def test_it_says_what_failed_last() -> None:
    now = timezone.now()
    make_run(state="failed", error="The disk is full.", finished_at=now)
    make_run(state="failed", error="Long ago.", finished_at=now - timedelta(days=3))
    found = only(work.failures())
    assert found.state == State.WARNING
    assert "Failed within a day: 1." in str(found.what)
    assert "The disk is full." in str(found.what)


@pytest.mark.django_db
def test_it_finds_turns_that_nobody_ends() -> None:
    campaign = make_campaign()
    turn = claim(make_user(), campaign)
    assert only(work.leases()).state == State.OK
    late = timezone.now() - timedelta(minutes=10)
    Assignment.objects.filter(pk=turn.pk).update(lease_until=late)
    assert only(work.leases()).state == State.WARNING


@pytest.mark.django_db
def test_it_finds_messages_that_nobody_sends() -> None:
    endpoint = Endpoint.objects.create(
        project_id=default_project(), url="https://example.org/", topics=["run"]
    )
    now = timezone.now()
    row = Delivery.objects.create(
        endpoint=endpoint, event="ping", body="{}", due_at=now - timedelta(hours=1)
    )
    assert "sent long ago: 1." in str(only(work.deliveries()).what)
    Delivery.objects.filter(pk=row.pk).update(state="failed", ended_at=now)
    assert "given up within a day: 1." in str(only(work.deliveries()).what)
    Delivery.objects.all().delete()
    assert only(work.deliveries()).state == State.OK
