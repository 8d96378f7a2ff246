"""Rounds that start by themselves: by rules about labels and accuracy, and by the schedule."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from annotation.models import Judgment
from config.celery import app
from generation.models import AuditEntry, Split, Verb
from modeling import jobs, newest, round_rules, rounds
from modeling.models import RewardModel, Round, RoundRule
from modeling.round_steps import Name
from tests.factories import make_user
from tests.modeling.project import CONFIG, Project, make_judged_campaign, make_snapshot
from tests.modeling.test_rounds import create, step_of


@pytest.fixture
def project(quick_project: Project) -> Project:
    return quick_project


def make_rule(**fields: Any) -> RoundRule:
    defaults = {
        "name": "rule",
        "active": True,
        "kind": "new_judgments",
        "threshold": 5,
        "annotators": "simulated",
        "config": CONFIG,
    }
    return RoundRule.objects.create(**(defaults | fields))


def test_a_rule_starts_a_round_and_says_why(project: Project) -> None:
    rule = make_rule(config={**CONFIG, "collect": False})
    jobs.check_rules()
    rule.refresh_from_db()
    assert rule.last_said == "0 new judgments so far; it asks for 5."
    assert not Round.objects.exists()

    make_judged_campaign(project)
    jobs.check_rules()

    round_ = Round.objects.get()
    count = Judgment.objects.count()
    assert (round_.rule, round_.started_by) == (rule, None)
    opened = round_.transitions.get()
    assert opened.reason == f"Rule 'rule': {count} new judgments so far; it asks for 5."
    entry = AuditEntry.objects.get(verb=Verb.ROUND_STARTED)
    assert entry.detail["after"] == {"reason": opened.reason}
    # It learns from what is there.
    for name in (Name.GENERATE, Name.LABEL):
        assert rounds.execute(step_of(round_, name))
        assert "skipped" in step_of(round_, name).result


def test_it_never_starts_a_second_round_and_rests_after_the_first(project: Project) -> None:
    rule = make_rule()
    make_judged_campaign(project)
    open_round = create()
    assert round_rules.check(rule) is None
    assert rule.last_said == "Round 1 is open."
    Round.objects.filter(pk=open_round.pk).update(finished_at=timezone.now())

    fired = round_rules.check(rule)
    assert fired is not None
    assert (fired.number, fired.seed) == (2, 2)
    Round.objects.update(finished_at=timezone.now())
    assert round_rules.check(rule) is None
    assert rule.last_said.startswith("It rests until")
    long_ago = timezone.now() - timedelta(hours=25)
    RoundRule.objects.filter(pk=rule.pk).update(last_fired_at=long_ago)
    rule.refresh_from_db()
    assert round_rules.check(rule) is not None


def test_it_says_why_it_could_not_start_one(project: Project) -> None:
    make_judged_campaign(project)
    RewardModel.objects.update(state="retired")
    rule = make_rule()
    assert round_rules.check(rule) is None
    assert "No round was started: No reward model is active" in rule.last_said
    assert rule.last_fired_at is None


def test_it_counts_only_labels_that_no_model_has_learnt_from(project: Project) -> None:
    project.reward.snapshot = make_snapshot(project)
    project.reward.save()
    rule = make_rule()
    assert round_rules.check(rule) is None
    assert rule.last_value == 0
    assert "0 new judgments since" in rule.last_said


def test_it_measures_the_newest_labels_once(project: Project) -> None:
    snapshot = make_snapshot(project)
    rule = make_rule(kind="newest_accuracy", threshold=0.001, newest=30)
    assert round_rules.may_measure(rule)
    assert round_rules.check(rule) is None
    assert rule.last_value is not None
    assert 0 < rule.last_value < 1
    assert "of the newest" in rule.last_said
    assert rule.last_judgment == Judgment.objects.order_by("-pk")[0].pk
    assert not round_rules.may_measure(rule)
    # A random model is wrong about half of them.
    strict = make_rule(name="strict", kind="newest_accuracy", threshold=1.0, newest=30)
    fired = round_rules.check(strict)
    assert fired is not None
    reason = fired.transitions.get().reason
    assert "'tiny reward' is right on" in reason
    assert "the rule asks for 100%." in reason
    learnt = RewardModel(name="learnt", location=project.reward.location, snapshot=snapshot)
    held_out = newest.unseen(learnt, simulated=True)
    assert {one.set.source.split for one in held_out} == {Split.HOLDOUT}
    child = RewardModel(name="its child", location=project.reward.location, parent=learnt)
    assert newest.unseen(child, simulated=True).count() == held_out.count()


@pytest.mark.django_db
def test_it_refuses_a_rule_that_cannot_be_meant(client: Client) -> None:
    with pytest.raises(ValidationError, match="share between 0 and 1"):
        RoundRule(name="x", kind="newest_accuracy", threshold=75).full_clean()
    with pytest.raises(ValidationError, match="say nothing about an accuracy"):
        RoundRule(name="x", kind="newest_accuracy", threshold=0.7, newest=3).full_clean()
    client.force_login(make_user(is_staff=True, is_superuser=True))
    sent = {"name": "x", "kind": "new_judgments", "threshold": 5, "newest": 200}
    sent |= {"cooldown_hours": 1, "annotators": "human", "config": '{"sets_per_taks": 4}'}
    page = client.post("/admin/modeling/roundrule/add/", sent).content.decode()
    assert "Did you mean &#x27;sets_per_task&#x27;" in page
    client.post("/admin/modeling/roundrule/add/", sent | {"config": "{}"})
    assert RoundRule.objects.get(name="x").threshold == 5


# --- the schedule ---


def test_the_schedule_starts_a_round_in_its_own_name(project: Project) -> None:
    request = SimpleNamespace(properties={"periodic_task_name": "every Monday"})
    run = jobs.start_round.run.__func__
    run(SimpleNamespace(request=request), annotators="simulated", config=CONFIG)
    round_ = Round.objects.get()
    assert round_.transitions.get().reason == "Schedule 'every Monday'."
    run(SimpleNamespace(request=request), annotators="simulated", config=CONFIG)
    assert Round.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_beat_finds_all_its_jobs_in_the_database_and_leaves_them_off() -> None:
    DatabaseScheduler(app=app, lazy=True).setup_schedule()
    rows = PeriodicTask.objects.filter(name__in=app.conf.beat_schedule)
    assert {row.name: row.task for row in rows} == {
        name: entry["task"] for name, entry in app.conf.beat_schedule.items()
    }
    rows.filter(name="expire leases").update(enabled=False)
    DatabaseScheduler(app=app, lazy=True).setup_schedule()
    assert not PeriodicTask.objects.get(name="expire leases").enabled
    assert PeriodicTask.objects.get(name="ring the loop").enabled
    assert not RoundRule.objects.filter(active=True).exists()
    weekly = PeriodicTask.objects.filter(task="modeling.jobs.start_round").first()
    if weekly is not None:  # a test before may have emptied the tables
        assert not weekly.enabled
