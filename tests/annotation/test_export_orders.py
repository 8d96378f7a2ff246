"""Datasets on order: the job, its page, the API, and what changed from one version to the next."""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone

from annotation import datasets, exporting, judgments, withdrawals
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Export
from generation import tokens
from generation.models import AuditEntry, Project, Role, Verb
from tests.annotation.factories import claim, make_campaign, make_judged_task, submit
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat's own connection would not see rows of the test's transaction."""
    monkeypatch.setattr(exporting, "SAID_EVERY", 3600.0)


@pytest.fixture
def campaign() -> Campaign:
    """Three sets of two questions each; one person has judged two of them."""
    task = make_judged_task()
    sets = [make_set(make_source(task)) for _ in range(3)]
    made = make_campaign(task=task, sets=sets)
    user = make_user(role=Role.ANNOTATOR)
    for _ in range(2):
        submit(claim(user, made))
    return made


@pytest.fixture
def manager() -> User:
    return make_user(role=Role.MANAGER)


def order(campaign: Campaign, by: User, **fields: Any) -> Export:
    chosen = {"campaigns": [campaign.name]}
    return exporting.order(project=campaign.project, by=by, selection=chosen, **fields)


def made(export: Export) -> Export:
    exporting.run(export)
    export.refresh_from_db()
    assert export.error == ""
    return export


def unpack(data: bytes, into: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        file.extractall(into)
    return next(into.iterdir())


def test_it_writes_packs_and_forgets_the_salt(
    campaign: Campaign, manager: User, tmp_path: Path
) -> None:
    ordered = order(campaign, manager)
    assert (ordered.total, ordered.salt != "") == (4, True)
    export = made(ordered)
    assert (export.state, export.salt, export.counts["judgments"]) == ("succeeded", "", 4)
    with default_storage.open(export.archive) as file:
        directory = unpack(file.read(), tmp_path)
    assert datasets.verify(directory)["content_hash"] == export.content_hash
    assert default_storage.size(export.archive) == export.byte_size
    assert not exporting.root(export).exists()
    assert AuditEntry.objects.get(verb=Verb.EXPORTED).actor == manager


def test_it_says_what_changed_since_the_version_before(campaign: Campaign, manager: User) -> None:
    first = made(order(campaign, manager))
    assert (first.previous, first.difference) == (None, None)
    other = make_user(role=Role.ANNOTATOR)
    submit(claim(other, campaign))
    turns = Assignment.objects.filter(state="submitted").order_by("pk")
    kept, gone = turns[0], turns[1]
    judgments.record(
        assignment=kept,
        user=kept.annotator,
        answers={d.slug: Answer("no_difference") for d in kept.set.source.task.dimensions.all()},
    )
    withdrawals.withdraw(user=manager, source=gone.set.source, reason="asked for")
    second = made(exporting.again(first, by=manager))
    assert second.previous == first
    assert second.difference == {"added": 2, "corrected": 2, "withdrawn": 2, "left_out": 0}
    assert list(exporting.versions(second)) == [second, first]
    third = made(exporting.again(first, by=manager))
    assert third.content_hash == second.content_hash
    assert third.difference == {"added": 0, "corrected": 0, "withdrawn": 0, "left_out": 0}


def test_another_worker_goes_on_where_a_killed_one_stopped(
    campaign: Campaign, manager: User
) -> None:
    export = order(campaign, manager)
    killed = Export.objects.get()
    assert killed.claim()
    exporting.run(export)  # it is owned
    assert Export.objects.get().state == "running"
    Export.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert made(export).counts["judgments"] == 4


def test_it_refuses_what_holds_nothing_and_too_many_at_once(
    campaign: Campaign, manager: User
) -> None:
    with pytest.raises(Refused, match="no judgment fits"):
        exporting.order(project=campaign.project, by=manager, selection={"origins": ["simulated"]})
    for _ in range(exporting.OPEN_PER_PROJECT):
        order(campaign, manager)
    with pytest.raises(Refused, match="Wait for one, or cancel it"):
        order(campaign, manager)
    first = Export.objects.order_by("pk")[0]
    assert exporting.cancel(first)
    order(campaign, manager)
    exporting.run(first)
    first.refresh_from_db()
    assert (first.state, first.archive, first.salt) == ("cancelled", "", "")


def test_it_holds_nothing_of_another_project(campaign: Campaign, manager: User) -> None:
    elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
    with pytest.raises(Refused, match=r"no campaign|no judgment fits"):
        exporting.order(project=elsewhere, by=manager, selection={"campaigns": [campaign.name]})


def test_the_page_orders_shows_and_deletes(
    campaign: Campaign, manager: User, client: Client
) -> None:
    client.force_login(manager)
    page = client.get(f"/exports/?campaign={campaign.name}").content.decode()
    assert "Nothing was exported yet" in page
    assert f'value="{campaign.name}" id="id_campaigns_0" checked' in page
    data = {"campaigns": campaign.name, "format": "canonical", "pictures": "none"}
    response = client.post("/exports/", data)
    export = Export.objects.get()
    assert response.headers["Location"] == f"/exports/{export.pk}/"
    assert "Waiting for a worker." in client.get(f"/exports/{export.pk}/").content.decode()
    assert client.get(f"/exports/{export.pk}/file/").status_code == 404
    made(export)
    page = client.get(f"/exports/{export.pk}/").content.decode()
    assert export.content_hash in page
    assert campaign.name in page
    assert "the first of its kind" in page
    file = client.get(f"/exports/{export.pk}/file/")
    assert file.headers["Content-Length"] == str(export.byte_size)
    assert file.getvalue()[:2] == b"PK"
    client.post(f"/exports/{export.pk}/change/", {"do": "delete"})
    assert not default_storage.exists(export.archive)
    assert "Download the ZIP" not in client.get(f"/exports/{export.pk}/").content.decode()


def test_the_page_names_what_does_not_fit(
    campaign: Campaign, manager: User, client: Client
) -> None:
    client.force_login(manager)
    data = {"format": "canonical", "pictures": "files", "since": "2026-03-02"}
    response = client.post("/exports/", data | {"until": "2026-03-01"})
    assert response.status_code == 422
    assert "The last day comes before the first." in response.content.decode()
    response = client.post("/exports/", data | {"until": "2026-03-03"})
    assert "no judgment fits" in response.content.decode()
    assert not Export.objects.exists()


def test_the_api_orders_watches_and_downloads(
    campaign: Campaign, manager: User, client: Client, tmp_path: Path
) -> None:
    _, secret = tokens.make(user=manager, name="x", scopes=["export"])
    asked: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {secret}"},
        "content_type": "application/json",
    }
    body = {"selection": {"campaigns": [campaign.name], "splits": ["train", "holdout"]}}
    response = client.post("/api/v1/exports", body, **asked)
    assert response.status_code == 202, response.content
    address = response.headers["Location"]
    found = client.get(address, **asked).json()
    assert (found["state"], found["total"], found["download"]) == ("queued", 4, None)
    made(Export.objects.get())
    found = client.get(address, **asked).json()
    data = client.get(found["download"], **asked).getvalue()
    card = datasets.verify(unpack(data, tmp_path / "archive"))
    assert card["content_hash"] == found["content_hash"]
    assert client.get("/api/v1/exports", **asked).json()["results"][0]["id"] == found["id"]
    assert client.delete(address, **asked).status_code == 204
    assert client.get(address, **asked).json()["download"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"selection": {"colour": "red"}}, "colour"),
        ({"selection": {"splits": ["both"]}}, "both"),
        ({"selection": {"campaigns": ["nowhere"]}}, "nowhere"),
        ({"format": "stone tablets"}, "stone tablets"),
        ({"max_side": 2}, "max_side"),
    ],
)
def test_the_api_names_what_it_does_not_take(
    campaign: Campaign, manager: User, client: Client, body: dict[str, Any], said: str
) -> None:
    client.force_login(manager)
    response = client.post("/api/v1/exports", body, content_type="application/json")
    assert response.status_code in {400, 422}
    assert said in response.content.decode()
    assert not Export.objects.exists()


def test_the_api_wants_the_scope_and_the_role(campaign: Campaign, client: Client) -> None:
    annotator = make_user(role=Role.ANNOTATOR)
    client.force_login(annotator)
    assert client.post("/api/v1/exports", {}, content_type="application/json").status_code == 403
    manager = make_user(role=Role.MANAGER)
    export = order(campaign, manager)
    assert client.delete(f"/api/v1/exports/{export.pk}").status_code == 403
    _, secret = tokens.make(user=manager, name="x", scopes=["read"])
    headers = {"Authorization": f"Bearer {secret}"}
    assert Client().get(f"/api/v1/exports/{export.pk}", headers=headers).status_code == 403
