"""Who sends a stored file's bytes, once it is known that the person may have them."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from annotation.models import Export
from generation import tokens
from generation.models import Image, Membership, Project, Role, default_project
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


# By the object store -----------------------------------------------------------------------------


@pytest.fixture
def stored(bucket: None, settings: Any) -> Image:
    settings.MEDIA_REDIRECT_SECONDS = 120
    return make_source(size=(512, 300)).image


SHOWN = {"Sec-Fetch-Dest": "image"}


def fetched(url: str) -> Any:
    return urllib3.request("GET", url, retries=False)


def test_the_store_sends_by_an_address_that_ends(stored: Image) -> None:
    client = client_of("vera")
    path = f"/images/{stored.sha256}.png"
    response = client.get(path, headers=SHOWN)
    assert response.status_code == 302
    assert response["Cache-Control"] == "private, max-age=60"
    address = urlsplit(response["Location"])
    asked = parse_qs(address.query)
    assert asked["X-Amz-Expires"] == ["120"]
    assert "X-Amz-Signature" in asked
    answer = fetched(response["Location"])
    assert answer.status == 200
    assert hashlib.sha256(answer.data).hexdigest() == stored.sha256
    assert fetched(address._replace(query="").geturl()).status == 403
    # A script that reads the pixels gets them from here.
    assert client.get(path).content == answer.data


def test_a_stranger_gets_no_address_of_the_store(stored: Image) -> None:
    for client in (client_of("stranger", role=None), Client()):
        response = client.get(f"/images/{stored.sha256}.png", headers=SHOWN)
        assert "X-Amz" not in response.headers.get("Location", "")
        assert response.status_code in (302, 404)


def test_the_address_is_signed_for_the_name_that_browsers_use(stored: Image, settings: Any) -> None:
    settings.S3_PUBLIC_URL = "https://pictures.example.org"
    response = client_of("vera").get(f"/images/{stored.sha256}.png", headers=SHOWN)
    assert response["Location"].startswith("https://pictures.example.org/")


# Signed links -----------------------------------------------------------------------------------


def link_of(client: Client, sha256: str) -> str:
    return str(client.get(f"/api/v1/images/{sha256}/link").json()["url"])


def test_a_link_shows_a_picture_to_whoever_has_it() -> None:
    image = make_source().image
    url = link_of(client_of("vera", role=Role.VIEWER), image.sha256)
    answer = Client().get(url)
    assert hashlib.sha256(answer.content).hexdigest() == image.sha256
    assert answer["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert Client().get(url.replace("/signed/", "/signed/x")).status_code == 404


def test_a_link_ends(settings: Any) -> None:
    url = link_of(client_of("vera"), make_source().image.sha256)
    settings.IMAGE_LINK_SECONDS = -1
    assert Client().get(url).status_code == 404


def test_a_link_ends_with_what_its_maker_may_see() -> None:
    vera = make_user("vera")
    client = Client()
    client.force_login(vera)
    url = link_of(client, make_source().image.sha256)
    held = Membership.objects.get(user=vera)
    held.delete()
    assert Client().get(url).status_code == 404
    held.save()
    assert Client().get(url).status_code == 200
    vera.is_active = False
    vera.save()
    assert Client().get(url).status_code == 404


@pytest.mark.parametrize("path", ["/media/", "/protected/", "/static/../", "/.data/"])
def test_the_store_has_no_address_of_its_own(path: str, shown: Image) -> None:
    client = client_of("root", is_superuser=True)
    assert client.get(f"{path}images/{shown.storage_key}").status_code == 404
