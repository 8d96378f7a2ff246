import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotation import campaigns, comparisons, contents
from annotation.errors import Refused
from annotation.models import Campaign
from generation.models import (
    Candidate,
    CandidateSet,
    Policy,
    Project,
    Source,
    Task,
    default_project,
)
from tests.annotation.factories import claim, make_dimension, make_judged_task, submit
from tests.factories import make_policy, make_set, make_source, make_task, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    return make_judged_task(1)


@pytest.fixture
def a() -> Policy:
    return make_policy("ours")


@pytest.fixture
def b() -> Policy:
    return Policy.objects.create(name="theirs", kind=Policy.Kind.EXTERNAL)


def seeds(candidate_set: CandidateSet, *values: int) -> None:
    for index, seed in enumerate(values):
        candidate_set.candidates.filter(index=index).update(seed=seed)


def both(task: Task, a: Policy, b: Policy) -> tuple[Source, CandidateSet, CandidateSet]:
    source = make_source(task)
    return source, make_set(source, policy=a, size=2), make_set(source, policy=b, size=3)


def pair_up(a: Policy, b: Policy, task: Task) -> list[campaigns.Entry]:
    return comparisons.pair_up(a=a, b=b, tasks=[task], project=default_project())


class TestPairUp:
    def test_it_copies_the_logged_rows_made_from_the_same_noise(
        self, task: Task, a: Policy, b: Policy
    ) -> None:
        source, ours, theirs = both(task, a, b)
        seeds(ours, 5, 6)
        seeds(theirs, 7, 8, 6)
        [entry] = pair_up(a, b, task)
        made = CandidateSet.objects.get(pk=entry.set.pk)
        assert (made.source, made.size, made.state, list(entry.shown)) == (source, 2, "ready", [])
        first, second = made.candidates.order_by("index")
        original = ours.candidates.get(index=1)
        assert (first.policy, second.policy) == (a, b)
        assert first.versions == {campaigns.COPY: original.pk}
        assert second.versions == {campaigns.COPY: theirs.candidates.get(index=2).pk}
        for name in comparisons.COPIED:
            assert getattr(first, name) == getattr(original, name)
        # Its batch is not the original's: running that again must not find a stranger in it.
        assert first.batch is None

    def test_it_takes_the_first_of_each_where_no_noise_is_shared(
        self, task: Task, a: Policy, b: Policy
    ) -> None:
        _, ours, theirs = both(task, a, b)
        [entry] = pair_up(a, b, task)
        images = list(entry.set.candidates.order_by("index").values_list("image", flat=True))
        assert images == [
            ours.candidates.get(index=0).image_id,
            theirs.candidates.get(index=0).image_id,
        ]

    def test_it_adds_only_new_sources_when_it_runs_again(
        self, task: Task, a: Policy, b: Policy
    ) -> None:
        both(task, a, b)
        make_set(make_source(task), policy=a)
        first = pair_up(a, b, task)
        before = CandidateSet.objects.count()
        # The other way round they are the same pairs.
        assert [one.set for one in pair_up(b, a, task)] == [one.set for one in first]
        assert CandidateSet.objects.count() == before
        both(task, a, b)
        again = pair_up(a, b, task)
        assert [one.set for one in again][:1] == [one.set for one in first]
        assert (len(again), CandidateSet.objects.count()) == (2, before + 3)

    def test_it_uses_a_set_that_holds_both(self, task: Task, a: Policy, b: Policy) -> None:
        mixed = make_set(make_source(task), policy=a, size=4)
        mixed.candidates.filter(index__in=[1, 3]).update(policy=b)
        seeds(mixed, 1, 2, 3, 3)
        [entry] = pair_up(a, b, task)
        assert (entry.set, list(entry.shown)) == (mixed, [2, 3])
        assert Candidate.objects.count() == 4

    def test_it_does_not_copy_copies(self, task: Task, a: Policy, b: Policy) -> None:
        source, ours, _ = both(task, a, b)
        pair_up(a, b, task)
        third = make_policy("third")
        make_set(source, policy=third, size=2)
        [entry] = pair_up(a, third, task)
        copied = entry.set.candidates.get(index=0).versions[campaigns.COPY]
        assert copied == ours.candidates.get(index=0).pk

    def test_it_leaves_out_what_is_unfinished_or_of_another_project(
        self, task: Task, a: Policy, b: Policy
    ) -> None:
        source = make_source(task)
        make_set(source, policy=a)
        make_set(source, policy=b, state=CandidateSet.State.DRAWN)
        hidden, _, _ = both(task, a, b)
        other = Project.objects.create(slug="other", name="Other")
        Source.objects.filter(pk=hidden.pk).update(project=other)
        assert pair_up(a, b, task) == []

    def test_it_refuses_one_policy_against_itself(self, task: Task, a: Policy) -> None:
        with pytest.raises(Refused, match="with itself"):
            pair_up(a, a, task)

    def test_its_pairs_stay_out_of_other_campaigns(self, task: Task, a: Policy, b: Policy) -> None:
        _, ours, theirs = both(task, a, b)
        pair_up(a, b, task)
        assert list(campaigns.ready_sets([task])) == [ours, theirs]


