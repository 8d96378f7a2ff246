"""Webhooks: written with the event, signed, sent to real servers, sent again, kept out of private
networks, and managed by managers."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from annotation import completion
from annotation.campaigns import change_state
from annotation.models import Campaign
from generation import outside, webhooks
from generation.models import AuditEntry, Project, Role, Verb, default_project
from generation.ownership import JobState
from generation.webhook_rows import Delivery, Endpoint
from modeling import transitions
from modeling.transitions import State
from tests.annotation.factories import claim, make_campaign, submit
from tests.factories import make_run, make_user
from tests.modeling.test_pages import make_round

pytestmark = pytest.mark.django_db


class Receiver(HTTPServer):
    """Keeps what it was sent and answers with the codes it was given, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.codes: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({**self.headers, "path": self.path}, body))
        self.send_response(self.server.codes.pop(0) if self.server.codes else 200)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


HOOK = "https://example.org/hook"


def make_endpoint(url: str = HOOK, **fields: Any) -> Endpoint:
    values = {"project_id": default_project(), "topics": ["campaign", "round"], "url": url}
    return Endpoint.objects.create(**(values | fields))


def test_a_message_is_signed_and_delivered_once(receiver: Receiver) -> None:
    endpoint = make_endpoint(receiver.url)
    assert webhooks.send("round.step", {"round": 3, "name": "„Läufe“"}) == 1
    row = Delivery.objects.get()
    assert webhooks.deliver(row)
    assert not webhooks.deliver(Delivery.objects.get())
    assert (row.state, row.attempts, row.response_code) == ("delivered", 1, 200)
    [(headers, body)] = receiver.got
    assert headers["path"] == "/hook?x=1"
    assert headers["Host"] == f"127.0.0.1:{receiver.server_port}"
    said = json.loads(body)
    assert said["data"] == {"round": 3, "name": "„Läufe“"}
    assert (said["event"], said["project"]) == ("round.step", "main")
    assert said["id"] == headers["OneLoop-Id"] == str(row.key)
    # By hand, as a receiver does it.
    moment, _, signature = headers[webhooks.SIGNATURE].partition(",v1=")
    signed = moment.removeprefix("t=").encode() + b"." + body
    expected = hmac.new(endpoint.secret.encode(), signed, hashlib.sha256).hexdigest()
    assert signature == expected
    assert abs(int(moment.removeprefix("t=")) - timezone.now().timestamp()) < 10
    receives: dict[str, Any] = {}
    exec(webhooks.EXAMPLE, receives)
    assert receives["genuine"](headers[webhooks.SIGNATURE], body, endpoint.secret)
    assert not receives["genuine"](headers[webhooks.SIGNATURE], body + b" ", endpoint.secret)


def test_it_tells_those_who_listen_in_the_project() -> None:
    other = Project.objects.create(slug="elsewhere", name="Elsewhere")
    mine, theirs = make_endpoint(), make_endpoint(project_id=other.pk)
    make_endpoint("https://example.org/runs", topics=["run"])
    make_endpoint("https://example.org/paused", active=False)
    webhooks.send("campaign.opened", {}, project=mine.project)
    assert [row.endpoint for row in Delivery.objects.all()] == [mine]
    webhooks.send("round.started", {})  # rounds belong to no project
    assert {row.endpoint for row in Delivery.objects.filter(event="round.started")} == {
        mine,
        theirs,
    }
    with pytest.raises(ValueError, match="none of the topics"):
        webhooks.send("weather.changed", {})


def test_a_message_goes_with_its_transaction() -> None:
    make_endpoint()
    with transaction.atomic():
        webhooks.send("round.started", {})
        transaction.set_rollback(True)
    assert not Delivery.objects.exists()


