import re
import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from annotation import campaigns, contents, progress, ratings
from annotation.errors import Refused
from annotation.models import Assignment, Campaign, Criterion, Dimension, Item
from generation.models import CandidateSet, Membership, Project, Role, Task
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_dimension,
    make_judged_task,
    submit,
)
from tests.factories import make_policy, make_run, make_set, make_source, make_task, make_user

pytestmark = pytest.mark.django_db


class TestOpenCampaign:
    def test_it_draws_the_same_order_from_the_same_seed(self) -> None:
        task = make_judged_task()
        sets = [make_set(make_source(task)) for _ in range(4)]
        orders = []
        for seed in (7, 7, 8):
            made = make_campaign(task=task, sets=sets, seed=seed)
            orders.append(list(made.items.order_by("position").values_list("set", flat=True)))
        assert orders[0] == orders[1]
        assert sorted(orders[0]) == sorted(orders[2])

    def test_it_adds_new_sets_once(self) -> None:
        task = make_judged_task()
        campaign = make_campaign(task=task, sets=2)
        make_set(make_source(task))
        assert campaigns.add_sets(campaign, campaigns.ready_sets([task])) == 1
        assert campaigns.add_sets(campaign, campaigns.ready_sets([task])) == 0
        assert campaign.items.count() == 3

    def test_it_refuses_what_cannot_be_judged_and_makes_nothing(self) -> None:
        task, other = make_judged_task(), make_judged_task()
        failed = make_set(make_source(task), state=CandidateSet.State.FAILED)
        unasked = make_task()
        for sets, says, chosen in (
            ([], "no candidate sets to judge", task),
            ([failed], "could not be made", task),
            ([make_set(make_source(other))], "does not ask about", task),
            ([make_set(make_source(unasked))], "Nothing is asked about the task", unasked),
        ):
            with pytest.raises(Refused, match=says):
                make_campaign(task=chosen, sets=sets)
        with pytest.raises(Refused, match="choose 1 to 50"):
            make_campaign(overlap=0)
        assert not Campaign.objects.exists()

    def test_it_refuses_a_name_that_is_taken(self) -> None:
        make_campaign(name="Spring")
        with pytest.raises(Refused, match="already a campaign called “Spring”"):
            make_campaign(name="Spring")
        assert Campaign.objects.count() == 1

    def test_it_asks_about_the_chosen_dimensions_in_the_task_s_order(self) -> None:
        task = make_task()
        first, second, third = (make_dimension(task=task) for _ in range(3))
        make_dimension(task=task, active=False)
        unworded = Dimension.objects.create(slug="unworded", name="Unworded")
        Criterion.objects.create(task=task, dimension=unworded)
        every = make_campaign(task=task)
        assert campaigns.dimensions_for(every, task) == [first, second, third]
        some = make_campaign(task=task, dimensions=[third, first])
        assert campaigns.dimensions_for(some, task) == [first, third]


