"""Who sends a stored file's bytes, once it is known that the person may have them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from annotation.models import Export
from generation import tokens
from generation.models import Image, Project, Role, default_project
from tests.factories import make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def shown(settings: Any) -> Image:
    settings.MEDIA_ACCEL = "/protected/"
    return make_source(size=(512, 300)).image


def client_of(name: str, **fields: Any) -> Client:
    client = Client()
    client.force_login(make_user(name, **fields))
    return client


def test_the_proxy_sends_what_the_program_allows(shown: Image) -> None:
    response = client_of("vera", role=Role.VIEWER).get(f"/images/{shown.sha256}.png")
    assert response.content == b""
    assert response["X-Accel-Redirect"] == f"/protected/images/{shown.storage_key}"
    assert response["Content-Type"] == "image/png"
    assert response["Cache-Control"].startswith("private")
    assert default_storage.exists(f"images/{shown.storage_key}")


def test_the_proxy_finds_a_reduced_copy(shown: Image) -> None:
    response = client_of("vera").get(f"/images/{shown.sha256}.png?size=thumb")
    name = f"thumbs/{shown.storage_key}"
    assert response["X-Accel-Redirect"] == f"/protected/{name}"
    assert default_storage.exists(name)


def test_a_stranger_gets_no_word_to_the_proxy(shown: Image) -> None:
    for client in (client_of("stranger", role=None), Client()):
        response = client.get(f"/images/{shown.sha256}.png")
        assert response.status_code in (302, 404)
        assert "X-Accel-Redirect" not in response


def test_programs_get_pictures_by_the_proxy_too(shown: Image) -> None:
    _, secret = tokens.make(user=make_user("vera"), name="x", scopes=["read"])
    bearer = {"Authorization": f"Bearer {secret}"}
    response = Client().get(f"/api/v1/images/{shown.sha256}.png", headers=bearer)
    assert response["X-Accel-Redirect"] == f"/protected/images/{shown.storage_key}"


def test_an_export_leaves_by_the_proxy(settings: Any) -> None:
    settings.MEDIA_ACCEL = "/protected/"
    key = default_storage.save("exports/a b.zip", ContentFile(b"PK"))
    project = Project.objects.get(pk=default_project())
    export = Export.objects.create(project=project, state="succeeded", archive=key, byte_size=2)
    response = client_of("max", role=Role.MANAGER).get(f"/exports/{export.pk}/file/")
    assert response["X-Accel-Redirect"] == "/protected/exports/a%20b.zip"
    assert "attachment" in response["Content-Disposition"]
    refused = client_of("rita", role=Role.REVIEWER).get(f"/exports/{export.pk}/file/")
    assert refused.status_code == 403
    assert "X-Accel-Redirect" not in refused


@pytest.mark.parametrize("path", ["/media/", "/protected/", "/static/../", "/.data/"])
def test_the_store_has_no_address_of_its_own(path: str, shown: Image) -> None:
    client = client_of("root", is_superuser=True)
    assert client.get(f"{path}images/{shown.storage_key}").status_code == 404
