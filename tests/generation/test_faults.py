"""Disks that are full, files that are damaged, and servers that are away."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from kombu.exceptions import OperationalError

from annotation import aggregation, exporting
from annotation.models import Aggregation, Export
from config.celery import app
from generation import candidates, faults, images
from generation.jobs import ring_generation
from generation.models import GenerationRun, Image, Policy, Role, default_project
from generation.ownership import JobState
from tests import object_store
from tests.annotation.factories import claim, make_campaign, submit
from tests.conftest import forget_broker_connections
from tests.factories import (
    make_image,
    make_mask_picture,
    make_picture,
    make_plan,
    make_source,
    make_task,
    make_user,
)
from tests.generation.test_views import upload

pytestmark = pytest.mark.django_db(transaction=True)
in_folders = pytest.mark.skipif(object_store.is_named(), reason="damages files in folders")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow past a kilobyte: it breaks off in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def away() -> Iterator[None]:
    """A broker that does not answer."""
    before = app.conf["broker_write_url"]  # as set: the attribute stands in with `broker_url`
    # Before `broker_url` Celery asks the environment, where tests.servers names a real one.
    app.conf.broker_write_url = "redis://127.0.0.1:1"
    forget_broker_connections(app)
    yield
    app.conf.broker_write_url = before
    forget_broker_connections(app)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# A full disk --------------------------------------------------------------------------------------


@in_folders
def test_a_full_disk_stores_nothing_by_half_and_says_so(client: Client, data_dir: Path) -> None:
    manager = make_user(role=Role.MANAGER)
    client.force_login(manager)
    client.raise_request_exception = False
    task = make_task("mend")
    sent = {
        "image": upload("image.png", make_picture()),
        "mask": upload("m.png", make_mask_picture()),
    }
    body = {"task": task.pk, "prompt": "a lantern", "project": default_project()}
    with full_disk():
        response = client.post("/sources/new/", body | sent)
    assert response.status_code == 507
    assert "There is no room left" in response.content.decode()
    assert not Image.objects.exists()
    assert files(data_dir) == []


@in_folders
def test_a_full_disk_ends_a_generation_with_a_sentence(policy: Policy, data_dir: Path) -> None:
    run = order(policy)
    before = files(data_dir)
    with full_disk():
        assert candidates.make(run)
    run.refresh_from_db()
    assert run.state == JobState.FAILED
    assert run.error.startswith("The disk is full")
    assert files(data_dir) == before
    assert run.retry()
    assert candidates.make(run)
    assert GenerationRun.objects.get().state == JobState.SUCCEEDED


@in_folders
def test_a_full_disk_leaves_no_half_archive() -> None:
    campaign = make_campaign(sets=2)
    user = make_user(role=Role.MANAGER)
    submit(claim(user, campaign))
    chosen = {"campaigns": [campaign.name]}
    exporting.order(project=campaign.project, by=user, selection=chosen)
    export = Export.objects.get()
    with full_disk():
        exporting.run(export)
    export.refresh_from_db()
    assert (export.state, export.archive) == (JobState.FAILED, "")
    assert export.error.startswith("The disk is full")
    assert not exporting.root(export).exists()
    assert not default_storage.exists("exports") or not default_storage.listdir("exports")[1]


# Damaged files ------------------------------------------------------------------------------------


@in_folders
def test_a_damaged_picture_is_never_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    source = make_source(make_task("mend"))
    path = images.local_path(source.image)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a bit of its pixels
    path.write_bytes(content)
    client.force_login(make_user(role=Role.MANAGER))
    with caplog.at_level(logging.ERROR, "generation.images"):
        assert client.get(f"/images/{source.image.sha256}.png").status_code == 404
    assert f"images/{source.image.storage_key} is damaged" in caplog.text
    with pytest.raises(images.ImageError, match="is not what was stored. Restore it from a backup"):
        images.open_image(source.image)


@in_folders
def test_a_damaged_copy_is_made_again() -> None:
    image = make_image(size=(600, 300))
    thumb = images.reduced(image, "thumb")
    path = Path(default_storage.path(f"thumbs/{image.storage_key}"))
    for damage in (thumb[:-20], thumb[:100] + b"?" + thumb[101:], b""):
        path.write_bytes(damage)
        assert images.reduced(image, "thumb") == thumb
        assert path.read_bytes() == thumb


# Away ---------------------------------------------------------------------------------------------


def test_work_is_ordered_while_the_broker_is_away(away: None, policy: Policy) -> None:
    began = time.monotonic()
    run = order(policy)
    candidates.ring(run)
    assert aggregation.request(make_campaign()).requested_at is not None
    assert time.monotonic() - began < 10
    assert GenerationRun.objects.claimable().get() == run  # what beat's bell looks for
    with pytest.raises(OperationalError):
        ring_generation()  # it is rung again ten seconds later


def test_an_aggregation_that_nobody_heard_of_is_asked_for_again(away: None) -> None:
    campaign = make_campaign()
    aggregation.request(campaign)
    assert aggregation.overdue() == []
    Aggregation.objects.update(requested_at="2020-01-01T00:00Z")
    assert aggregation.overdue() == [campaign.pk]
    with aggregation.alone(campaign.pk) as mine:
        assert mine
    aggregation.aggregate(campaign)
    assert aggregation.overdue() == []


def test_pages_say_when_the_store_is_away(client: Client, bucket: None) -> None:
    source = make_source(make_task("mend"))
    client.force_login(make_user(role=Role.MANAGER))
    client.raise_request_exception = False
    address = f"/images/{source.image.sha256}.png"
    assert client.get(address).status_code == 200
    with object_store.media("http://127.0.0.1:1", timeout_seconds=1):
        response = client.get(address)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert "The store of pictures does not answer" in response.content.decode()


def order(policy: Policy) -> GenerationRun:
    task = make_task("mend")
    make_plan(task, steps=[1])
    sources = [make_source(task, size=(32, 32))]
    return candidates.order_sets(policy=policy, sources=sources, seed=0, size=2)


def test_a_database_that_ends_amid_a_copy_is_away(db: None) -> None:
    other = connection.copy()
    suicide = "COPY (SELECT pg_terminate_backend(pg_backend_pid())) TO STDOUT"
    try:
        with (
            pytest.raises(psycopg.OperationalError) as raised,
            other.cursor() as cursor,
            cursor.copy(suicide) as blocks,
        ):
            list(blocks)
    finally:
        other.close()
    assert faults.is_away(raised.value)
    assert faults.sentence(raised.value).startswith("The database does not answer")