class TestPages:
    @pytest.fixture
    def manager(self, client: Client) -> Client:
        client.force_login(make_user(is_staff=True))
        return client

    def test_it_opens_a_campaign_about_one_run_s_sets(self, manager: Client) -> None:
        task, run = make_judged_task(), make_run()
        wanted = make_set(make_source(task), run=run)
        make_set(make_source(task))
        data = {"name": "Spring", "tasks": [task.pk], "run": run.pk, "overlap": 3}
        response = manager.post("/campaigns/new/", data)
        made = Campaign.objects.get()
        assert (made.state, made.overlap, list(made.sets.all())) == ("open", 3, [wanted])
        assert response.headers["Location"] == f"/campaigns/{made.pk}/"

    def test_it_keeps_a_draft(self, manager: Client) -> None:
        task = make_judged_task()
        make_set(make_source(task))
        data = {"name": "Later", "tasks": [task.pk], "overlap": 1, "draft": "1"}
        manager.post("/campaigns/new/", data)
        assert Campaign.objects.get().state == "draft"

    def test_it_says_what_is_missing_in_the_form(self, manager: Client) -> None:
        task = make_judged_task()
        data = {"name": "Empty", "tasks": [task.pk], "overlap": 1}
        response = manager.post("/campaigns/new/", data)
        assert response.status_code == 422
        assert "no candidate sets to judge" in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_opens_pauses_and_closes(self, manager: Client) -> None:
        campaign = make_campaign()
        url = f"/campaigns/{campaign.pk}/state/"
        for state in ("paused", "open", "closed"):
            manager.post(url, {"state": state})
            campaign.refresh_from_db()
            assert campaign.state == state
        response = manager.post(url, {"state": "paused"}, follow=True)
        campaign.refresh_from_db()
        assert campaign.state == "closed"
        assert "cannot become paused" in response.content.decode()

    def test_it_shows_how_far_each_task_and_dimension_is(self, manager: Client) -> None:
        campaign = make_campaign(sets=2, overlap=2)
        submit(claim(make_user("ann"), campaign))
        text = manager.get(f"/campaigns/{campaign.pk}/").content.decode()
        assert text.count("1 / 4") == 3
        assert "ann" in text
        row = progress.coverage(campaign).rows[0]
        assert [(cell.judged, cell.wanted, cell.percent) for cell in row.cells if cell] == [
            (1, 4, 25)
        ] * 2
        assert campaign.name in manager.get("/campaigns/").content.decode()

    def test_it_adds_what_became_ready(self, manager: Client) -> None:
        campaign = make_campaign()
        make_set(make_source(campaign.tasks.get()))
        manager.post(f"/campaigns/{campaign.pk}/sets/")
        assert campaign.items.count() == 2

    def test_it_is_for_managers(self, client: Client) -> None:
        campaign = make_campaign()
        client.force_login(make_user())
        assert client.get("/campaigns/new/").status_code == 403
        client.post(f"/campaigns/{campaign.pk}/state/", {"state": "closed"})
        campaign.refresh_from_db()
        assert campaign.state == "open"


