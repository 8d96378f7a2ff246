"""Single sign-on against a real OpenID provider that listens on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.test import Client

from generation.models import AuditEntry, Membership, Verb
from tests.annotation.factories import make_campaign
from tests.config.openid_provider import CALLBACK, CLIENT, SECRET, Provider, new_key
from tests.factories import make_user

pytestmark = pytest.mark.django_db

REPOSITORY = Path(__file__).resolve().parent.parent.parent
OLGA = {
    "sub": "provider|17",
    "preferred_username": "olga",
    "email": "olga@example.org",
    "email_verified": True,
    "given_name": "Olga",
    "family_name": "Ito",
}


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    provider = Provider()
    provider.person = dict(OLGA)
    provider.start()
    settings.OIDC = {
        "server_url": provider.url,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "name": "Example ID",
    }
    yield provider
    provider.stop()


def start(client: Client, **sent: str) -> str:
    """Press the button; where the provider sends the browser."""
    process = sent.pop("process", "login")
    begun = client.post(f"/oidc/sso/login/?process={process}", sent)
    assert begun.status_code == 302, begun.content.decode()
    answered = requests.get(begun["Location"], allow_redirects=False, timeout=10)
    assert answered.status_code == 302
    back = urlsplit(answered.headers["Location"])
    assert back.path == CALLBACK
    return f"{back.path}?{back.query}"


def sign_in(client: Client, **sent: str) -> Any:
    return client.get(start(client, **sent))


def whoever_is_in(client: Client) -> str:
    key = client.session.get("_auth_user_id")
    return User.objects.get(pk=key).username if key else ""


def test_it_makes_an_account_that_is_in_no_project(provider: Provider, client: Client) -> None:
    campaign = make_campaign()
    response = sign_in(client, next="/account/")

    assert (response.status_code, response["Location"]) == (302, "/account/")
    olga = User.objects.get()
    assert (olga.username, olga.email, olga.get_full_name()) == (
        "olga",
        "olga@example.org",
        "Olga Ito",
    )
    assert not olga.has_usable_password()
    assert not olga.is_staff
    assert not Membership.objects.exists()
    assert whoever_is_in(client) == "olga"
    verbs = list(
        AuditEntry.objects.filter(actor=olga).order_by("pk").values_list("verb", flat=True)
    )
    assert verbs == [Verb.SIGN_UP, Verb.LOGIN]
    assert client.get(f"/campaigns/{campaign.pk}/").status_code == 404
    assert "You are in no project yet" in client.get("/account/").content.decode()


def test_it_knows_a_person_again_by_the_providers_id(provider: Provider, client: Client) -> None:
    sign_in(client)
    client.post("/logout/")
    provider.person |= {"preferred_username": "olga.ito", "email": "new@example.org"}
    sign_in(client)
    assert whoever_is_in(client) == "olga"
    assert User.objects.count() == 1


def test_it_gives_a_new_person_the_role_that_is_set(
    provider: Provider, client: Client, settings: Any
) -> None:
    settings.OIDC_DEFAULT_ROLE = "annotator"
    sign_in(client)
    membership = Membership.objects.get()
    assert (membership.user.username, membership.role) == ("olga", "annotator")
    assert AuditEntry.objects.filter(verb=Verb.MEMBER_ADDED, actor=None).count() == 1

    client.post("/logout/")
    membership.delete()
    sign_in(client)
    assert not Membership.objects.exists()  # who was removed stays removed


def test_it_does_not_hand_over_an_account_of_the_same_name_and_e_mail(
    provider: Provider, client: Client
) -> None:
    here = make_user("olga", email="olga@example.org", is_superuser=True)
    sign_in(client)
    assert User.objects.count() == 2
    assert whoever_is_in(client) not in ("", here.username)
    here.refresh_from_db()
    assert here.has_usable_password()


def test_it_connects_an_account_that_is_logged_in(provider: Provider, client: Client) -> None:
    make_user("anna")
    client.login(username="anna", password="secret")
    assert "Connect with Example ID" in client.get("/account/").content.decode()
    connected = sign_in(client, process="connect")
    assert connected["Location"] == "/account/"
    page = client.get("/account/").content.decode()
    assert "you can log in by it from now on" in page
    assert "Connected with Example ID" in page
    assert AuditEntry.objects.filter(verb=Verb.CONNECT, actor__username="anna").count() == 1

    client.post("/logout/")
    sign_in(client)
    assert whoever_is_in(client) == "anna"
    assert User.objects.count() == 1


def test_it_does_not_connect_what_belongs_to_somebody_else(
    provider: Provider, client: Client
) -> None:
    sign_in(client)
    other = Client()
    make_user("anna")
    other.login(username="anna", password="secret")
    sign_in(other, process="connect")
    assert "Somebody else here is connected" in other.get("/account/").content.decode()
    assert SocialAccount.objects.get().user.username == "olga"


@pytest.mark.parametrize(
    "fault",
    [
        {"signs_with": new_key()},
        {"claims": {"aud": "somebody else"}},
        {"claims": {"iss": "https://elsewhere.example"}},
        {"claims": {"exp": 1_000_000_000}},
        {"userinfo": {"sub": "provider|18"}},
        {"sends_id_token": False},
        {"userinfo": {"sub": None}, "claims": {"sub": ""}},
    ],
    ids=["signature", "audience", "issuer", "expired", "other person", "no id_token", "no one"],
)
def test_it_refuses_an_answer_that_cannot_be_trusted(
    provider: Provider, client: Client, fault: dict[str, Any]
) -> None:
    for name, value in fault.items():
        setattr(provider, name, value)
    response = sign_in(client)
    assert response.status_code == 401
    assert "You were not logged in" in response.content.decode()
    assert not User.objects.exists()
    assert whoever_is_in(client) == ""


def test_it_refuses_an_answer_it_did_not_ask_for(provider: Provider, client: Client) -> None:
    address = start(client)
    victim = Client()
    assert victim.get(address).status_code == 401
    assert client.get(address).status_code == 302
    assert client.get(address).status_code == 401  # nor one twice
    assert User.objects.count() == 1


def test_it_takes_a_no_for_an_answer(provider: Provider, client: Client) -> None:
    provider.refuses = True
    response = client.get(start(client), follow=True)
    assert "cancelled on the provider" in response.content.decode()
    assert not User.objects.exists()


def test_it_keeps_a_closed_account_out(provider: Provider, client: Client) -> None:
    sign_in(client)
    client.post("/logout/")
    User.objects.update(is_active=False)
    response = client.get(start(client), follow=True)
    assert response.status_code == 403
    assert "This account is closed" in response.content.decode()
    assert whoever_is_in(client) == ""


def test_it_leaves_only_by_a_button(provider: Provider, client: Client) -> None:
    page = client.get("/oidc/sso/login/")
    assert page.status_code == 200
    assert "Go on to Example ID?" in page.content.decode()
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/oidc/sso/login/").status_code == 403


def test_it_offers_the_button_and_lets_the_form_lead_there(
    provider: Provider, client: Client
) -> None:
    page = client.get("/login/?next=/label/")
    assert "Log in with Example ID" in page.content.decode()
    assert f"form-action 'self' {provider.url}" in page["Content-Security-Policy"]


def test_it_is_off_unless_it_is_set(client: Client) -> None:
    page = client.get("/login/")
    assert "Log in with" not in page.content.decode()
    assert page["Content-Security-Policy"].endswith("form-action 'self'")
    assert client.post("/oidc/sso/login/").status_code == 404
    assert client.get(f"{CALLBACK}?code=1&state=2").status_code == 404


@pytest.mark.parametrize("path", ["/accounts/signup/", "/accounts/login/", "/oidc/signup/"])
def test_it_has_no_other_doors(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_it_signs_in_by_the_button_in_a_browser(
    provider: Provider, live_server: Any, page: Any
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{live_server.url}/login/?next=/account/")
    page.get_by_role("button", name="Log in with Example ID").click()
    page.wait_for_url(f"{live_server.url}/account/")
    assert "olga" in page.inner_text("h1")
    assert complaints == []


# Settings ---------------------------------------------------------------------------------------

WHOLE = {
    "OIDC_SERVER_URL": "https://id.example/",
    "OIDC_CLIENT_ID": "oneloop",
    "OIDC_CLIENT_SECRET": "s",
}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OIDC_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_reads_the_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    program = "from config import settings as s; print(s.OIDC)"
    there = run(
        "-c",
        program,
        OIDC_SERVER_URL="https://id.example/",
        OIDC_CLIENT_ID="oneloop",
        OIDC_CLIENT_SECRET_FILE=str(tmp_path / "secret"),
        OIDC_NAME="Example ID",
    )
    assert there.stdout.strip() == str(
        {
            "server_url": "https://id.example",
            "client_id": "oneloop",
            "client_secret": "from a file",
            "name": "Example ID",
        }
    )
    gone = run("-c", program, OIDC_CLIENT_SECRET_FILE=str(tmp_path / "nothing"))
    assert "OIDC_CLIENT_SECRET_FILE=" in gone.stderr


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OIDC_CLIENT_ID": "x"}, "OIDC_SERVER_URL, OIDC_CLIENT_SECRET missing"),
        (WHOLE | {"OIDC_SERVER_URL": "http://id.example"}, "does not begin with https"),
        (WHOLE | {"OIDC_DEFAULT_ROLE": "boss"}, "'boss' is not a role"),
    ],
)
def test_it_explains_what_is_wrong_with_the_settings(
    environment: dict[str, str], says: str
) -> None:
    checked = run("manage.py", "check", "--tag", "security", **environment)
    assert checked.returncode != 0
    assert says in checked.stderr


def test_it_has_nothing_to_say_when_all_is_set() -> None:
    checked = run("manage.py", "check", "--tag", "security", **WHOLE, OIDC_DEFAULT_ROLE="viewer")
    assert checked.returncode == 0, checked.stderr
