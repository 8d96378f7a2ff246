"""What other tools let happen: duplicated, foreign and empty answers, and work that disappears.

Every probe goes through the addresses that a browser uses.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from annotation import judgments
from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Assignment, Judgment, Rating
from modeling.models import Round
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_judged_task,
    picks,
    slugs,
    submit,
)
from tests.config.test_permissions import ADMIN, TABLE, _filled, client_of, make_site
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db
State = Assignment.State
JSON = {"Accept": "application/json"}
ROLES_BELOW = ["annotator", "viewer"]
# Tokens, ids of submissions, "3 seconds ago" and the time of day; hashes of pictures, in
# hexadecimal, stay.
DRAWN = re.compile(
    r"\b(?![0-9a-f]{64}\b)[A-Za-z0-9]{64}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\d+\W\w+ ago"
    r"|\b\d\d:\d\d\b"
)
# Where what people made is kept.
KEPT = (
    *("/label/", "/campaigns/", "/join/", "/images/", "/sources/", "/projects/"),
    *("/account/tokens/", "/audit/", "/api/", "/loop/", "/policies/", "/reward-models/"),
)


@pytest.fixture(autouse=True)
def fresh_shares() -> None:
    cache.clear()


def payload(turn: Assignment, best: str = "1", worst: str = "2") -> dict[str, str]:
    said = {"submission": str(uuid.uuid4()), "seconds": "3"}
    for slug in slugs(turn):
        said |= {f"best-{slug}": best, f"worst-{slug}": worst}
    return said


def send(user: User, turn: Assignment, said: dict[str, str], **headers: str) -> Any:
    return client_of(user).post(f"/label/{turn.pk}/", said, headers=JSON | headers)


class TestTheSameAgain:
    def test_it_stores_a_payload_that_comes_three_times_once(self) -> None:
        turn = claim(user := make_user(), make_campaign())
        said = payload(turn)
        answers = [send(user, turn, said) for _ in range(3)]
        rows = Judgment.objects.values_list("dimension__slug", flat=True)
        assert Counter(rows) == Counter(slugs(turn))
        assert [answer.status_code for answer in answers] == [200] * 3

    def test_it_stores_a_rating_that_comes_three_times_once(self) -> None:
        campaign = make_campaign(purpose="rating")
        campaign.items.update(shown=[1])
        turn = claim(user := make_user(), campaign)
        said = {"form": "rating", "usable": "yes", "submission": str(uuid.uuid4())}
        said |= {f"score-{slug}": "4" for slug in slugs(turn)}
        answers = [send(user, turn, said) for _ in range(3)]
        rows = Rating.objects.values_list("dimension__slug", flat=True)
        assert Counter(rows) == Counter([None, *slugs(turn)])
        assert [answer.status_code for answer in answers] == [200] * 3

    def test_it_keeps_the_first_answers_when_the_same_id_brings_others(self) -> None:
        turn = claim(user := make_user(), make_campaign())
        first = payload(turn)
        send(user, turn, first)
        stored = list(Judgment.objects.order_by("pk").values())
        again = send(user, turn, first | {f"best-{slugs(turn)[0]}": "3"})
        assert list(Judgment.objects.order_by("pk").values()) == stored
        assert (again.status_code, again.json()["code"]) == (409, "stale")


class TestAFullItem:
    def test_it_gives_a_full_item_to_nobody_else(self) -> None:
        campaign = make_campaign(overlap=2)
        for _ in range(2):
            submit(claim(make_user(), campaign))
        third = client_of(make_user())
        text = third.get(f"/label/campaign/{campaign.pk}/").content.decode()
        ahead = third.post(f"/label/campaign/{campaign.pk}/ahead/", headers=JSON).json()
        assert Assignment.objects.count() == 2
        assert "Every set has all its judgments." in text
        assert ahead["sets"] == []

    def test_it_takes_nothing_from_a_second_person(self) -> None:
        turn = claim(make_user(), make_campaign())
        other = make_user()
        for answered in (False, True):
            if answered:
                submit(turn)
            before = list(Judgment.objects.values())
            answer = send(other, turn, payload(turn))
            assert list(Judgment.objects.values()) == before
            assert (answer.status_code, answer.json()["code"]) == (403, "foreign")

    def test_it_does_not_count_what_comes_after_the_slot_has_gone(self) -> None:
        campaign = make_campaign()
        slow, quick = make_user(), make_user()
        lost = claim(slow, campaign)
        Assignment.objects.update(lease_until="2020-01-01T00:00Z")
        submit(claim(quick, campaign))
        assert send(slow, lost, payload(lost)).status_code == 200
        lost.refresh_from_db()
        assert lost.state == State.LATE  # kept, beside the overlap
        counted = Judgment.objects.counted().values_list("assignment__annotator", flat=True)
        assert set(counted) == {quick.pk}


class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"best-nobody-asked": "1", "worst-nobody-asked": "2"}, "is not asked about this set"),
            ({"best": "9"}, "Choose among 1 to 4"),
            ({"worst": "0"}, "Choose among 1 to 4"),
            ({"best": "-1"}, "There is no candidate"),
            ({"best": "1; DROP TABLE"}, "There is no candidate"),
            ({"best": "2", "worst": "2"}, "same candidate is best and worst"),
            ({"best": "", "worst": ""}, "needs an answer"),
            ({"best": "perhaps"}, "There is no candidate"),
        ],
    )
    def test_it_refuses_them_and_stores_nothing(self, changes: dict[str, str], says: str) -> None:
        turn = claim(user := make_user(), make_campaign())
        first = slugs(turn)[0]
        named = {"best": f"best-{first}", "worst": f"worst-{first}"}
        said = payload(turn) | {named.get(key, key): value for key, value in changes.items()}
        answer = send(user, turn, said)
        assert not Judgment.objects.exists()
        turn.refresh_from_db()
        assert (turn.state, turn.submission) == (State.OPEN, None)
        assert answer.status_code == 422
        assert says in answer.json()["error"]

    def test_it_refuses_an_empty_judgment(self) -> None:
        turn = claim(user := make_user(), make_campaign())
        answer = send(user, turn, {})
        assert not Judgment.objects.exists()
        turn.refresh_from_db()
        assert turn.state == State.OPEN
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")

    @pytest.mark.parametrize(
        "said", [{}, {"usable": "yes"}, {"usable": "yes", "score-nobody-asked": "3"}]
    )
    def test_it_refuses_empty_and_foreign_ratings(self, said: dict[str, str]) -> None:
        campaign = make_campaign(purpose="rating")
        campaign.items.update(shown=[1])
        turn = claim(user := make_user(), campaign)
        answer = send(user, turn, {"form": "rating"} | said)
        assert not Rating.objects.exists()
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")

    def test_it_refuses_a_candidate_of_another_set(self) -> None:
        task = make_judged_task()
        small, large = (make_set(make_source(task), size=size) for size in (3, 8))
        turn = claim(user := make_user(), make_campaign(task=task, sets=[small]))
        assert large.candidates.filter(index=5).exists()
        for answer in (Answer("picked", 5, 0), Answer("picked", 0, 5)):
            with pytest.raises(Refused, match="no such candidate"):
                judgments.record(
                    assignment=turn, user=user, answers=dict.fromkeys(slugs(turn), answer)
                )
        assert not Judgment.objects.exists()

    def test_it_refuses_a_candidate_that_the_item_does_not_show(self) -> None:
        campaign = make_campaign()
        campaign.items.update(shown=[0, 1])
        turn = claim(user := make_user(), campaign)
        with pytest.raises(Refused, match="no such candidate"):
            judgments.record(assignment=turn, user=user, answers=picks(turn, best=2, worst=0))
        assert not Judgment.objects.exists()


class TestOtherPeople:
    @pytest.mark.parametrize("role", ["annotator", pytest.param("viewer", marks=pytest.mark.long)])
    def test_it_shows_nobody_what_others_said(self, role: str) -> None:
        """Whatever is asked, as page or as file: it reads the same whichever way they answered."""
        site = make_site()
        Round.objects.update(created_at=timezone.now() - timedelta(days=3))  # “3 days ago”
        campaign = make_campaign(overlap=2, sets=2)
        author = make_user()
        turn = claim(author, campaign)
        submit(turn, picks(turn, best=1, worst=3))
        watched = site | {"campaign": campaign.pk, "item": turn.item_id, "turn": turn.pk}
        watched |= {"worker": author.pk, "practised": turn.pk}
        reader = client_of(make_user(role=role))
        self.everything(reader, watched)  # the queue hands the reader a turn of their own
        before = self.everything(reader, watched)
        submit(turn, picks(turn, best=2, worst=0))
        after = self.everything(reader, watched)
        assert Judgment.objects.current().filter(best__index=2).count() == len(slugs(turn))
        assert [path for path in before if before[path] != after[path]] == []
        assert sum(text != "" for text in after.values()) > 5
        assert f"/label/{turn.pk}/" not in "".join(after.values())

    def everything(self, reader: Client, site: dict[str, Any]) -> dict[str, str]:
        """The text at each address that may be read, without what is drawn anew each time."""
        found = {}
        for row in TABLE.values():
            for query in ("", "?format=csv"):
                # The last one signs anew each time.
                if row.path in ("/logout/", "/readyz", "/api/v1/images/{picture}/link"):
                    continue
                response = reader.get(row.path.format(**site) + query)
                # A response that is streamed has no content, but parts.
                text = b"".join(response).decode(errors="replace")
                text = DRAWN.sub("", text)
                found[row.path + query] = text if response.status_code == 200 else ""
        return found

    def test_it_refuses_every_way_into_another_persons_turn(self) -> None:
        turn = claim(make_user(), make_campaign())
        submit(turn)
        other = client_of(make_user())
        codes = {
            "page": other.get(f"/label/{turn.pk}/").status_code,
            "skip": other.post(f"/label/{turn.pk}/skip/").status_code,
            "flag": other.post(f"/label/{turn.pk}/flag/", {"reason": "x"}).status_code,
            "feedback": other.get(f"/label/{turn.pk}/feedback/").status_code,
        }
        assert codes == {"page": 403, "skip": 403, "flag": 403, "feedback": 404}
        history = other.get("/label/history/").content.decode()
        assert f"/label/{turn.pk}/" not in history

    def test_it_undoes_only_own_turns(self) -> None:
        campaign = make_campaign(overlap=2)
        submit(claim(make_user(), campaign))
        answer = client_of(make_user()).post(f"/label/campaign/{campaign.pk}/undo/", headers=JSON)
        assert Judgment.objects.current().count() == 2
        assert answer.status_code == 409


class TestDeleting:
    # A session may be forgotten when it has run out.
    OWN_TO_LOSE = {Session}

    def rows(self) -> dict[Any, set[Any]]:
        models = set(apps.get_models()) - self.OWN_TO_LOSE
        return {model: set(model._default_manager.values_list("pk", flat=True)) for model in models}

    def gone(self, before: dict[Any, set[Any]]) -> dict[str, set[Any]]:
        now = self.rows()
        return {str(model): left for model, keys in before.items() if (left := keys - now[model])}

    @pytest.mark.parametrize("role", ROLES_BELOW)
    def test_it_lets_an_annotator_delete_nothing(self, role: str) -> None:
        site = make_site()
        user = site["people"][role]
        turn = Assignment.objects.get(pk=site["turn"])
        if role == "annotator":
            submit(turn)
        words = {"verb": "delete", "action": "delete_selected", "post": "yes", "delete": "yes"}
        client = client_of(user)
        before = self.rows()
        for row in TABLE.values():
            for method in ("post", "put", "patch", "delete"):
                if row.path.startswith("/log"):
                    continue
                getattr(client, method)(row.path.format(**site), words)
        for route in ADMIN:
            client.post(f"/{_filled(route)}", words)
        assert self.gone(before) == {}

    def test_it_knows_no_verb_that_changes_or_deletes(self) -> None:
        """PUT, PATCH and DELETE are refused wherever anything but an own password is kept."""
        site = make_site()
        client = client_of(site["people"]["annotator"])
        found = {}
        for row in TABLE.values():
            if row.path.startswith(KEPT):
                for method in ("put", "patch", "delete"):
                    code = getattr(client, method)(row.path.format(**site)).status_code
                    if code not in (403, 404, 405):
                        found[f"{method} {row.path}"] = code
        assert found == {}

    def test_the_admin_is_closed_to_annotators(self) -> None:
        client = client_of(make_user())
        for path in ("/admin/", "/admin/annotation/judgment/", "/admin/annotation/item/1/delete/"):
            response = client.get(path)
            assert response.status_code == 302
            assert re.match(r"/admin/login/|/login/", response.headers["Location"])