class TestSettings:
    @pytest.fixture
    def manager(self, client: Client) -> Client:
        client.force_login(make_user("boss", role=Role.MANAGER))
        return client

    def settings(self, task: Task, **fields: object) -> dict[str, object]:
        said = {
            "name": "Spring",
            "tasks": [task.pk],
            "overlap": 2,
            "gold_rate": "0.1",
            "repeat_rate": "0.05",
            "lease_minutes": 20,
            "daily_limit": 40,
            "deadline": "2099-05-01T18:00",
            "break_minutes": 30,
            "practice_sets": 3,
            "practice_share": "0.75",
            "pause_below": "0.6",
            "pause_after": 12,
            "editable": "on",
        }
        return said | fields

    def test_it_stores_what_the_form_says(self, manager: Client) -> None:
        task = make_judged_task(1)
        wanted = make_dimension(task=task)
        make_set(make_source(task))
        ann, group = make_user("ann"), Group.objects.create(name="night shift")
        people = {"members": [ann.pk], "groups": [group.pk], "dimensions": [wanted.pk]}
        response = manager.post("/campaigns/new/", self.settings(task, **people))
        made = Campaign.objects.get()
        assert response.headers["Location"] == f"/campaigns/{made.pk}/"
        assert (made.gold_rate, made.repeat_rate, made.lease_seconds) == (0.1, 0.05, 1200)
        assert (made.daily_limit, made.break_minutes, made.overlap) == (40, 30, 2)
        assert (made.practice_sets, made.practice_share) == (3, 0.75)
        assert (made.pause_below, made.pause_after) == (0.6, 12)
        assert (made.editable, made.show_gold, made.one_at_a_time) == (True, False, False)
        assert made.deadline is not None
        assert made.deadline.year == 2099
        assert list(made.members.all()) == [ann]
        assert list(made.groups.all()) == [group]
        assert list(made.dimensions.all()) == [wanted]
        assert made.created_by is not None
        assert made.created_by.username == "boss"

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"gold_rate": "1.5"}, "is not a share"),
            ({"pause_below": "60"}, "is not a share"),
            ({"gold_rate": "0.6", "repeat_rate": "0.4"}, "leave no turn for new sets"),
            ({"deadline": "2020-01-01T00:00"}, "deadline is in the past"),
            ({"overlap": "0"}, "greater than or equal to 1"),
            ({"lease_minutes": "0"}, "greater than or equal to 1"),
            ({"tasks": []}, "This field is required"),
            ({"purpose": "rating"}, "Known answers name a best and a worst"),
            ({"purpose": "comparison", "a": "", "b": ""}, "This field is required"),
        ],
    )
    def test_it_says_what_is_wrong(
        self, manager: Client, fields: dict[str, object], says: str
    ) -> None:
        task = make_judged_task()
        make_set(make_source(task))
        response = manager.post("/campaigns/new/", self.settings(task, **fields))
        assert response.status_code == 422
        assert says in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_refuses_dimensions_that_a_task_does_not_have(self, manager: Client) -> None:
        task, other = make_judged_task(), make_dimension(task=make_task())
        make_set(make_source(task))
        response = manager.post("/campaigns/new/", self.settings(task, dimensions=[other.pk]))
        assert "Nothing is asked about the task" in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_counts_first_and_keeps_nothing(self, manager: Client) -> None:
        task = make_judged_task()
        for _ in range(2):
            make_set(make_source(task))
        response = manager.post("/campaigns/new/", self.settings(task, count="1"))
        assert "It would ask about 2 candidate sets." in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_opens_a_comparison_of_two_policies(self, manager: Client) -> None:
        task, a, b = make_judged_task(), make_policy(), make_policy()
        source = make_source(task)
        make_set(source, policy=a)
        make_set(source, policy=b)
        assert "Compare" in manager.get("/campaigns/new/?purpose=comparison").content.decode()
        said = self.settings(task, purpose="comparison", a=a.pk, b=b.pk, practice_sets=0)
        assert manager.post("/campaigns/new/", said | {"b": a.pk}).status_code == 422
        before = CandidateSet.objects.count()
        response = manager.post("/campaigns/new/", said | {"count": "1"})
        assert "It would ask about 1 pair." in response.content.decode()
        assert CandidateSet.objects.count() == before
        manager.post("/campaigns/new/", said)
        made = Campaign.objects.get()
        assert (made.purpose, made.items.count()) == ("comparison", 1)
        # Its page offers the same two again; adding them again adds nothing.
        url = f"/campaigns/{made.pk}/sets/"
        assert f'<option value="{a.pk}" selected>' in manager.get(url).content.decode()
        response = manager.post(url, {"do": "add", "a": a.pk, "b": b.pk}, follow=True)
        assert "Nothing was added" in response.content.decode()
        assert made.items.count() == 1

    def test_it_opens_a_rating_of_single_pictures(self, manager: Client) -> None:
        task = make_judged_task()
        make_set(make_source(task), size=3)
        said = self.settings(task, purpose="rating", gold_rate=0, practice_sets=0, per_set="all")
        manager.post("/campaigns/new/", said)
        made = Campaign.objects.get()
        assert made.purpose == "rating"
        assert sorted(made.items.values_list("shown", flat=True)) == [[0], [1], [2]]

    def test_its_coverage_counts_ratings(self) -> None:
        task = make_judged_task(1)
        one = make_set(make_source(task), size=2)
        campaign = make_campaign(
            task=task, sets=[campaigns.Entry(one, [1])], purpose="rating", overlap=2
        )
        turn = claim(make_user(), campaign)
        [dimension] = campaigns.dimensions_for(campaign, task)
        scores = ratings.Scores(usable=True, of={dimension.slug: 4})
        ratings.rate(assignment=turn, user=turn.annotator, scores=scores)
        [row] = progress.coverage(campaign).rows
        assert [(cell.judged, cell.wanted) for cell in row.cells if cell] == [(1, 2)]

    def test_it_asks_for_a_project_only_where_there_is_a_choice(self, manager: Client) -> None:
        task = make_judged_task()
        assert 'name="project"' not in manager.get("/campaigns/new/").content.decode()
        other = Project.objects.create(slug="other", name="Other")
        boss = User.objects.get(username="boss")
        Membership.objects.create(project=other, user=boss, role=Role.MANAGER)
        assert 'name="project"' in manager.get("/campaigns/new/").content.decode()
        mine = make_set(make_source(task, project=other))
        make_set(make_source(task))
        manager.post("/campaigns/new/", self.settings(task, project=other.pk))
        made = Campaign.objects.get()
        assert (made.project, list(made.sets.all())) == (other, [mine])

    def test_its_members_belong_to_its_project(self, manager: Client) -> None:
        task = make_judged_task()
        other = Project.objects.create(slug="other", name="Other")
        boss = User.objects.get(username="boss")
        Membership.objects.create(project=other, user=boss, role=Role.MANAGER)
        make_set(make_source(task, project=other))
        ann = make_user("ann")
        said = self.settings(task, project=other.pk, members=[ann.pk])
        response = manager.post("/campaigns/new/", said)
        assert "may not judge its pictures: ann" in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_offers_and_takes_no_project_of_others(self, manager: Client) -> None:
        task = make_judged_task()
        other = Project.objects.create(slug="other", name="Other")
        make_set(make_source(task, project=other))
        response = manager.post("/campaigns/new/", self.settings(task, project=other.pk))
        assert "no candidate sets to judge" in response.content.decode()
        assert not Campaign.objects.exists()

    def test_it_changes_settings_but_not_what_is_queued(self, manager: Client) -> None:
        task, other = make_judged_task(), make_judged_task()
        campaign = make_campaign(task=task, sets=2)
        submit(claim(make_user(), campaign))
        url = f"/campaigns/{campaign.pk}/edit/"
        text = manager.get(url).content.decode()
        assert "stays as it is" in text
        assert re.search(rf'value="{task.pk}"[^>]*disabled', text)
        said = self.settings(task, tasks=[other.pk], purpose="rating", overlap=3)
        response = manager.post(url, said)
        assert response.status_code == 302
        campaign.refresh_from_db()
        assert (campaign.name, campaign.purpose, campaign.overlap) == ("Spring", "preference", 3)
        assert set(campaign.tasks.all()) == {task, other}
        assert campaign.daily_limit == 40

    def test_it_keeps_a_deadline_that_has_passed_when_other_things_change(
        self, manager: Client
    ) -> None:
        campaign = make_campaign()
        past = timezone.now().replace(second=0, microsecond=0) - timedelta(days=1)
        Campaign.objects.filter(pk=campaign.pk).update(deadline=past)
        shown = timezone.localtime(past).strftime("%Y-%m-%dT%H:%M")
        said = self.settings(campaign.tasks.get(), deadline=shown)
        response = manager.post(f"/campaigns/{campaign.pk}/edit/", said)
        assert response.status_code == 302
        campaign.refresh_from_db()
        assert (campaign.deadline, campaign.name) == (past, "Spring")

    def test_it_clones_into_a_draft(self, manager: Client) -> None:
        ann = make_user()
        campaign = make_campaign(sets=3, overlap=2, members=[ann], name="Round")
        url = f"/campaigns/{campaign.pk}/clone/"
        response = manager.post(url, {"with_items": "on"})
        copy = Campaign.objects.latest("pk")
        assert response.headers["Location"] == f"/campaigns/{copy.pk}/edit/"
        assert (copy.name, copy.state, copy.overlap) == ("Round (2)", "draft", 2)
        assert set(copy.sets.all()) == set(campaign.sets.all())
        assert list(copy.members.all()) == [ann]
        assert list(copy.tasks.all()) == list(campaign.tasks.all())
        manager.post(url)
        empty = Campaign.objects.latest("pk")
        assert (empty.name, empty.items.count()) == ("Round (3)", 0)
        assert campaign.items.count() == 3

    def test_it_previews_without_storing_anything(self, manager: Client) -> None:
        campaign = make_campaign(sets=2)
        url = f"/campaigns/{campaign.pk}/preview/"
        item = campaign.items.last()
        assert item is not None
        response = manager.get(f"{url}?item={item.pk}")
        text = response.content.decode()
        assert "Preview: this is what annotators see" in text
        assert item.set.source.image.sha256 in text
        assert re.search(r'id="submit" disabled', text)
        for candidate in item.set.candidates.all():
            assert candidate.image is not None
            assert candidate.image.sha256 in text
        assert manager.get(url).status_code == 200
        assert not Assignment.objects.exists()
        other = make_campaign().items.get()
        assert manager.get(f"{url}?item={other.pk}").status_code == 404
        assert manager.get(f"{url}?item=x").status_code == 404

    def test_its_pages_are_for_managers_of_the_project(self, client: Client) -> None:
        campaign = make_campaign()
        item = campaign.items.get()
        pages = ["edit/", "preview/", "sets/", "members/", "gold/", f"gold/{item.pk}/"]
        for user, status in (
            (make_user(role=Role.MANAGER), 200),
            (make_user(role=Role.REVIEWER), 403),
            (make_user(role=Role.ANNOTATOR), 403),
            (make_user(role=None), 404),
        ):
            client.force_login(user)
            for page in pages:
                response = client.get(f"/campaigns/{campaign.pk}/{page}")
                assert response.status_code == status, (page, user)
            if status != 200:
                assert client.get("/campaigns/new/").status_code == status
                for page in ("clone/", "sets/", "state/", "edit/", "members/", "gold/"):
                    url = f"/campaigns/{campaign.pk}/{page}"
                    said = {"do": "take_out", "state": "closed"}
                    assert client.post(url, said).status_code == status
        assert (Campaign.objects.count(), campaign.items.count()) == (1, 1)
        campaign.refresh_from_db()
        assert campaign.state == "open"


