"""What several rounds reached, measured on the same held-out sources and noise."""

import pytest
from django.test import Client

from generation.models import Policy, Role, Source, Split
from modeling import round_report
from modeling.models import Evaluation, EvaluationPair, Round
from modeling.round_steps import Name
from tests.factories import make_image, make_policy, make_source, make_user
from tests.modeling.test_pages import make_child, make_round
from tests.modeling.test_rounds import finish

pytestmark = pytest.mark.django_db
HELD_OUT: list[Source] = []
GOOD, BAD = {"structure": 1.0, "consistency": 1.0}, {"structure": 0.0, "consistency": 0.0}


def turn(parent: Policy, usable: tuple[int, int], *, promoted: bool, sources: int = 20) -> Round:
    """A finished round whose policies answered the first of the sources usably."""
    policy = make_child(parent, f"{parent.name}+{Policy.objects.count()}")
    round_ = make_round(parent_policy=parent, policy=policy, finished_at="2026-01-01T00:00Z")
    finish(round_, Name.PROMOTE, promoted=promoted)
    made = Evaluation.objects.create(kind="policy", policy=policy, parent_policy=parent)
    image = make_image()
    for number, source in enumerate(HELD_OUT[:sources]):
        scores = [GOOD if number < count else BAD for count in usable]
        EvaluationPair.objects.create(
            evaluation=made,
            source=source,
            seed=5,
            parent_image=image,
            image=image,
            scores={"parent": scores[0], "new": scores[1]},
        )
    return round_


@pytest.fixture(autouse=True)
def held_out(db: None) -> None:
    picture = make_image()
    HELD_OUT[:] = [make_source(split=Split.HOLDOUT, image=picture) for _ in range(20)]


def test_it_follows_the_active_policy_over_rounds() -> None:
    base = make_policy("base")
    first = turn(base, (8, 12), promoted=True)
    assert first.policy is not None
    second = turn(first.policy, (12, 10), promoted=False)
    third = turn(first.policy, (12, 16), promoted=True)
    without = make_round(parent_policy=third.policy, finished_at="2026-01-01T00:00Z")

    rows = round_report.usable_over_rounds([first, second, third, without])

    assert [row["round"] for row in rows] == [None, 1, 2, 3, 4]
    assert [row["policy"] for row in rows[:3]] == ["base", "base+1", "base+1"]
    assert [row["usable"] for row in rows] == pytest.approx([0.4, 0.6, 0.6, 0.8, 0.8])
    assert [row["new"] for row in rows] == pytest.approx([None, 0.6, 0.5, 0.8, None])
    assert [row["promoted"] for row in rows] == [False, True, False, True, False]
    assert [row["n"] for row in rows] == [20] * 5
    assert rows[3]["difference"] == pytest.approx(0.4)
    assert 0.15 < rows[3]["difference_low"] < 0.4 < rows[3]["difference_high"] < 0.65
    assert rows[3]["low"] < 0.8 < rows[3]["high"]


def test_it_compares_with_the_start_on_common_sources_alone() -> None:
    base = make_policy("base")
    first = turn(base, (5, 10), promoted=True, sources=10)
    assert first.policy is not None
    second = turn(first.policy, (20, 20), promoted=True)
    rows = round_report.usable_over_rounds([first, second])
    assert [row["n"] for row in rows] == [10, 20, 20]
    assert rows[-1]["difference"] == pytest.approx(0.5)
    assert round_report.usable_over_rounds([]) == []


def test_the_loops_page_says_whether_it_got_better(client: Client) -> None:
    base = make_policy("base")
    client.force_login(make_user(role=Role.VIEWER))
    make_round(parent_policy=base, finished_at="2026-01-01T00:00Z")
    assert "Did it get better?" not in client.get("/loop/").content.decode()
    turn(base, (8, 12), promoted=True)
    page = client.get("/loop/").content.decode()
    assert "Usable by ground truth: 40 % → 60 %" in page
    assert "round 2" in page
    assert "0.200" in page
    assert (
        "Did it get better?"
        not in client.get("/loop/2/", headers={"HX-Request": "true"}).content.decode()
    )
