"""Rounds through the pages: who may run them, and that each act is written down."""

import pytest
from django.test import Client

from generation.models import AuditEntry, Role, Source, Verb
from generation.models import Project as OneProject
from modeling import rounds
from modeling.models import Round
from modeling.round_steps import Name, tasks_of
from tests.factories import make_user
from tests.modeling.project import Project
from tests.modeling.test_rounds import create, label_one, step_of, trained, with_sets


def test_it_lets_a_manager_start_one_and_writes_it_down(project: Project, client: Client) -> None:
    sent = {"annotators": "human", "seed": 3}
    client.force_login(make_user(role=Role.REVIEWER))
    assert client.post("/loop/start/", sent).status_code == 403
    client.force_login(make_user(role=None))
    assert client.post("/loop/start/", sent).status_code == 404
    assert not Round.objects.exists()

    manager = make_user(role=Role.MANAGER)
    client.force_login(manager)
    client.post(
        "/loop/start/", sent | {"learn_only": "on", "approval": "on", "human_comparisons": 40}
    )
    round_ = Round.objects.get()
    assert round_.started_by == manager
    asked = ("collect", "approval", "human_comparisons")
    assert [round_.config[name] for name in asked] == [False, True, 40]
    entry = AuditEntry.objects.get(verb=Verb.ROUND_STARTED)
    assert (entry.actor, entry.object_id) == (manager, str(round_.pk))


def test_it_writes_down_who_said_that_labels_are_enough(project: Project, client: Client) -> None:
    round_ = create("human", min_judgments=1)
    with_sets(round_, project)
    rounds.execute(step_of(round_, Name.LABEL))
    round_.refresh_from_db()
    assert round_.campaign is not None
    anna = make_user()
    for _ in range(3):
        label_one(anna, round_.campaign)
    manager = make_user(role=Role.MANAGER)
    client.force_login(manager)
    client.post(f"/loop/{round_.number}/labelled/")
    assert AuditEntry.objects.get(verb=Verb.ROUND_LABELLED).actor == manager


def test_it_labels_the_default_projects_sources_alone(project: Project) -> None:
    elsewhere = OneProject.objects.create(slug="elsewhere", name="Elsewhere")
    task = project.tasks[0]
    Source.objects.filter(task=task).update(project=elsewhere)
    assert tasks_of(create()) == project.tasks[1:]
    Round.objects.all().delete()
    Source.objects.update(project=elsewhere)
    with pytest.raises(rounds.RoundError, match="no training sources"):
        create()


def test_it_skips_a_step_through_its_page_and_writes_it_down(
    project: Project, client: Client
) -> None:
    round_ = create()
    step = step_of(round_, Name.GENERATE)
    manager = make_user(role=Role.MANAGER)
    client.force_login(manager)
    page = client.get(f"/loop/steps/{step.pk}/").content.decode()
    assert "Skip this step" in page
    assert "Roll back to this step" not in page

    refused = client.post(f"/loop/steps/{step.pk}/skip/", {"reason": ""}, follow=True)
    assert "Say why" in refused.content.decode()
    assert not AuditEntry.objects.filter(verb=Verb.STEP_SKIPPED).exists()
    client.post(f"/loop/steps/{step.pk}/skip/", {"reason": "Earlier labels do."})

    entry = AuditEntry.objects.get(verb=Verb.STEP_SKIPPED)
    assert (entry.actor, entry.detail["after"]) == (manager, {"reason": "Earlier labels do."})
    page = client.get(f"/loop/{round_.number}/").content.decode()
    assert "Earlier labels do." in page
    assert page.index("Earlier labels do.") < page.index("Started by hand.")


def test_it_undoes_a_promotion_through_its_page(project: Project, client: Client) -> None:
    round_ = create()
    trained(round_, project, reward_gate=True, policy_gate=True)
    rounds.execute(step_of(round_, Name.PROMOTE))
    client.force_login(make_user(role=Role.MANAGER))
    page = client.get(f"/loop/{round_.number}/").content.decode()
    assert f"/loop/{round_.number}/undo/" in page
    assert "tiny base" in client.get(f"/loop/{round_.number}/undo/").content.decode()
    client.post(f"/loop/{round_.number}/undo/", {"reason": "Skies are green."})
    project.policy.refresh_from_db()
    assert project.policy.state == "active"
    entry = AuditEntry.objects.get(verb=Verb.PROMOTION_UNDONE)
    assert entry.detail["after"] == {"reason": "Skies are green."}
    assert "nothing to undo" in client.get(f"/loop/{round_.number}/undo/").content.decode()
