from itertools import combinations

import pytest

from annotation import preferences
from annotation.judgments import Answer
from annotation.models import Judgment
from tests.annotation.factories import claim, make_campaign, make_judged_task, slugs, submit
from tests.factories import make_picture, make_set, make_source, make_user

pytestmark = pytest.mark.django_db


def test_it_derives_five_of_the_six_relations_of_four_candidates() -> None:
    """Best 2 and worst 0 of four: 2>0 direct; 2>1, 2>3, 1>0, 3>0 implied; 1 and 3 stay open."""
    task = make_judged_task(1)
    turn = claim(make_user(), make_campaign(task=task))
    submit(turn, {slugs(turn)[0]: Answer("picked", 2, 0)})
    index = {c.image.sha256: c.index for c in turn.set.candidates.all() if c.image}
    found = list(preferences.derive(Judgment.objects.all()))
    pairs = {(index[p.chosen], index[p.rejected], p.relation, p.weight) for p in found}
    assert pairs == {
        (2, 0, "direct", 1.0),
        (2, 1, "implied", 0.5),
        (2, 3, "implied", 0.5),
        (1, 0, "implied", 0.5),
        (3, 0, "implied", 0.5),
    }
    source = turn.set.source
    assert {p.source for p in found} == {source.image.sha256}
    assert {p.mask for p in found} == {source.mask.sha256}
    assert {(p.task, p.dimension) for p in found} == {(task.slug, slugs(turn)[0])}
    assert {(p.prompt, p.split, p.annotator) for p in found} == {
        ("a red circle", "train", turn.annotator_id)
    }


@pytest.mark.parametrize(("size", "pairs"), [(2, 1), (3, 3), (8, 13)])
def test_it_derives_two_relations_per_further_candidate(size: int, pairs: int) -> None:
    task = make_judged_task(1)
    turn = claim(
        make_user(), make_campaign(task=task, sets=[make_set(make_source(task), size=size)])
    )
    submit(turn)
    assert len(list(preferences.derive(Judgment.objects.all()))) == pairs


def test_it_prefers_nothing_where_nothing_was_picked() -> None:
    turn = claim(make_user(), make_campaign())
    same, unsure = slugs(turn)
    submit(turn, {same: Answer("no_difference"), unsure: Answer("cannot_judge")})
    assert list(preferences.derive(Judgment.objects.all())) == []


def test_it_ties_every_pair_where_no_difference_was_found() -> None:
    task = make_judged_task(2)
    turn = claim(make_user(), make_campaign(task=task))
    same, unsure = slugs(turn)
    submit(turn, {same: Answer("no_difference"), unsure: Answer("cannot_judge")})
    shown = preferences.candidates_of({turn.set_id})[turn.set_id]
    ties = [
        tie
        for row in preferences.with_context(Judgment.objects.all())
        for tie in preferences.ties_of(row, shown)
    ]
    images = [candidate.image for candidate in shown]
    assert {(tie.first, tie.second) for tie in ties} == set(combinations(images, 2))
    assert {(tie.dimension, tie.weight, tie.annotator) for tie in ties} == {
        (same, 0.5, turn.annotator_id)
    }


def test_it_gives_the_task_s_fixed_prompt_where_it_has_one() -> None:
    task = make_judged_task(1, fixed_prompt="remove")
    submit(claim(make_user(), make_campaign(task=task)))
    assert {p.prompt for p in preferences.derive(Judgment.objects.all())} == {"remove"}


def test_it_leaves_out_pairs_of_identical_pictures() -> None:
    task = make_judged_task(1)
    twin, other = make_picture(), make_picture()
    made = make_set(make_source(task), size=3, pictures=[twin, twin, other])
    turn = claim(make_user(), make_campaign(task=task, sets=[made]))
    submit(turn, {slugs(turn)[0]: Answer("picked", 0, 2)})
    found = list(preferences.derive(Judgment.objects.all()))
    assert [p.relation for p in found] == ["direct", "implied"]
    assert all(p.chosen != p.rejected for p in found)
