"""The API of what is made: pages, parameters, problems, and writes that are done once."""

from __future__ import annotations

import base64
import io
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.utils import timezone
from PIL import Image as Pillow

from annotation.withdrawals import withdraw
from generation import idempotency, tokens
from generation.models import (
    AuditEntry,
    GenerationRun,
    IdempotencyKey,
    Membership,
    Project,
    Role,
    Source,
    Task,
    Verb,
)
from tests.factories import (
    make_mask_picture,
    make_picture,
    make_plan,
    make_policy,
    make_run,
    make_set,
    make_source,
    make_task,
    make_user,
)

pytestmark = pytest.mark.django_db
URL = "/api/v1/"


def caller(user: User, *scopes: str) -> Client:
    _, secret = tokens.make(user=user, name="script", scopes=scopes or ("read", "manage"))
    return Client(headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture
def manager(db: None) -> Client:
    return caller(make_user("max", role=Role.MANAGER))


def numbers(client: Client, address: str) -> list[int]:
    return [row["id"] for row in client.get(address).json()["results"]]


def sent(picture: Pillow.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def post(client: Client, path: str, body: Any, **headers: str) -> Any:
    return client.post(URL + path, body, content_type="application/json", headers=headers)


class TestPages:
    def test_they_lead_through_all_rows_and_back(self, manager: Client) -> None:
        task = make_task()
        made = [make_source(task).pk for _ in range(5)]
        for order, rows in (("newest", made[::-1]), ("oldest", made)):
            address: str | None = f"{URL}sources?page_size=2&order={order}&task={task.slug}"
            seen, pages = [], []
            while address is not None:
                page = manager.get(address).json()
                pages.append([row["id"] for row in page["results"]])
                seen += pages[-1]
                address, before = page["next"], page["previous"]
            assert seen == rows
            assert numbers(manager, before) == pages[1]
            assert manager.get(before).json()["previous"] is not None
        assert manager.get(f"{URL}sources?page_size=2").json()["previous"] is None

    def test_a_row_that_came_meanwhile_shifts_nothing(self, manager: Client) -> None:
        task = make_task()
        first, second, third = (make_source(task).pk for _ in range(3))
        page = manager.get(f"{URL}sources?page_size=2").json()
        assert [row["id"] for row in page["results"]] == [third, second]
        make_source(task)
        assert numbers(manager, page["next"]) == [first]

    def test_it_asks_the_same_few_questions_for_many_rows(
        self, manager: Client, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(3):
            make_set(run=make_run())
        for path in ("sources", "candidate-sets", "generations", "policies", "sampling-plans"):
            with django_assert_max_num_queries(8):
                assert manager.get(URL + path).status_code == 200


class TestParameters:
    def test_they_choose_rows(self, manager: Client) -> None:
        one = make_source(prompt="a red lantern", tags={"album": "garden"}, external_id="7")
        other = make_source(one.task, split="holdout")
        assert numbers(manager, f"{URL}sources?split=holdout") == [other.pk]
        assert numbers(manager, f"{URL}sources?tag=album=garden") == [one.pk]
        assert numbers(manager, f"{URL}sources?q=LANTERN&external_id=7") == [one.pk]
        assert numbers(manager, f"{URL}sources?task=none-such") == []
        later = (timezone.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert numbers(manager, f"{URL}sources?until={later}") == [other.pk, one.pk]
        assert numbers(manager, f"{URL}sources?since={later}") == []
        withdraw(user=make_user(), reason="rights", source=one)
        assert numbers(manager, f"{URL}sources?withdrawn=true") == [one.pk]
        assert manager.get(f"{URL}withdrawals").json()["results"][0]["reason"] == "rights"

    @pytest.mark.parametrize(
        ("query", "name", "says"),
        [
            ("tsak=fill", "tsak", "is no parameter here. There are: project, task"),
            ("since=yesterday", "since", "format"),
            ("task=fill&task=extend", "task", "twice"),
            ("page_size=501", "page_size", "from 1 to 500"),
            ("cursor=Y3Vyc29y", "cursor", "none of this list"),
            ("split=%00", "split", "not a valid choice"),
            ("q=%00", "q", "Null"),
            ("withdrawn=yes", "withdrawn", "not a valid choice"),
        ],
    )
    def test_a_wrong_one_is_named(self, manager: Client, query: str, name: str, says: str) -> None:
        response = manager.get(f"{URL}sources?{query}")
        assert response.status_code == 400
        assert says in response.json()["errors"][name][0]


class TestProblems:
    def test_every_error_is_one(self, manager: Client) -> None:
        stranger = caller(make_user(role=None))
        made = make_source()
        reader = caller(make_user(role=Role.MANAGER), "read")
        found = {
            401: Client().get(f"{URL}sources"),
            403: post(reader, "sources", {}),
            404: stranger.get(f"{URL}sources/{made.pk}"),
            405: manager.generic("PUT", f"{URL}sources"),
            406: manager.get(f"{URL}sources", headers={"Accept": "text/html"}),
            400: manager.post(f"{URL}sources", "{", content_type="application/json"),
            415: manager.post(f"{URL}generations", "a", content_type="text/plain"),
            422: post(manager, "sources", {"task": "fill", "sources": []}),
        }
        for status, response in found.items():
            said = response.json()
            assert response.status_code == status == said["status"], said
            assert response["Content-Type"] == "application/problem+json"
            assert said["type"].startswith("urn:oneloop:problem:")
            assert said["title"]
            assert said["detail"]
        assert found[422].json()["errors"] == {
            "sources": ["Ensure this field has at least 1 elements."]
        }
        assert found[405]["Allow"] == "GET, HEAD, POST"
        unknown = manager.get(f"{URL}none-such")
        assert (unknown.status_code, unknown.json()["status"]) == (404, 404)
        # A browser's session is asked for more than its cookie.
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(make_user(role=Role.MANAGER))
        refused = post(browser, "sources", {})
        assert (refused.status_code, "CSRF" in refused.json()["detail"]) == (403, True)

    def test_what_cannot_be_read_is_refused(self, manager: Client) -> None:
        deep = manager.post(f"{URL}sources", "[" * 100_000, content_type="application/json")
        assert (deep.status_code, deep.json()["detail"]) == (400, "This is nested too deeply.")
        large = manager.post(
            f"{URL}sources", "{}", content_type="application/json", CONTENT_LENGTH=str(2**30)
        )
        assert (large.status_code, "64 MiB" in large.json()["detail"]) == (413, True)

    def test_a_superuser_reads_everywhere_but_what_is_not_there(self) -> None:
        root = caller(make_user(role=None, is_superuser=True))
        body = {"project": "none-such", "task": "fill", "sources": [{"prompt": "a hat"}]}
        assert post(root, "sources", body).status_code == 404

    def test_whoever_asks_too_often_is_told_when_again(
        self, manager: Client, settings: Any
    ) -> None:
        settings.API_REQUESTS_PER_MINUTE = 2
        cache.clear()
        codes = [manager.get(f"{URL}tasks").status_code for _ in range(3)]
        last = manager.get(f"{URL}tasks")
        assert codes == [200, 200, 429]
        assert 1 <= int(last["Retry-After"]) <= 60
        assert last["Content-Type"] == "application/problem+json"
        cache.clear()


class TestSources:
    def body(self, *seeds: int, **more: Any) -> dict[str, Any]:
        mask = sent(make_mask_picture())
        rows = [
            {"image": sent(make_picture(seed)), "mask": mask, "prompt": "a hat"} for seed in seeds
        ]
        return {"task": "fill", "sources": rows, **more}

    def test_good_rows_land_and_the_report_says_why_others_did_not(self, manager: Client) -> None:
        body = self.body(1, 2, 3, tags={"album": "garden"})
        body["sources"][1]["image"] = "no picture"
        body["sources"][2]["task"] = "none-such"
        response = post(manager, "sources", body)
        assert response.status_code == 201, response.content
        stored = Source.objects.get()
        assert (stored.prompt, stored.tags) == ("a hat", {"album": "garden"})
        said = response.json()
        assert (said["rows"], said["created"], said["existing"]) == (3, 1, 0)
        assert said["sources"] == [stored.pk, None, None]
        assert [(one["row"], one["reason"][:10]) for one in said["refused"]] == [
            (1, "Upload a f"),
            (2, "task: give"),
        ]
        assert AuditEntry.objects.get(verb=Verb.SOURCE_ADDED).object_id == str(stored.pk)
        again = post(manager, "sources", self.body(1))
        assert (again.status_code, again.json()["existing"]) == (200, 1)

    def test_a_form_holds_one_with_files(self, manager: Client) -> None:
        files = {
            name: SimpleUploadedFile(f"{name}.png", base64.b64decode(sent(picture)), "image/png")
            for name, picture in (("image", make_picture(1)), ("mask", make_mask_picture()))
        }
        response = manager.post(f"{URL}sources", {"task": "fill", "prompt": "a hat", **files})
        assert response.status_code == 201, response.content
        assert Source.objects.get().prompt == "a hat"

    def test_where_none_can_be_taken_it_is_refused(self, manager: Client) -> None:
        body = self.body(1)
        body["sources"][0]["prompt"] = ""
        response = post(manager, "sources", body)
        assert response.status_code == 422
        assert "needs a prompt" in response.json()["errors"]["sources.0"][0]
        body["sources"][0]["promt"] = "a hat"
        response = post(manager, "sources", body)
        assert "is not known here" in response.json()["errors"]["sources.0.promt"][0]

    def test_only_managers_of_the_project_add_to_it(self, manager: Client) -> None:
        elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
        assert post(manager, "sources", self.body(1, project="elsewhere")).status_code == 404
        viewer = User.objects.get(username="max")
        Membership.objects.create(project=elsewhere, user=viewer, role=Role.VIEWER)
        assert post(manager, "sources", self.body(1, project="elsewhere")).status_code == 403
        assert not Source.objects.exists()


class TestGenerations:
    def test_sets_are_ordered_of_the_projects_own_sources(self, manager: Client) -> None:
        task = Task.objects.get(slug="fill")
        make_plan(task)
        policy = make_policy("tiny", state="active")
        made = make_source(task)
        elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
        make_source(task, project=elsewhere)
        response = post(manager, "generations", {"task": "fill", "sets": 3, "seed": 5})
        assert response.status_code == 202, response.content
        run = GenerationRun.objects.get()
        assert (run.policy, run.seed, run.sets.count()) == (policy, 5, 3)
        assert {one.source for one in run.sets.all()} == {made}
        assert manager.get(response["Location"]).json()["sets"] == 3
        entry = AuditEntry.objects.get(verb=Verb.SETS_ORDERED)
        assert (entry.object_id, entry.project) == (str(run.pk), made.project)
        chosen = post(manager, "generations", {"sources": [made.pk, made.pk], "policy": "tiny"})
        assert chosen.json()["sets"] == 2

    def test_it_says_what_is_missing(self, manager: Client) -> None:
        for body, says in (
            ({}, "Give a task"),
            ({"task": "fill"}, "No policy is active"),
            ({"sources": [999]}, "No policy is active"),
            ({"task": "fill", "sets": True}, "sets: "),
        ):
            response = post(manager, "generations", body)
            assert response.status_code == 422
            assert says in response.json()["detail"]
        make_policy(state="active")
        assert (
            "there is no 999" in post(manager, "generations", {"sources": [999]}).json()["detail"]
        )


class TestOnce:
    KEY = {"Idempotency-Key": "a"}

    def test_a_request_sent_again_is_answered_from_what_is_stored(self, manager: Client) -> None:
        body = TestSources().body(1)
        first = post(manager, "sources", body, **self.KEY)
        second = post(manager, "sources", body, **self.KEY)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert second["Idempotency-Replayed"] == "true"
        assert AuditEntry.objects.filter(verb=Verb.SOURCE_ADDED).count() == 1
        other = post(manager, "sources", TestSources().body(2), **self.KEY)
        assert (other.status_code, Source.objects.count()) == (422, 1)
        # Everybody has keys of their own.
        another = caller(make_user(role=Role.MANAGER))
        assert "Idempotency-Replayed" not in post(another, "sources", body, **self.KEY)

    def test_a_refusal_is_not_stored(self, manager: Client) -> None:
        assert post(manager, "sources", {"sources": []}, **self.KEY).status_code == 422
        assert post(manager, "sources", TestSources().body(1), **self.KEY).status_code == 201

    def test_it_is_forgotten_after_a_day(self, manager: Client) -> None:
        body = TestSources().body(1)
        post(manager, "sources", body, **self.KEY)
        IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
        again = post(manager, "sources", body, **self.KEY)
        assert (again.status_code, again.json()["existing"]) == (200, 1)
        IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
        idempotency.forget_old()
        assert not IdempotencyKey.objects.exists()

    def test_a_key_is_short_and_visible(self, manager: Client) -> None:
        response = post(manager, "sources", {}, **{"Idempotency-Key": "a b"})
        assert response.status_code == 422

    @pytest.mark.django_db(transaction=True)
    def test_one_that_is_being_done_is_not_done_beside(self) -> None:
        user = make_user("max", role=Role.MANAGER)
        client, held, done = caller(user), threading.Event(), threading.Event()

        def hold() -> None:
            from django.db import transaction

            with transaction.atomic():
                idempotency._lock(user.pk, "a")
                held.set()
                done.wait(10)
            connection.close()

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        response = post(client, "sources", TestSources().body(1), **self.KEY)
        done.set()
        thread.join()
        assert (response.status_code, response["Retry-After"]) == (409, "1")
        assert response.json()["type"].endswith(":in-progress")
        assert not Source.objects.exists()


def test_a_token_reads_only_with_its_scope(db: None) -> None:
    client = caller(make_user(), "label")
    refused = client.get(f"{URL}tasks")
    assert (refused.status_code, "lacks the scope “read”" in refused.json()["detail"]) == (
        403,
        True,
    )


def test_pictures_come_to_whoever_accepts_pictures(manager: Client) -> None:
    image = make_source().image
    for accept in ("image/png", "*/*"):
        response = manager.get(f"{URL}images/{image.sha256}.png", headers={"Accept": accept})
        assert response["Content-Type"] == "image/png"