class TestContents:
    @pytest.fixture
    def manager(self, client: Client) -> Client:
        client.force_login(make_user(role=Role.MANAGER))
        return client

    def test_it_counts_before_it_adds_and_takes_out_again(self, manager: Client) -> None:
        task = make_judged_task()
        campaign = make_campaign(task=task, sets=2)
        for _ in range(3):
            make_set(make_source(task))
        url = f"/campaigns/{campaign.pk}/sets/"
        text = manager.post(url, {"do": "count"}).content.decode()
        assert "Adds 3; 2 are in it already." in text
        assert campaign.items.count() == 2
        response = manager.post(url, {"do": "add"})
        assert campaign.items.count() == 5
        address = response.headers["Location"]
        text = manager.get(address).content.decode()
        assert "Undo: take out these 3" in text
        after = address.partition("after=")[2]
        claim(make_user(), campaign)
        manager.post(url, {"do": "take_out", "after": after})
        # Whether or not the turn went to one of the new ones, it stays.
        left = set(campaign.items.values_list("pk", flat=True))
        assert Assignment.objects.get().item_id in left
        assert all(pk <= int(after) for pk in left - {Assignment.objects.get().item_id})

    def test_it_takes_out_only_what_nobody_was_given(self) -> None:
        campaign = make_campaign(sets=4)
        submit(claim(make_user(), campaign))
        held = claim(make_user(), campaign)
        assert contents.untouched(campaign).count() == 2
        assert contents.take_out(campaign=campaign) == 2
        assert campaign.items.count() == 2
        assert campaign.items.filter(pk=held.item_id).exists()
        assert CandidateSet.objects.count() == 4

    def test_it_leaves_what_somebody_had_before(self, manager: Client) -> None:
        campaign = make_campaign(sets=3)
        turn = claim(make_user(), campaign)
        Assignment.objects.filter(pk=turn.pk).update(state="expired")
        manager.post(f"/campaigns/{campaign.pk}/sets/", {"do": "take_out"})
        assert list(campaign.items.all()) == [turn.item]

    @pytest.mark.django_db(transaction=True)
    def test_it_neither_waits_for_nor_takes_what_is_being_claimed(self) -> None:
        campaign, user = make_campaign(sets=3), make_user()
        claimed, taken_out = threading.Event(), threading.Event()
        turns: list[int] = []
        in_time: list[bool] = []

        def work() -> None:
            try:
                with transaction.atomic():
                    turns.append(claim(user, campaign).item_id)
                    claimed.set()
                    in_time.append(taken_out.wait(20))
            finally:
                connection.close()

        worker = threading.Thread(target=work)
        worker.start()
        assert claimed.wait(20)
        try:
            assert contents.take_out(campaign=campaign) == 2
        finally:
            taken_out.set()
            worker.join()
        assert in_time == [True]
        assert list(campaign.items.values_list("pk", flat=True)) == turns
        assert Assignment.objects.get().item_id == turns[0]

    def test_it_hands_out_what_has_priority_first(self, manager: Client) -> None:
        first, second = make_judged_task(), make_judged_task()
        sets = [make_set(make_source(task)) for task in (first, second) for _ in range(3)]
        campaign = campaigns.open_campaign(name="Both", sets=sets, tasks=[first, second])
        draws = dict(campaign.items.values_list("pk", "position"))
        url = f"/campaigns/{campaign.pk}/sets/"
        said = {"do": "priority", "task": second.pk, "priority": 2}
        text = manager.post(url, said).content.decode()
        assert "3 sets would get this priority" in text
        assert dict(campaign.items.values_list("pk", "position")) == draws
        manager.post(url, said | {"sure": "1"})
        turn = claim(make_user(), campaign)
        assert turn.set.source.task == second
        manager.post(url, {"do": "priority", "priority": 0, "sure": "1"})
        assert dict(campaign.items.values_list("pk", "position")) == pytest.approx(draws)

    def test_a_priority_leaves_returned_work_in_front(self) -> None:
        campaign = make_campaign(sets=2)
        item = campaign.items.first()
        assert item is not None
        campaign.items.filter(pk=item.pk).update(position=0.5 - Item.RETURNED)
        moved = contents.set_priority(campaign=campaign, items=Item.objects.all(), priority=9)
        assert moved == 1
        item.refresh_from_db()
        assert item.position == 0.5 - Item.RETURNED
        with pytest.raises(Refused, match="not possible"):
            contents.set_priority(campaign=campaign, items=Item.objects.all(), priority=10)

    def test_it_refuses_sets_of_another_project(self) -> None:
        task = make_judged_task()
        campaign = make_campaign(task=task)
        other = Project.objects.create(slug="other", name="Other")
        with pytest.raises(Refused, match="belongs to another project"):
            campaigns.add_sets(campaign, [make_set(make_source(task, project=other))])
        assert campaign.items.count() == 1


