"""Reviews and when they are due, wordings over time, and the page that leads to both."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from annotation.agreement import Estimate
from annotation.models import Judgment, Wording
from generation.models import AuditEntry, Project, Role, Source, Verb
from modeling import governance_review, governance_wordings
from modeling.governance_wordings import ADDED, REMOVED, SAME, diff
from modeling.models import Review, ReviewPlan, Round
from tests.annotation.factories import make_campaign, make_judged_task, make_turn
from tests.factories import make_user
from tests.modeling.test_pages import make_round

DUE = "A governance review is due since"


@pytest.mark.django_db
def test_it_reminds_managers_until_somebody_reviews(client: Client) -> None:
    manager, viewer = make_user(role=Role.MANAGER), make_user(role=Role.VIEWER)
    client.force_login(manager)
    assert DUE not in client.get("/").content.decode()
    make_round()
    Round.objects.update(created_at=timezone.now() - timedelta(days=91))
    assert DUE in client.get("/").content.decode()
    response = client.post("/governance/reviewed/", {"note": " All groups are alike. "})
    assert response.status_code == 302
    review = Review.objects.get()
    assert (review.by, review.note) == (manager, "All groups are alike.")
    entry = AuditEntry.objects.get(verb=Verb.REVIEWED)
    assert (entry.actor, entry.detail["after"]) == (manager, {"note": "All groups are alike."})
    assert DUE not in client.get("/").content.decode()
    assert "All groups are alike." in client.get("/governance/").content.decode()

    Review.objects.update(at=timezone.now() - timedelta(days=91))
    assert DUE in client.get("/").content.decode()
    ReviewPlan.objects.create(every_days=100)
    assert DUE not in client.get("/").content.decode()
    ReviewPlan.objects.update(every_days=0)
    assert governance_review.status().due_at is None
    ReviewPlan.objects.update(every_days=1)
    client.force_login(viewer)
    assert DUE not in client.get("/").content.decode()
    assert "Reviewed</button>" not in client.get("/governance/").content.decode()


@pytest.mark.django_db
def test_a_review_says_something_and_there_is_one_plan(client: Client) -> None:
    client.force_login(make_user(role=Role.MANAGER))
    response = client.post("/governance/reviewed/", {"note": "  "}, follow=True)
    assert "Say in a sentence what you looked at" in response.content.decode()
    assert not Review.objects.exists()
    ReviewPlan.objects.create()
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewPlan.objects.create()


def test_it_compares_texts_word_by_word() -> None:
    assert diff("Which is best?", "Which looks best?") == [
        (SAME, "Which "),
        (REMOVED, "is"),
        (ADDED, "looks"),
        (SAME, " best?"),
    ]
    # Chinese has no blanks: every character counts.
    assert diff("哪张最好", "哪张更好") == [
        (SAME, "哪张"),
        (REMOVED, "最"),
        (ADDED, "更"),
        (SAME, "好"),
    ]
    for before, after in (("", "a b"), ("a-b, c\n\nd", "a b c"), ("x", "x")):
        pieces = diff(before, after)
        assert "".join(text for kind, text in pieces if kind != ADDED) == before
        assert "".join(text for kind, text in pieces if kind != REMOVED) == after


def test_the_difference_of_two_estimates_has_the_interval_of_mover() -> None:
    """.8 (.7 … .85) after .6 (.5 … .7): .2, down √(.1² + .1²) = .1414, up √(.05² + .1²) = .1118."""
    found = governance_wordings.difference(
        Estimate(0.6, 0.5, 0.7, 40), Estimate(0.8, 0.7, 0.85, 30)
    )
    assert found is not None
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - 0.1414, abs=1e-4)
    assert found.high == pytest.approx(0.2 + 0.1118, abs=1e-4)
    assert found.n == 30


@pytest.mark.django_db
def test_it_tells_versions_of_a_wording_apart(client: Client) -> None:
    """Under the first wording two people never agree, under the second always."""
    task = make_judged_task(1)
    dimension = task.dimensions.get()
    items = list(make_campaign(task=task, sets=6, overlap=2).items.order_by("pk"))
    anna, ben = make_user("anna"), make_user("ben")
    for item in items[:3]:
        make_turn(item, anna, {dimension: (0, 3)})
        make_turn(item, ben, {dimension: (1, 2)})
    new = Wording.objects.create(
        dimension=dimension, version=2, question="Which is whole?", query="Is the first whole?"
    )
    dimension = task.dimensions.get()
    for item in items[3:]:
        for user in (anna, ben):
            make_turn(item, user, {dimension: (0, 3)})
    assert Judgment.objects.filter(wording=new).count() == 6
    first, second = governance_wordings.versions(dimension, Project.objects.all())
    assert (first.judgments, second.judgments) == (6, 6)
    assert (first.pairwise.value, second.pairwise.value) == (0, 1)
    assert first.change is None
    assert second.change is not None
    assert second.change.value == 1

    client.force_login(make_user(role=Role.VIEWER))
    address = f"/governance/wordings/{dimension.slug}/"
    html = client.get(address).content.decode()
    assert "<ins>" in html
    assert "people agree more" in html
    Source.objects.update(project=Project.objects.create(slug="elsewhere", name="Elsewhere"))
    first, second = governance_wordings.versions(dimension, Project.objects.filter(slug="main"))
    assert (first.judgments, second.judgments) == (0, 0)
    assert "people agree more" not in client.get(address).content.decode()
    assert client.get("/governance/wordings/nothing/").status_code == 404
