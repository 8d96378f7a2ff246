"""Which answers leave."""

from datetime import date, datetime, timedelta

import pytest
from django.utils import timezone

from annotation.errors import DatasetError
from annotation.exports import USABLE, Selection
from annotation.models import Campaign, Judgment, Rating
from tests.annotation.factories import make_campaign, make_dimension, make_turn
from tests.factories import make_set, make_source, make_task, make_user


def said(**chosen: object) -> set[str]:
    rows = Selection(**chosen).judgments()  # type: ignore[arg-type]
    return set(rows.values_list("assignment__comment", flat=True))


@pytest.fixture
def world(db: None) -> Campaign:
    """Three people about one set on "text", of whom two agree; one about another, simulated."""
    task = make_task("paint")
    text = make_dimension("text", task=task)
    make_dimension("shape", task=task)
    people = make_campaign(task=task, name="People", overlap=3)
    item = people.items.get()
    for name, answer in (("anna", (0, 1)), ("ben", (0, 2)), ("cleo", (3, 2))):
        make_turn(item, make_user(name), {text: answer}, comment=name)
    other = make_task("erase")
    seam = make_dimension("seam", task=other)
    sets = [make_set(make_source(other, split="holdout"))]
    robots = make_campaign(task=other, sets=sets, name="Robots", simulated=True)
    turn = make_turn(robots.items.get(), make_user("robot"), {seam: (0, 1)}, comment="robot")
    Judgment.objects.filter(assignment=turn).update(created_at=timezone.now() - timedelta(days=3))
    return people


EVERYBODY = {"anna", "ben", "cleo", "robot"}


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, EVERYBODY),
        ({"campaigns": ["People"]}, EVERYBODY - {"robot"}),
        ({"tasks": ["erase"]}, {"robot"}),
        ({"dimensions": ["text", "shape"]}, EVERYBODY - {"robot"}),
        ({"dimensions": [USABLE]}, set()),
        ({"splits": ["holdout"]}, {"robot"}),
        ({"origins": ["people"]}, EVERYBODY - {"robot"}),
        ({"origins": ["simulated"]}, {"robot"}),
        ({"origins": ["people", "simulated"]}, EVERYBODY),
        ({"projects": ["main"]}, EVERYBODY),
        ({"min_agreement": 2 / 3}, EVERYBODY),
        ({"min_agreement": 0.67}, {"robot"}),
        ({"tasks": ["paint"], "splits": ["holdout"]}, set()),
    ],
)
def test_it_chooses(world: Campaign, chosen: dict[str, object], names: set[str]) -> None:
    assert said(**chosen) == names


def test_it_chooses_by_days_and_moments(world: Campaign) -> None:
    now, today = timezone.now(), timezone.localdate()
    assert said(since=today) == EVERYBODY - {"robot"}
    assert said(until=today - timedelta(days=1)) == {"robot"}
    assert said(until=today) == EVERYBODY
    assert said(since=now - timedelta(days=4), until=now - timedelta(days=2)) == {"robot"}
    assert said(since=datetime(2001, 1, 1), until=date(2001, 1, 2)) == set()


def test_it_chooses_campaigns_by_number_too(world: Campaign) -> None:
    assert said(campaigns=[str(world.pk)]) == EVERYBODY - {"robot"}


def test_answers_that_cannot_be_judged_neither_agree_nor_differ(world: Campaign) -> None:
    text = Judgment.objects.filter(dimension__slug="text")
    text.filter(assignment__comment="cleo").update(outcome="cannot_judge", best=None, worst=None)
    assert said(min_agreement=1) == EVERYBODY


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"campaigns": ["x"]}, "There is no campaign “x”. There are: “Robots”, “People”."),
        ({"tasks": ["paint", "x"]}, "There is no task “x”. There are: .*“erase”.*“paint”"),
        ({"dimensions": ["x"]}, "There is no dimension “x”. There are: .*“seam”"),
        ({"projects": ["x"]}, "There is no project “x”. There are: “main”."),
        ({"splits": ["x"]}, "There is no split “x”. There are: “train”, “holdout”."),
        ({"origins": ["x"]}, "There is no origin “x”. There are: “people”, “simulated”"),
        ({"min_agreement": 2}, "a share between 0 and 1, not 2"),
    ],
)
def test_it_says_what_there_is(world: Campaign, chosen: dict[str, object], sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        said(**chosen)


def test_it_chooses_ratings(db: None) -> None:
    task = make_task()
    dimension = make_dimension("text", task=task)
    campaign = make_campaign(task=task, purpose="rating", overlap=2)
    candidate = campaign.items.get().set.candidates.get(index=0)
    for values in ((1, 5), (1, 2)):
        turn = make_turn(campaign.items.get(), make_user())
        for about, value in zip((None, dimension), values, strict=True):
            Rating.objects.create(
                assignment=turn,
                set=turn.set,
                candidate=candidate,
                dimension=about,
                wording=about.wording if about else None,
                value=value,
            )
    assert Selection().ratings().count() == 4
    assert Selection(dimensions=["text"]).ratings().count() == 2
    assert Selection(dimensions=[USABLE]).ratings().count() == 2
    assert Selection(dimensions=["text", USABLE]).ratings().count() == 4
    usable = Selection(min_agreement=0.8).ratings()
    assert [(row.dimension, row.value) for row in usable] == [(None, 1), (None, 1)]
    assert Selection(splits=["holdout"]).ratings().count() == 0
    assert not Selection().judgments().exists()