class TestAdmin:
    @pytest.fixture
    def root(self, client: Client) -> Client:
        user: User = make_user(is_staff=True, is_superuser=True)
        client.force_login(user)
        return client

    def data(self, **fields: str) -> dict[str, str]:
        empty = {
            f"{prefix}-{part}_FORMS": "0"
            for prefix in ("criteria", "wordings", "examples")
            for part in ("TOTAL", "INITIAL")
        }
        said = {
            "name": "Glow",
            "slug": "glow",
            "active": "on",
            "question": "Which glows best?",
            "query": "Does the first image glow more than the second?",
            "guideline": "",
        }
        return empty | said | fields

    def test_it_makes_a_dimension_that_works_without_code(self, root: Client) -> None:
        task: Task = make_task()
        criterion = {
            "criteria-TOTAL_FORMS": "1",
            "criteria-0-task": str(task.pk),
            "criteria-0-weight": "1",
            "criteria-0-order": "0",
            "criteria-0-required": "on",
        }
        response = root.post("/admin/annotation/dimension/add/", self.data(**criterion))
        assert response.status_code == 302
        turn = claim(make_user(), make_campaign(task=task))
        [stored] = submit(turn)
        assert (stored.dimension.slug, stored.wording.version) == ("glow", 1)

    def test_it_keeps_the_old_wording_when_it_is_changed(self, root: Client) -> None:
        root.post("/admin/annotation/dimension/add/", self.data())
        glow = Dimension.objects.get(slug="glow")
        url = f"/admin/annotation/dimension/{glow.pk}/change/"
        root.post(url, self.data(name="Shine"))
        assert glow.wordings.count() == 1
        root.post(url, self.data(question="Which shines best?"))
        assert [w.question for w in glow.wordings.all()] == [
            "Which glows best?",
            "Which shines best?",
        ]
        assert glow.wording.version == 2

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"uses_prompt": "on"}, "put {prompt} where it belongs"),
            ({"query": "Is it like {prompt}?"}, "without {prompt} in it"),
            ({"query": "Is it {color}?"}, "Only {prompt} can stand in a query"),
            ({"query": "Is it { odd?"}, "only around the word prompt"),
        ],
    )
    def test_it_refuses_a_query_that_cannot_be_asked(
        self, root: Client, fields: dict[str, str], says: str
    ) -> None:
        response = root.post("/admin/annotation/dimension/add/", self.data(**fields))
        assert says in response.content.decode()
        assert not Dimension.objects.filter(slug="glow").exists()

    def test_it_shows_facts_without_letting_them_be_changed(self, root: Client) -> None:
        turn = claim(make_user(), make_campaign())
        [stored, _] = submit(turn)
        for url in (
            "/admin/annotation/judgment/",
            f"/admin/annotation/judgment/{stored.pk}/change/",
            f"/admin/annotation/assignment/{turn.pk}/change/",
            "/admin/annotation/assignment/",
            "/admin/annotation/campaign/",
            "/admin/annotation/criterion/",
            "/admin/annotation/item/",
        ):
            assert root.get(url).status_code == 200
        changed = root.post(
            f"/admin/annotation/judgment/{stored.pk}/change/", {"outcome": "no_difference"}
        )
        assert changed.status_code == 403
        assert root.post(f"/admin/annotation/judgment/{stored.pk}/delete/").status_code == 403
        stored.refresh_from_db()
        assert stored.outcome == "picked"
