"""What a dataset's rows refer to by name: tasks, dimensions with their wordings, policies, people.

What is here by that name is taken as it is. What is new is made so that nothing here works in
another way because of it: tasks arrive inactive, policies as external ones, which can make nothing,
campaigns closed, people as accounts that cannot log in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Model, Q

from annotation.campaigns import note_made
from annotation.errors import DatasetError
from annotation.models import (
    Assignment,
    Campaign,
    Criterion,
    Dimension,
    Judgment,
    Rating,
    Wording,
)
from annotation.portable import CAME_AS
from generation.models import Policy, Project, Task

Row = Mapping[str, Any]
TASK = ("name", "wording", "instruction", "fixed_prompt", "needs_source", "needs_mask", "weight")
WORDING = ("question", "query", "guideline")
PERSON = "imported-"
SAFE_NAME = re.compile(r"[\w.@+-]{1,100}")


@dataclass
class Known:
    """The rows by the names that the dataset has for them."""

    project: Project
    asked: Mapping[str, Row]  # what the card says of campaigns
    name: str | None = None  # of the campaign, or before the campaigns' names
    origin: str | None = None  # instead of the campaigns' own
    tasks: dict[str, Task] = field(default_factory=dict)
    dimensions: dict[str, Dimension] = field(default_factory=dict)
    wordings: dict[tuple[str, int], Wording] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)  # people of an import before
    # Why some names cannot be used: said of each row that has one.
    refused: dict[tuple[str, Any], str] = field(default_factory=dict)
    made: list[Model] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)  # campaigns that were made

    def task(self, slug: str) -> Task:
        return self._found("task", self.tasks, slug)

    def dimension(self, slug: str) -> Dimension:
        return self._found("dimension", self.dimensions, slug)

    def wording(self, slug: str, version: int) -> Wording:
        return self._found("wording", self.wordings, (slug, version))

    def policy(self, name: str) -> Policy:
        return self._found("policy", self.policies, name)

    def campaign(self, name: str) -> Campaign:
        """Made when its first turn comes: an import that brings nothing new makes none."""
        if name not in self.campaigns:
            self.campaigns[name] = _campaign(self, name, self._found("campaign", self.asked, name))
        return self.campaigns[name]

    def check_campaign(self, name: str) -> None:
        self._found("campaign", self.asked, name)

    def person(self, pseudonym: str) -> int:
        if pseudonym in self.met:
            return self.met[pseudonym]
        if pseudonym not in self.people:
            self.people[pseudonym] = _person(pseudonym).pk
        return self.people[pseudonym]

    @transaction.atomic
    def tidy(self, *, whole: bool) -> None:
        """Campaigns and people of refused rows go again; with `whole` all that was made."""
        campaigns = [one.pk for one in self.campaigns.values()]
        Campaign.objects.filter(pk__in=campaigns, items__isnull=True).delete()
        for campaign in Campaign.objects.filter(pk__in=self.opened):
            note_made(campaign, None)
        User.objects.filter(pk__in=self.people.values(), assignments__isnull=True).delete()
        if whole:
            for row in reversed(self.made):
                row.delete()

    def _found(self, kind: str, rows: Mapping[Any, Any], name: Any) -> Any:
        if name not in rows:
            otherwise = f"The dataset's card does not describe the {kind} {_said(name)}."
            raise DatasetError(self.refused.get((kind, name), otherwise))
        return rows[name]


def _said(name: Any) -> str:
    return f"{name[1]} of “{name[0]}”" if isinstance(name, tuple) else f"“{name}”"


@transaction.atomic
def learn(
    card: Row,
    asked: Mapping[str, Row],
    *,
    project: Project,
    name: str | None,
    origin: str | None,
) -> Known:
    """Find or make all that the card names, except for campaigns and people."""
    taxonomy = card["taxonomy"]
    known = Known(project, asked, name, origin)
    new = [slug for slug, row in taxonomy.get("tasks", {}).items() if _learn_task(known, slug, row)]
    for slug, row in taxonomy.get("dimensions", {}).items():
        _learn_dimension(known, slug, row)
    for slug in new:
        _learn_criteria(known, slug, taxonomy["tasks"][slug].get("criteria", {}))
    policies = taxonomy.get("policies") or card.get("policies", {})
    new = [policy for policy, row in policies.items() if _learn_policy(known, policy, row)]
    for policy in new:
        parent = known.policies.get(policies[policy].get("parent") or "")
        Policy.objects.filter(pk=known.policies[policy].pk).update(parent=parent)
    return known


def _learn_task(known: Known, slug: str, row: Row) -> bool:
    given = {key: row[key] for key in TASK if key in row}
    if "needs_source" in given and "needs_mask" not in given:
        given["needs_mask"] = given["needs_source"]
    known.tasks[slug], made = Task.objects.get_or_create(
        slug=slug, defaults=given | {"active": False}
    )
    known.made += [known.tasks[slug]] * made
    return made


def _learn_dimension(known: Known, slug: str, row: Row) -> None:
    dimension, made = Dimension.objects.get_or_create(
        slug=slug,
        defaults={
            "name": row["name"],
            "uses_prompt": row.get("uses_prompt", False),
            "active": False,
        },
    )
    known.dimensions[slug] = dimension
    known.made += [dimension] * made
    here = list(dimension.wordings.all())
    # A new wording would be what people are asked from now on; where people were asked, it is not
    # for an import to change that.
    free = made or not _was_asked(dimension)
    for version, said in sorted(_wordings(row).items()):
        same = [one for one in here if all(getattr(one, key) == said[key] for key in WORDING)]
        same.sort(key=lambda one: one.version != version)
        if same:
            known.wordings[slug, version] = same[0]
        elif free:
            taken = {one.version for one in here}
            number = max(taken) + 1 if version in taken else version
            new = Wording.objects.create(dimension=dimension, version=number, **said)
            here.append(new)
            known.wordings[slug, version] = new
        else:
            known.refused["wording", (slug, version)] = (
                f"“{dimension}” was asked in a wording that is not known here "
                f"(“{said['question']}”). Add it to the dimension in the admin, and import again."
            )


def _wordings(row: Row) -> dict[int, dict[str, str]]:
    """By version; up to version 2 of datasets there is the newest alone."""
    return {
        one["version"]: {key: one[key] for key in WORDING} for one in row.get("wordings", [row])
    }


def _was_asked(dimension: Dimension) -> bool:
    here = Q(assignment__uid__isnull=True, dimension=dimension)
    return Judgment.objects.filter(here).exists() or Rating.objects.filter(here).exists()


def _learn_criteria(known: Known, slug: str, rows: Mapping[str, Row]) -> None:
    for dimension, row in rows.items():
        if dimension in known.dimensions:
            Criterion.objects.create(
                task=known.tasks[slug],
                dimension=known.dimensions[dimension],
                **{key: row[key] for key in ("weight", "order", "required")},
            )


def _learn_policy(known: Known, name: str, row: Row) -> bool:
    came_as = {key: row.get(key) for key in ("kind", "location", "revision", "parent")}
    known.policies[name], made = Policy.objects.get_or_create(
        name=name, defaults={"kind": Policy.Kind.EXTERNAL, "card": {CAME_AS: came_as}}
    )
    known.made += [known.policies[name]] * made
    return made


# Campaigns and people ---------------------------------------------------------------------------


def _campaign(known: Known, said: str, row: Row) -> Campaign:
    name = said
    if known.name is not None:
        name = known.name if len(known.asked) == 1 else f"{known.name}: {said}"
    for wished in (name, f"{name} (imported)"):
        found = Campaign.objects.filter(name=wished).first()
        if found is None:
            return _make_campaign(known, wished, row)
        if _takes_more(found, row):
            return found
    raise DatasetError(
        f"There are campaigns “{name}” and “{name} (imported)” here in which other work was done. "
        "Import under another name."
    )


def _takes_more(campaign: Campaign, row: Row) -> bool:
    """Whether it was made by an import."""
    came = Assignment.objects.filter(item__campaign=campaign, uid__isnull=False)
    return (
        campaign.state == Campaign.State.CLOSED
        and campaign.purpose == row.get("purpose", Campaign.Purpose.PREFERENCE)
        and came.exists()
    )


def _make_campaign(known: Known, name: str, row: Row) -> Campaign:
    origin = known.origin or row.get("origin") or Campaign.Origin.PEOPLE
    simulated = origin == "simulated" or row.get("simulated", False)
    campaign = Campaign.objects.create(
        project=known.project,
        name=name,
        purpose=row.get("purpose", Campaign.Purpose.PREFERENCE),
        state=Campaign.State.CLOSED,
        simulated=simulated,
        origin=Campaign.Origin.PEOPLE if simulated else origin,
        overlap=row.get("overlap", 1),
        guideline=row.get("guideline", ""),
    )
    known.opened.append(campaign.pk)
    tasks = [known.tasks[slug] for slug in row.get("tasks", []) if slug in known.tasks]
    campaign.tasks.set(tasks)
    asked = row.get("dimensions", [])
    campaign.dimensions.set(known.dimensions[slug] for slug in asked if slug in known.dimensions)
    return campaign


def _person(pseudonym: str) -> User:
    if not SAFE_NAME.fullmatch(pseudonym):
        pseudonym = hashlib.sha256(pseudonym.encode()).hexdigest()[:16]
    return User.objects.get_or_create(
        username=f"{PERSON}{pseudonym}",
        defaults={"is_active": False, "password": make_password(None)},
    )[0]
