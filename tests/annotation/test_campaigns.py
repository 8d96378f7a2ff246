import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import campaigns, progress
from annotation.errors import Refused
from annotation.models import Campaign, Criterion, Dimension
from generation.models import CandidateSet, Task
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_dimension,
    make_judged_task,
    submit,
)
from tests.factories import make_run, make_set, make_source, make_task, make_user

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


class TestAdmin:
    @pytest.fixture
    def root(self, client: Client) -> Client:
        user: User = make_user(is_staff=True, is_superuser=True)
        client.force_login(user)
        return client

    def data(self, **fields: str) -> dict[str, str]:
        empty = {
            f"{prefix}-{part}_FORMS": "0"
            for prefix in ("criteria", "wordings")
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
