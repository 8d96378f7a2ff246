from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from generation import candidates
from generation.models import Policy, SamplingPlan, Task
from generation.ownership import JobState
from tests.factories import (
    make_plan,
    make_policy,
    make_run,
    make_set,
    make_source,
    make_task,
    make_user,
)

pytestmark = pytest.mark.django_db

PLAN = {
    "candidates_per_set": "3",
    "steps": "4, 8",
    "strength": "0.9, 1",
    "guidance_scale": "30",
    "true_cfg_scale": "1, 4",
    "negative_prompts": "\nblurry",
}


@pytest.fixture
def chief(client: Client) -> Client:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    return client


def test_every_page_opens(chief: Client) -> None:
    task = make_task("mend")
    make_plan(task)
    made = make_set(make_source(task), run=make_run())
    rows: list[Any] = [
        made,
        made.run,
        made.candidates.all()[0],
        made.source,
        made.source.image,
        task,
    ]
    rows += [task.plans.get(), made.candidates.all()[0].policy]
    for row in rows:
        name = f"admin:generation_{row._meta.model_name}"
        assert chief.get(reverse(f"{name}_changelist")).status_code == 200
        assert chief.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200


def test_a_new_task_is_made_without_code(chief: Client) -> None:
    response = chief.post(
        reverse("admin:generation_task_add"),
        {
            "name": "Sky replacement",
            "slug": "sky",
            "wording": "sky replacement",
            "weight": "0.5",
            "needs_source": "on",
            "needs_mask": "on",
            "active": "on",
            "plans-TOTAL_FORMS": "0",
            "plans-INITIAL_FORMS": "0",
        },
        follow=True,
    )
    task = Task.objects.get(slug="sky")
    assert "has no sampling plan yet" in response.content.decode()

    chief.post(reverse("admin:generation_samplingplan_add"), PLAN | {"task": task.pk})

    plan = task.plans.get()
    assert (plan.version, plan.current, plan.steps, plan.strength) == (1, True, [4, 8], [0.9, 1.0])
    assert plan.negative_prompts == ["", "blurry"]
    run = candidates.order_sets(policy=make_policy(), sources=[make_source(task)], seed=0)
    assert run.total == 3


def test_a_changed_plan_is_a_new_version(chief: Client) -> None:
    task = make_task("mend")
    first = make_plan(task)
    make_set(make_source(task), plan=first)
    url = reverse("admin:generation_samplingplan_change", args=[first.pk])
    assert chief.post(url, PLAN).status_code == 302

    first.refresh_from_db()
    assert (first.current, first.steps) == (False, [2, 3])
    second = task.plans.get(current=True)
    assert (second.version, second.steps, second.candidates_per_set) == (2, [4, 8], 3)
    # The old version can be read but no longer changed.
    assert chief.post(url, PLAN).status_code == 403


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("steps", "4, many", "“many” is not a whole number"),
        ("steps", "", "Give at least one number"),
        ("steps", "0", "0 is out of range: from 1 to 1000"),
        ("strength", "0", "0 is out of range: above 0 to 1"),
        ("strength", "1.5", "1.5 is out of range"),
        ("guidance_scale", "nan", "out of range"),
        ("true_cfg_scale", "0.5", "0.5 is out of range: from 1 to 100"),
        ("negative_prompts", "blurry\nblurry", "stands there twice"),
        ("candidates_per_set", "9", "less than or equal to 8"),
    ],
)
def test_it_refuses_a_plan_that_cannot_be_drawn_from(
    chief: Client, field: str, value: str, reason: str
) -> None:
    data = PLAN | {"task": make_task("mend").pk, field: value}
    response = chief.post(reverse("admin:generation_samplingplan_add"), data)
    assert reason in response.content.decode()
    assert not SamplingPlan.objects.filter(task__slug="mend").exists()


def test_a_new_policy_s_files_are_looked_at(chief: Client, tiny_weights: Path) -> None:
    url = reverse("admin:generation_policy_add")
    data = {"name": "base", "kind": "base", "location": "/nowhere", "max_pixels": "4096"}
    response = chief.post(url, data)
    assert "/nowhere is not a directory" in response.content.decode()
    assert not Policy.objects.exists()

    chief.post(url, data | {"location": str(tiny_weights)})
    assert Policy.objects.get().card["size_multiple"] == 8


def test_a_policy_keeps_its_weights_and_can_be_made_active(chief: Client) -> None:
    policy, other = make_policy("base"), make_policy("other")
    url = reverse("admin:generation_policy_change", args=[policy.pk])
    chief.post(url, {"name": "renamed", "max_pixels": "1024", "location": "else/where"})
    policy.refresh_from_db()
    assert (policy.name, policy.max_pixels, policy.location) == ("renamed", 1024, "owner/policy")

    listing = reverse("admin:generation_policy_changelist")
    both = {"action": "make_active", "_selected_action": [policy.pk, other.pk]}
    assert "Choose one policy" in chief.post(listing, both, follow=True).content.decode()
    chief.post(listing, both | {"_selected_action": [other.pk]})
    other.refresh_from_db()
    assert other.state == Policy.State.ACTIVE


def test_a_judged_source_keeps_its_prompt(chief: Client) -> None:
    fresh, used = make_source(prompt="a hat"), make_source(prompt="a hat")
    make_set(used)
    for source in (fresh, used):
        url = reverse("admin:generation_source_change", args=[source.pk])
        chief.post(url, {"prompt": "a bow", "tags": "{}", "licence": "CC0-1.0"})
        source.refresh_from_db()
    assert (fresh.prompt, fresh.licence) == ("a bow", "CC0-1.0")
    assert (used.prompt, used.licence) == ("a hat", "CC0-1.0")


def test_what_happened_cannot_be_edited(chief: Client) -> None:
    made = make_set(run=make_run())
    rows: list[Any] = [made, made.run, made.candidates.all()[0], made.source.image]
    for row in rows:
        name = f"admin:generation_{row._meta.model_name}"
        assert chief.post(reverse(f"{name}_change", args=[row.pk]), {}).status_code == 403
        assert chief.get(reverse(f"{name}_add")).status_code == 403
        assert chief.post(reverse(f"{name}_delete", args=[row.pk])).status_code == 403


def test_an_order_can_be_cancelled(chief: Client) -> None:
    run = make_run()
    listing = reverse("admin:generation_generationrun_changelist")
    chief.post(listing, {"action": "cancel", "_selected_action": [run.pk]})
    run.refresh_from_db()
    assert run.state == JobState.CANCELLED


def test_large_lists_join_what_they_show() -> None:
    for model, options in admin.site._registry.items():
        if model._meta.app_label == "generation":
            shown = [name for name in options.list_display if isinstance(name, str)]
            relations = {field.name for field in model._meta.fields if field.is_relation}
            joined = options.list_select_related
            assert not isinstance(joined, bool) or not relations & set(shown), model
            if not isinstance(joined, bool):
                assert relations & set(shown) <= {name.split("__")[0] for name in joined}, model