def test_it_is_sent_again_later_and_later_and_then_given_up(receiver: Receiver) -> None:
    make_endpoint(receiver.url)
    webhooks.send("round.started", {})
    tries = len(webhooks.PAUSES) + 1
    receiver.codes = [503, 302] + [500] * (tries - 2)
    waits = []
    for attempt in range(1, tries + 1):
        row = Delivery.objects.get()
        before = timezone.now()
        assert webhooks.deliver(row)
        assert row.attempts == attempt
        waits.append(row.due_at - before)
        assert not webhooks.deliver(row), "not before its time"
        if attempt == 2:
            assert row.error == "Answered with 302: redirects are not followed."
        Delivery.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert (row.state, row.response_code, row.error) == ("failed", 500, "Answered with 500.")
    assert [round(wait.total_seconds(), -1) for wait in waits[:4]] == [10, 60, 300, 1800]
    assert len(receiver.got) == tries
    assert len({body for _, body in receiver.got}) == 1, "the same bytes at every attempt"
    webhooks.again(row)
    assert webhooks.deliver(Delivery.objects.get())
    assert Delivery.objects.get().state == "delivered"


def test_a_message_whose_worker_was_killed_is_due_again() -> None:
    make_endpoint()
    webhooks.send("round.started", {})
    row = Delivery.objects.get()
    assert row.claim(webhooks.LEASE)
    assert not Delivery.objects.due().exists()
    Delivery.objects.update(due_at=timezone.now())
    assert Delivery.objects.due().get().attempts == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.8",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
        "2130706433",  # 127.0.0.1 as one number
        "localhost",
    ],
)
def test_private_addresses_are_not_written_to(host: str) -> None:
    with pytest.raises(outside.OutsideError, match="private address"):
        outside.post(f"https://{host}/", b"{}", {})


def test_a_name_is_refused_for_any_private_address_it_has(monkeypatch: Any) -> None:
    """The name server's answers are the test's; the rule is not."""
    answers = ["93.184.216.34", "10.0.0.1"]
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in answers]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(outside.OutsideError, match="leads to the private address 10.0.0.1"):
        outside.address_of("example.org", 443)
    entries.pop()
    assert outside.address_of("example.org", 443) == "93.184.216.34"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.org/", "begin with https"),
        ("ftp://example.org/", "begin with https"),
        ("https:///x", "no web address"),
        ("https://me:secret@example.org/", "must not hold a password"),
        ("https://example.org:99999/", "no web address"),
        ("https://no-such-name.invalid/", "is not known"),
    ],
)
def test_it_says_what_is_wrong_with_an_address(url: str, says: str) -> None:
    with pytest.raises(outside.OutsideError, match=says):
        outside.post(url, b"{}", {})