class TestOpenComparison:
    def test_it_asks_about_every_common_source_and_takes_judgments(
        self, task: Task, a: Policy, b: Policy
    ) -> None:
        for _ in range(3):
            both(task, a, b)
        call_command("open_comparison", a="ours", b=str(b.pk), task=[task.slug], overlap=2)
        made = Campaign.objects.get()
        assert (made.name, made.purpose, made.overlap) == ("ours against theirs", "comparison", 2)
        assert (made.items.count(), list(made.tasks.all())) == (3, [task])
        assert comparisons.compared(made) == (a, b)
        turn = claim(make_user(), made)
        assert sorted(turn.order) == [0, 1]
        [judgment] = submit(turn)
        assert judgment.best is not None
        assert judgment.best.policy == a

    def test_it_stores_nothing_on_a_dry_run(
        self, task: Task, a: Policy, b: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        both(task, a, b)
        file = tmp_path / "counts.json"
        before = CandidateSet.objects.count()
        arguments = {"task": [task.slug], "dry_run": True, "json": str(file)}
        call_command("open_comparison", a="ours", b="theirs", **arguments)
        assert json.loads(file.read_text()) == {
            "a": "ours",
            "b": "theirs",
            "pairs": 1,
            "new_sets": 1,
        }
        assert "1 would be made" in capsys.readouterr().out
        assert (Campaign.objects.count(), CandidateSet.objects.count()) == (0, before)

    def test_it_asks_about_the_chosen_dimensions(self, task: Task, a: Policy, b: Policy) -> None:
        both(task, a, b)
        wanted = make_dimension(task=task)
        call_command("open_comparison", a="ours", b="theirs", dimension=[wanted.slug], name="One")
        assert campaigns.dimensions_for(Campaign.objects.get(name="One"), task) == [wanted]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"b": "nobody"}, "no policy or system 'nobody'"),
            ({"task": ["nothing"]}, "There is no 'nothing'"),
            ({"b": "lonely"}, "no source of these tasks in common"),
            ({"project": "nowhere"}, "no project “nowhere”"),
        ],
    )
    def test_it_says_what_is_wrong_and_makes_nothing(
        self, task: Task, a: Policy, b: Policy, options: dict[str, object], says: str
    ) -> None:
        make_policy("lonely")
        both(task, a, b)
        before = CandidateSet.objects.count()
        with pytest.raises(CommandError, match=says):
            call_command("open_comparison", **({"a": "ours", "b": "theirs"} | options))
        assert (Campaign.objects.count(), CandidateSet.objects.count()) == (0, before)

    def test_it_takes_back_its_pairs_when_the_campaign_cannot_be_made(
        self, a: Policy, b: Policy
    ) -> None:
        both(make_task(), a, b)  # nothing is asked about this task
        before = CandidateSet.objects.count()
        with pytest.raises(Refused, match="Nothing is asked"):
            comparisons.open_comparison(
                a=a,
                b=b,
                name="None",
                tasks=list(Task.objects.active()),
                project=Project.objects.get(pk=default_project()),
            )
        assert CandidateSet.objects.count() == before


class TestRating:
    def test_it_asks_about_single_candidates_of_the_chosen_policies(self, task: Task) -> None:
        wanted, other = make_policy(), make_policy()
        ours = make_set(make_source(task), policy=wanted, size=3)
        make_set(make_source(task), policy=other)
        made = campaigns.open_campaign(
            name="R", sets=(), tasks=[task], may_be_empty=True, purpose="rating"
        )
        entries = list(contents.entries_for(made, policies=[wanted]))
        assert campaigns.add_sets(made, entries) == 3
        assert campaigns.add_sets(made, entries) == 0
        items = made.items.order_by("shown").values_list("set", "shown")
        assert list(items) == [(ours.pk, [0]), (ours.pk, [1]), (ours.pk, [2])]

    def test_it_draws_one_of_each_set_once(self, task: Task) -> None:
        for _ in range(3):
            make_set(make_source(task))
        made = campaigns.open_campaign(
            name="R", sets=(), tasks=[task], may_be_empty=True, purpose="rating"
        )
        assert campaigns.add_sets(made, contents.entries_for(made, per_set="one")) == 3
        assert campaigns.add_sets(made, contents.entries_for(made, per_set="one")) == 0
        assert [len(item.shown) for item in made.items.all()] == [1, 1, 1]
