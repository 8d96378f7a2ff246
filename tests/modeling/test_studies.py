from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from annotation import ratings as rating
from annotation.campaigns import Entry, add_sets
from annotation.models import Dimension
from annotation.ratings import Scores
from generation.models import Policy, Source, Task
from modeling import published, studies
from modeling.models import PublishedFigure, Study
from modeling.statistics import holm, mcnemar
from tests.annotation.factories import claim, make_campaign, make_judged_task
from tests.factories import make_policy, make_set, make_source, make_user
from tests.modeling.test_leaderboard import judged, mixed_set

pytestmark = pytest.mark.django_db

PAPER = Path(published.__file__).parent / "published" / "onereward.csv"


@pytest.fixture
def task() -> Task:
    return make_judged_task(1, name="Fill")


@pytest.fixture
def dimension(task: Task) -> Dimension:
    return task.dimensions.get()


@pytest.fixture
def study() -> Study:
    return Study.objects.create(name="Ours against theirs")


def rated(task: Task, source: Source, policy: Policy, usable: bool, score: int) -> None:
    one = make_set(source, policy=policy, size=2)
    campaign = make_campaign(task=task, sets=(), purpose="rating", may_be_empty=True)
    add_sets(campaign, [Entry(one, (0,))])
    user = make_user()
    slug = task.dimensions.get().slug
    rating.rate(assignment=claim(user, campaign), user=user, scores=Scores(usable, {slug: score}))


def table(study: Study, key: str) -> studies.Table:
    return next(one for one in studies.tables(study) if one.key == key)


class TestTables:
    def test_usability_and_scores_stand_per_task_and_system(self, task: Task, study: Study) -> None:
        ours, theirs = make_policy("ours"), make_policy("theirs")
        for number in range(6):
            source = make_source(task)
            rated(task, source, ours, True, 5 if number else 4)
            rated(task, source, theirs, number == 0, 2)

        usable = table(study, "usable")
        assert (usable.systems, [row[0] for row in usable.rows]) == (["ours", "theirs"], ["Fill"])
        mine, other = usable.rows[0][2]
        assert mine is not None
        assert other is not None
        assert (mine.interval.value, mine.interval.n, mine.best) == (1.0, 6, True)
        assert other.interval.value == pytest.approx(1 / 6)
        # Five of six sources lost, none gained: t = 5 on 5 degrees of freedom.
        assert other.p == pytest.approx(0.0041, abs=0.002)
        assert other.clearly_below
        scores = table(study, "mos").rows[0]
        assert [cell.interval.value for cell in scores[2] if cell] == pytest.approx([29 / 6, 2.0])

    def test_success_is_a_score_of_four_or_five(self, study: Study) -> None:
        task = make_judged_task(0, name="Text")
        quality = Dimension.objects.get(slug="text_rendering")
        task.criteria.create(dimension=quality)
        policy = make_policy("ours")
        for score in (3, 4, 5):
            rated(task, make_source(task), policy, True, score)
        cell = table(study, "success-text_rendering").rows[0][2][0]
        assert cell is not None
        assert cell.interval.value == pytest.approx(2 / 3)

    def test_only_the_studys_systems_and_tasks_count(self, task: Task, study: Study) -> None:
        ours, theirs = make_policy("ours"), make_policy("theirs")
        for policy in (ours, theirs):
            rated(task, make_source(task), policy, True, 3)
        study.systems.add(ours)
        assert table(study, "usable").systems == ["ours"]
        study.tasks.add(make_judged_task(1))
        assert studies.tables(study) == []


class TestVersus:
    def test_good_same_and_bad_are_counted_by_hand(
        self, task: Task, dimension: Dimension, study: Study
    ) -> None:
        old, new = make_policy("old"), make_policy("new")
        said: list[tuple[int, int] | str] = [(1, 0)] * 6 + [(0, 1)] + ["no_difference"] * 3
        judged(task, dimension, *((mixed_set(task, old, new), answer) for answer in said))

        assert studies.rivals(study) == [(new, old)]
        overall, one = studies.versus(study, new, old)

        assert (overall.dimension, one.dimension) == ("", dimension.name)
        shares = (overall.good.value, overall.same.value, overall.bad.value)
        assert shares == pytest.approx((0.6, 0.3, 0.1))
        assert overall.net.value == pytest.approx(0.5)
        assert overall.n == 10
        # Both rows hold the same answers: an exact sign test each, twice that after Holm.
        assert overall.p == pytest.approx(2 * mcnemar(6, 1))
        assert overall.verdict == ""
        assert holm({"a": mcnemar(6, 1), "b": mcnemar(6, 1)})["a"] == pytest.approx(overall.p)