def test_nobody_at_the_address_is_a_reason_to_try_again(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        make_endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        webhooks.send("round.started", {})
        row = Delivery.objects.get()
        assert webhooks.deliver(row)
    assert (row.state, row.response_code) == ("waiting", None)
    assert row.error.startswith("No answer: ")


class TestEvents:
    def test_a_campaign_tells_what_becomes_of_it(self) -> None:
        make_endpoint()
        campaign = make_campaign(sets=2)
        for state in (Campaign.State.PAUSED, Campaign.State.OPEN):
            change_state(campaign, state)
        assert completion.note() == 0
        user = make_user()
        for _ in range(2):
            submit(claim(user, campaign))
        assert (completion.note(), completion.note()) == (1, 0)
        change_state(campaign, Campaign.State.CLOSED)
        told = list(Delivery.objects.order_by("pk").values_list("event", flat=True))
        assert told == [
            "campaign.opened",
            "campaign.paused",
            "campaign.opened",
            "campaign.completed",
            "campaign.closed",
        ]
        said = json.loads(Delivery.objects.get(event="campaign.completed").body)["data"]
        assert (said["name"], said["sets"], said["state"]) == (campaign.name, 2, "open")

    def test_a_campaign_that_got_more_sets_may_be_completed_again(self) -> None:
        make_endpoint()
        campaign = make_campaign(sets=1, overlap=1)
        submit(claim(make_user(), campaign))
        assert completion.note() == 1
        campaign.items.update(full=False)
        assert completion.note() == 0
        campaign.refresh_from_db()
        assert campaign.completed_at is None

    def test_a_round_tells_its_steps_and_its_gates(self) -> None:
        make_endpoint(topics=["round", "gate"])
        round_ = make_round()
        transitions.record(round_, to=State.OPEN, reason="by hand")
        transitions.record(round_, step="label", to=State.WAITING)
        transitions.record(round_, step="gate_policy", to=State.SHUT, reason="not better")
        told = [json.loads(row.body) for row in Delivery.objects.order_by("pk")]
        assert [one["event"] for one in told] == ["round.open", "round.step", "gate.shut"]
        assert told[2]["data"] == {
            "round": round_.number,
            "step": "gate_policy",
            "from": "queued",
            "to": "shut",
            "reason": "not better",
        }

    def test_a_run_tells_its_end(self) -> None:
        make_endpoint(topics=["run"])
        for error in ("", "no memory"):
            run = make_run()
            assert run.claim()
            run.fail(error) if error else run.finish()
        make_run().cancel()
        events = Delivery.objects.order_by("pk").values_list("event", flat=True)
        assert list(events) == ["run.succeeded", "run.failed", "run.cancelled"]
        said = json.loads(Delivery.objects.get(event="run.failed").body)["data"]
        assert (said["kind"], said["state"], said["error"]) == (
            "generation",
            JobState.FAILED,
            "no memory",
        )


class TestPage:
    def test_a_manager_adds_an_endpoint_and_sees_its_secret_once(self, client: Client) -> None:
        client.force_login(make_user(role=Role.MANAGER))
        sent = {"url": "https://example.org/hook", "topics": ["run", "gate"]}
        made = client.post("/webhooks/", sent)
        endpoint = Endpoint.objects.get()
        assert (endpoint.topics, endpoint.project.slug) == (["run", "gate"], "main")
        assert endpoint.secret in made.content.decode()
        assert AuditEntry.objects.get(verb=Verb.WEBHOOK_MADE).detail["after"]["address"]
        page = client.get(f"/webhooks/{endpoint.pk}/").content.decode()
        assert endpoint.secret not in page
        changed = client.post(f"/webhooks/{endpoint.pk}/change/", {"do": "secret"})
        assert Endpoint.objects.get().secret != endpoint.secret
        assert Endpoint.objects.get().secret in changed.content.decode()
        assert client.post("/webhooks/", sent).status_code == 422
        for url in ("https://127.0.0.1/", "http://example.org/", "https://localhost/"):
            assert client.post("/webhooks/", {**sent, "url": url}).status_code == 422
        assert Endpoint.objects.count() == 1

    def test_the_log_shows_deliveries_and_sends_them_again(
        self, client: Client, receiver: Receiver
    ) -> None:
        endpoint = make_endpoint(receiver.url)
        client.force_login(make_user(role=Role.MANAGER))
        client.post(f"/webhooks/{endpoint.pk}/change/", {"do": "test"})
        receiver.codes = [410]
        webhooks.deliver(Delivery.objects.get())
        page = client.get(f"/webhooks/{endpoint.pk}/").content.decode()
        assert "Answered with 410." in page
        client.post(f"/webhooks/deliveries/{Delivery.objects.get().pk}/again/")
        webhooks.deliver(Delivery.objects.get())
        assert Delivery.objects.get().state == "delivered"
        client.post(f"/webhooks/{endpoint.pk}/change/", {"do": "pause"})
        assert webhooks.send("round.started", {}) == 0
        client.post(f"/webhooks/{endpoint.pk}/change/", {"do": "delete"})
        assert not Endpoint.objects.exists()
        assert AuditEntry.objects.filter(verb=Verb.WEBHOOK_CHANGED).count() == 2