class TestPublished:
    def test_the_tables_of_the_paper_are_made_again_from_its_figures(self) -> None:
        call_command("import_figures", PAPER, study="OneReward")
        study = Study.objects.get(name="OneReward")

        usable = table(study, "usable")
        assert usable.systems == ["OneReward (published)", "best other system (published)"]
        rows = {task: cells for task, _, cells in usable.rows}
        shown = [
            (cell.interval.percent, cell.interval.bounds)
            for cell in rows[Task.objects.get(slug="fill").name]
            if cell
        ]
        # Wilson's interval of 69.04 % and 52.11 % of 130 pictures: about ±8 points.
        assert shown == [("69.0", "60.6 … 76.3"), ("52.1", "43.6 … 60.5")]
        assert len(rows) == 5
        accuracy = table(study, "reward-accuracy")
        found = {(task, name): cells[0] for task, name, cells in accuracy.rows}
        assert len(found) == 9
        alignment = Dimension.objects.get(slug="text_alignment").name
        cell = found["extend", alignment]
        assert cell is not None
        assert (cell.interval.value, cell.bounded) == (0.8036, False)
        [(system, other, bars)] = studies.published_versus(study)
        assert (system, other) == ("OneReward", "its base")
        assert [bars[0].good.percent, bars[0].same.percent, bars[0].bad.percent] == [
            *("32.3", "48.3", "19.3")
        ]

    def test_it_says_what_is_wrong_with_a_row_and_changes_nothing_the_second_time(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "figures.csv"
        path.write_text(
            "system,task,metric,value,n,versus\n"
            "a,fill,usable,69.5,130,\n"
            "a,fill,usability,69.5,130,\n"
            "a,fill,mos,69.5,130,\n"
            "a,fill,good,30,130,\n"
            "a,fill,usable,,130,\n"
        )
        for _ in range(2):
            call_command("import_figures", path, study="s", json=str(tmp_path / "report.json"))
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["created"], report["same"], len(report["refused"])) == (0, 1, 4)
        assert "no metric" in report["refused"][0]["reason"]
        assert "1 to 5" in report["refused"][1]["reason"]
        assert "column versus" in report["refused"][2]["reason"]
        assert PublishedFigure.objects.get().value == 69.5

    def test_a_dry_run_keeps_nothing(self) -> None:
        call_command("import_figures", PAPER, study="s", dry_run=True)
        assert not Study.objects.exists()

    def test_a_table_without_a_good_row_makes_no_study(self, tmp_path: Path) -> None:
        path = tmp_path / "figures.csv"
        path.write_text("system,task\na,fill\n")
        with pytest.raises(CommandError, match="No figure could be taken"):
            call_command("import_figures", path, study="s")
        assert not Study.objects.exists()


class TestPages:
    def test_a_manager_makes_a_study_and_fills_it(self, client: Client, task: Task) -> None:
        make_source(task)
        client.force_login(make_user(role="manager"))
        response = client.post("/studies/", {"name": "Paper", "question": "Better?"})
        study = Study.objects.get()
        assert response["Location"] == f"/studies/{study.pk}/"

        file = SimpleUploadedFile("figures.csv", PAPER.read_bytes())
        page = client.post(f"/studies/{study.pk}/figures/", {"file": file}, follow=True)
        shown = page.content.decode()
        assert "69.0" in shown
        assert "48.3" in shown
        data = client.get(f"/studies/{study.pk}/?format=json").json()["figures"]
        assert {"usable", "good", "reward-accuracy"} <= {row["table"] for row in data}
        rows = client.get(f"/studies/{study.pk}/?format=csv").getvalue().decode().splitlines()
        assert len(rows) == len(data) + 1

    def test_measured_pages_show_both_tables_and_bars(
        self, client: Client, task: Task, dimension: Dimension, study: Study
    ) -> None:
        old, new = make_policy("old"), make_policy("new")
        judged(task, dimension, *((mixed_set(task, old, new), (1, 0)) for _ in range(3)))
        rated(task, make_source(task), new, True, 5)
        client.force_login(make_user(role="viewer"))
        shown = client.get(f"/studies/{study.pk}/").content.decode()
        assert "Good, same, bad: new against old" in shown
        assert "Usability rate" in shown
        assert "enctype" not in shown

    def test_the_calculator_answers_and_says_what_is_impossible(self, client: Client) -> None:
        client.force_login(make_user(role="viewer"))
        assert ">1471<" in client.get("/studies/power/").content.decode()
        page = client.get("/studies/power/?base=97&points=5").content.decode()
        assert "cannot rise by 5 points" in page
        assert "Ensure this value" in client.get("/studies/power/?power=200").content.decode()

    def test_a_stranger_sees_no_study(self, client: Client, study: Study) -> None:
        client.force_login(make_user(role=None))
        assert client.get(f"/studies/{study.pk}/").status_code == 404
