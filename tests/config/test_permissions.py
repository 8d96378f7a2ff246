"""Who may open what: every address of the site against a table. An address without a row fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import URLResolver, get_resolver
from django.utils import timezone

from annotation.models import Assignment, Export, Flag, Judgment, Rating
from generation import tokens, webhooks
from generation.models import Endpoint, GenerationRun, Membership, Project, Role, Source
from generation.ownership import JobState
from modeling.models import (
    Edit,
    Evaluation,
    LeaderboardLink,
    Ranking,
    RewardModel,
    RoundStep,
    Snapshot,
    Study,
    TrainingRun,
)
from tests.annotation.factories import claim, make_campaign
from tests.factories import make_plan, make_policy, make_run, make_set, make_user
from tests.modeling.test_pages import make_round

pytestmark = pytest.mark.django_db

# Rules ------------------------------------------------------------------------------------------

PUBLIC = "everybody"
LOGGED_IN = "everybody who is logged in"
NOBODY = "nobody here and now"  # needs an invitation, or a provider that is not set
CLOSED = "nobody: it says no to everybody"
STAFF = "staff"
ROOT = "superusers; other staff get a reason"
OWN = "the one it belongs to"  # here the annotator; members get a reason, strangers nothing
MINE = "the one it belongs to, and nobody else knows of it"
# A role in the project of the thing, or in any project where the page is of no one project.
IN = {role: f"{role} in the project" for role in Role}
ANY = {role: f"{role} in some project" for role in Role}

LOOK, LABEL, RUN = Role.VIEWER, Role.ANNOTATOR, Role.MANAGER


@dataclass(frozen=True)
class Row:
    path: str
    get: str | None = None
    post: str | None = None
    delete: str | None = None
    sent: tuple[tuple[str, str], ...] = ()  # by the post


TABLE: dict[str, Row] = {
    "": Row("/", get=LOGGED_IN),
    "healthz": Row("/healthz", get=PUBLIC),
    "readyz": Row("/readyz", get=PUBLIC),
    "metrics": Row("/metrics", get=NOBODY),
    "status/": Row("/status/", get=STAFF),
    "favicon.ico": Row("/favicon.ico", get=PUBLIC),
    "login/": Row("/login/", get=PUBLIC, post=PUBLIC),
    "login/code/": Row("/login/code/", get=PUBLIC, post=PUBLIC),  # leads on to the login
    "logout/": Row("/logout/", post=LOGGED_IN),
    "language/": Row("/language/", post=PUBLIC),
    "oidc/<slug:provider_id>/login/": Row("/oidc/sso/login/", get=NOBODY, post=NOBODY),
    "oidc/<slug:provider_id>/login/callback/": Row("/oidc/sso/login/callback/", get=NOBODY),
    "oidc/cancelled/": Row("/oidc/cancelled/", get=PUBLIC),
    "oidc/inactive/": Row("/oidc/inactive/", get=CLOSED),
    # Pictures and sources
    r"^images/(?P<sha256>[0-9a-f]{64})\.png$": Row("/images/{picture}.png", get=IN[LOOK]),
    "images/signed/<str:token>/": Row("/images/signed/no-such-link/", get=NOBODY),
    r"api/v1/^images/(?P<sha256>[0-9a-f]{64})/link$": Row(
        "/api/v1/images/{picture}/link", get=IN[LOOK]
    ),
    "sources/": Row("/sources/", get=ANY[LOOK]),
    "sources/new/": Row("/sources/new/", get=ANY[RUN], post=ANY[RUN]),
    # People
    "projects/": Row("/projects/", get=LOGGED_IN, post=STAFF),
    "projects/<slug:slug>/": Row("/projects/main/", get=IN[Role.ADMIN], post=IN[Role.ADMIN]),
    "projects/<slug:slug>/members/<int:user_id>/": Row(
        "/projects/main/members/{member}/", post=IN[Role.ADMIN]
    ),
    "projects/<slug:slug>/members/<int:user_id>/remove/": Row(
        "/projects/main/members/{member}/remove/", get=IN[Role.ADMIN], post=IN[Role.ADMIN]
    ),
    "account/": Row("/account/", get=LOGGED_IN, post=LOGGED_IN),
    "account/password/": Row("/account/password/", get=LOGGED_IN, post=LOGGED_IN),
    "account/tokens/": Row("/account/tokens/", post=LOGGED_IN),
    "account/tokens/<int:token_id>/revoke/": Row("/account/tokens/{token}/revoke/", post=MINE),
    "account/second-factor/": Row("/account/second-factor/", get=LOGGED_IN, post=LOGGED_IN),
    "account/sessions/": Row("/account/sessions/", get=LOGGED_IN, post=LOGGED_IN),
    "account/data/": Row("/account/data/", get=LOGGED_IN, post=LOGGED_IN),
    "people/<int:pk>/erase/": Row("/people/{member}/erase/", get=ROOT, post=ROOT),
    "audit/": Row("/audit/", get=ANY[Role.ADMIN]),
    "audit/entries.csv": Row("/audit/entries.csv", get=ANY[Role.ADMIN]),
    "api/v1/me": Row("/api/v1/me", get=LOGGED_IN),
    r"api/v1/^images/(?P<sha256>[0-9a-f]{64})\.png$": Row(
        "/api/v1/images/{picture}.png", get=IN[LOOK]
    ),
    "api/v1/edits": Row("/api/v1/edits", post=ANY[LABEL]),
    "api/v1/edits/<int:pk>": Row("/api/v1/edits/{edit}", get=IN[LOOK]),
    "api/v1/feedback": Row("/api/v1/feedback", get=ANY[Role.REVIEWER], post=ANY[LABEL]),
    "feedback/": Row("/feedback/", get=ANY[LOOK]),
    "edit/": Row("/edit/", get=ANY[LABEL], post=ANY[LABEL]),
    "edit/<int:pk>/": Row("/edit/{edit}/", get=IN[LOOK]),
    "edit/<int:pk>/label/": Row("/edit/{edit}/label/", post=IN[RUN]),
    "api/v1/rerank": Row("/api/v1/rerank", post=ANY[LABEL]),
    "api/v1/rerank/<int:pk>": Row("/api/v1/rerank/{ranking}", get=IN[LOOK]),
    # Webhooks
    "webhooks/": Row("/webhooks/", get=ANY[RUN], post=ANY[RUN]),
    "webhooks/<int:pk>/": Row("/webhooks/{endpoint}/", get=IN[RUN]),
    "webhooks/<int:pk>/change/": Row("/webhooks/{endpoint}/change/", post=IN[RUN]),
    "webhooks/deliveries/<int:pk>/again/": Row(
        "/webhooks/deliveries/{delivery}/again/", post=IN[RUN]
    ),
    # Labelling
    "label/": Row("/label/", get=LOGGED_IN),
    "label/campaign/<int:campaign_id>/": Row("/label/campaign/{campaign}/", get=IN[LABEL]),
    "label/campaign/<int:campaign_id>/ahead/": Row(
        "/label/campaign/{campaign}/ahead/", post=IN[LABEL]
    ),
    "label/history/": Row("/label/history/", get=LOGGED_IN),
    "label/campaign/<int:campaign_id>/practice/": Row(
        "/label/campaign/{campaign}/practice/", get=IN[LABEL]
    ),
    "label/<int:assignment_id>/feedback/": Row("/label/{practised}/feedback/", get=MINE),
    "label/<int:assignment_id>/flag/": Row("/label/{turn}/flag/", post=OWN),
    "label/campaign/<int:campaign_id>/undo/": Row(
        "/label/campaign/{campaign}/undo/", post=IN[LABEL]
    ),
    "label/<int:assignment_id>/": Row("/label/{turn}/", get=OWN, post=OWN),
    "label/<int:assignment_id>/skip/": Row("/label/{turn}/skip/", post=OWN),
    "label/outline/<str:sha256>.svg": Row("/label/outline/{mask}.svg", get=IN[LOOK]),
    "label/shade/<str:sha256>.svg": Row("/label/shade/{mask}.svg", get=IN[LOOK]),
    # Exports
    "exports/": Row("/exports/", get=ANY[RUN], post=ANY[RUN]),
    "exports/<int:pk>/": Row("/exports/{export}/", get=IN[RUN]),
    "exports/<int:pk>/change/": Row("/exports/{export}/change/", post=IN[RUN]),
    "exports/<int:pk>/file/": Row("/exports/{export}/file/", get=IN[RUN]),
    "api/v1/exports": Row("/api/v1/exports", get=ANY[RUN], post=ANY[RUN]),
    "api/v1/exports/<int:pk>": Row("/api/v1/exports/{export}", get=IN[RUN], delete=IN[RUN]),
    "api/v1/exports/<int:pk>/download": Row("/api/v1/exports/{export}/download", get=IN[RUN]),
    # Campaigns
    "campaigns/": Row("/campaigns/", get=ANY[LOOK]),
    "campaigns/new/": Row("/campaigns/new/", get=ANY[RUN], post=ANY[RUN]),
    "campaigns/<int:campaign_id>/": Row("/campaigns/{campaign}/", get=IN[LOOK]),
    "campaigns/<int:campaign_id>/state/": Row("/campaigns/{campaign}/state/", post=IN[RUN]),
    "campaigns/<int:campaign_id>/sets/": Row(
        "/campaigns/{campaign}/sets/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/sets/adding/": Row(
        "/campaigns/{campaign}/sets/adding/", get=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/edit/": Row(
        "/campaigns/{campaign}/edit/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/clone/": Row("/campaigns/{campaign}/clone/", post=IN[RUN]),
    "campaigns/<int:campaign_id>/preview/": Row("/campaigns/{campaign}/preview/", get=IN[RUN]),
    "campaigns/<int:campaign_id>/members/": Row(
        "/campaigns/{campaign}/members/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/gold/": Row(
        "/campaigns/{campaign}/gold/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/gold/<int:item_id>/": Row(
        "/campaigns/{campaign}/gold/{item}/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/guide/": Row("/campaigns/{campaign}/guide/", get=IN[LABEL]),
    "campaigns/<int:campaign_id>/quality/": Row(
        "/campaigns/{campaign}/quality/", get=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/quality/consensus/": Row(
        "/campaigns/{campaign}/quality/consensus/", post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/quality/pause/": Row(
        "/campaigns/{campaign}/quality/pause/", post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/quality/gold/": Row(
        "/campaigns/{campaign}/quality/gold/", get=IN[RUN], post=IN[RUN]
    ),
    "campaigns/<int:campaign_id>/quality/people/<int:user_id>/": Row(
        "/campaigns/{campaign}/quality/people/{worker}/",
        get=IN[RUN],
        post=IN[RUN],
        sent=(("verb", "resume"),),
    ),
    "campaigns/<int:campaign_id>/labels/": Row(
        "/campaigns/{campaign}/labels/", get=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/review/": Row(
        "/campaigns/{campaign}/review/", get=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/review/<int:item_id>/": Row(
        "/campaigns/{campaign}/review/{item}/", get=IN[Role.REVIEWER], post=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/review/<int:item_id>/withdraw/": Row(
        "/campaigns/{campaign}/review/{item}/withdraw/", post=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/review/<int:item_id>/gold/": Row(
        "/campaigns/{campaign}/review/{item}/gold/", post=IN[Role.REVIEWER]
    ),
    "campaigns/<int:campaign_id>/flags/<int:flag_id>/": Row(
        "/campaigns/{campaign}/flags/{flag}/", post=IN[Role.REVIEWER]
    ),
    "join/<str:secret>/": Row("/join/no-such-secret/", get=NOBODY, post=NOBODY),
    # The loop
    "loop/": Row("/loop/", get=ANY[LOOK]),
    "loop/start/": Row("/loop/start/", post=ANY[RUN]),
    "loop/<int:number>/": Row("/loop/{round}/", get=ANY[LOOK]),
    "governance/": Row("/governance/", get=ANY[LOOK]),
    "governance/reviewed/": Row("/governance/reviewed/", post=ANY[RUN]),
    "governance/wordings/<slug:slug>/": Row("/governance/wordings/structure/", get=ANY[LOOK]),
    "governance/tags/": Row("/governance/tags/", get=ANY[LOOK]),
    "loop/<int:number>/report/": Row("/loop/{round}/report/", get=ANY[LOOK]),
    "loop/<int:number>/labelled/": Row("/loop/{round}/labelled/", post=ANY[RUN]),
    "loop/<int:number>/cancel/": Row("/loop/{round}/cancel/", post=ANY[RUN]),
    "loop/<int:number>/approve/": Row("/loop/{round}/approve/", post=ANY[RUN]),
    "loop/<int:number>/undo/": Row("/loop/{round}/undo/", get=ANY[RUN], post=ANY[RUN]),
    "loop/steps/<int:pk>/": Row("/loop/steps/{step}/", get=ANY[RUN]),
    "loop/steps/<int:pk>/skip/": Row("/loop/steps/{step}/skip/", post=ANY[RUN]),
    "loop/steps/<int:pk>/back/": Row("/loop/steps/{step}/back/", post=ANY[RUN]),
    "loop/steps/<int:pk>/retry/": Row("/loop/steps/{step}/retry/", post=ANY[RUN]),
    "leaderboard/": Row("/leaderboard/", get=ANY[LOOK]),
    "leaderboard/share/": Row("/leaderboard/share/", post=ANY[RUN]),
    "leaderboard/links/<int:pk>/hide/": Row("/leaderboard/links/{board}/hide/", post=IN[RUN]),
    "leaderboard/<str:secret>/": Row("/leaderboard/no-such-secret/", get=NOBODY),
    "sampling/": Row("/sampling/", get=ANY[LOOK]),
    "studies/": Row("/studies/", get=ANY[LOOK], post=ANY[RUN]),
    "studies/power/": Row("/studies/power/", get=ANY[LOOK]),
    "studies/<int:pk>/": Row("/studies/{study}/", get=IN[LOOK]),
    "studies/<int:pk>/figures/": Row("/studies/{study}/figures/", post=IN[RUN]),
    "policies/": Row("/policies/", get=ANY[LOOK]),
    "policies/<int:pk>/": Row("/policies/{policy}/", get=ANY[LOOK]),
    "policies/<int:pk>/activate/": Row("/policies/{policy}/activate/", post=ANY[RUN]),
    "policies/<int:pk>/weights/": Row("/policies/{policy}/weights/", get=ANY[RUN]),
    "reward-models/<int:pk>/again/<int:set_id>/": Row(
        "/reward-models/{reward}/again/{set}/", post=IN[RUN]
    ),
    "reward-models/<int:pk>/": Row("/reward-models/{reward}/", get=ANY[LOOK]),
    "lineage/policies/<int:pk>/": Row("/lineage/policies/{policy}/", get=ANY[LOOK]),
    "lineage/reward-models/<int:pk>/": Row("/lineage/reward-models/{reward}/", get=ANY[LOOK]),
    "lineage/snapshots/<int:pk>/": Row("/lineage/snapshots/{snapshot}/", get=ANY[LOOK]),
    "lineage/sources/<int:pk>/": Row("/lineage/sources/{source}/", get=IN[LOOK]),
    "lineage/sources/<int:pk>/withdraw/": Row("/lineage/sources/{source}/withdraw/", post=IN[RUN]),
    "lineage/people/<int:pk>/": Row("/lineage/people/{member}/", get=STAFF),
    "lineage/people/<int:pk>/withdraw/": Row("/lineage/people/{member}/withdraw/", post=STAFF),
    # The API
    "api/v1/schema/": Row("/api/v1/schema/", get=PUBLIC),
    "api/v1/docs/": Row("/api/v1/docs/", get=LOGGED_IN),
    "api/v1/projects": Row("/api/v1/projects", get=ANY[LOOK]),
    "api/v1/projects/<slug:slug>": Row("/api/v1/projects/main", get=IN[LOOK]),
    "api/v1/tasks": Row("/api/v1/tasks", get=ANY[LOOK]),
    "api/v1/tasks/<slug:slug>": Row("/api/v1/tasks/fill", get=ANY[LOOK]),
    "api/v1/sources": Row("/api/v1/sources", get=ANY[LOOK], post=ANY[RUN]),
    "api/v1/sources/<int:pk>": Row("/api/v1/sources/{source}", get=IN[LOOK]),
    "api/v1/policies": Row("/api/v1/policies", get=ANY[LOOK]),
    "api/v1/policies/<int:pk>": Row("/api/v1/policies/{policy}", get=ANY[LOOK]),
    "api/v1/sampling-plans": Row("/api/v1/sampling-plans", get=ANY[LOOK]),
    "api/v1/sampling-plans/<int:pk>": Row("/api/v1/sampling-plans/{plan}", get=ANY[LOOK]),
    "api/v1/generations": Row("/api/v1/generations", get=ANY[LOOK], post=ANY[RUN]),
    "api/v1/generations/<int:pk>": Row("/api/v1/generations/{run}", get=ANY[LOOK]),
    "api/v1/candidate-sets": Row("/api/v1/candidate-sets", get=ANY[Role.REVIEWER]),
    "api/v1/candidate-sets/<int:pk>": Row("/api/v1/candidate-sets/{set}", get=IN[Role.REVIEWER]),
    "api/v1/webhooks": Row("/api/v1/webhooks", get=ANY[RUN]),
    "api/v1/webhooks/<int:pk>": Row("/api/v1/webhooks/{endpoint}", get=IN[RUN]),
    "api/v1/webhook-deliveries": Row("/api/v1/webhook-deliveries", get=ANY[RUN]),
    "api/v1/withdrawals": Row("/api/v1/withdrawals", get=ANY[LOOK]),
    "api/v1/dimensions": Row("/api/v1/dimensions", get=ANY[LOOK]),
    "api/v1/dimensions/<slug:slug>": Row("/api/v1/dimensions/structure", get=ANY[LOOK]),
    "api/v1/campaigns": Row("/api/v1/campaigns", get=ANY[LOOK], post=ANY[RUN]),
    "api/v1/campaigns/<int:pk>": Row("/api/v1/campaigns/{campaign}", get=IN[LOOK]),
    "api/v1/campaigns/<int:pk>/progress": Row(
        "/api/v1/campaigns/{campaign}/progress", get=IN[LOOK]
    ),
    "api/v1/campaigns/<int:pk>/items": Row("/api/v1/campaigns/{campaign}/items", get=IN[LOOK]),
    "api/v1/campaigns/<int:pk>/sets": Row("/api/v1/campaigns/{campaign}/sets", post=IN[RUN]),
    "api/v1/campaigns/<int:pk>/state": Row("/api/v1/campaigns/{campaign}/state", post=IN[RUN]),
    "api/v1/judgments": Row("/api/v1/judgments", get=ANY[Role.REVIEWER]),
    "api/v1/judgments/<int:pk>": Row("/api/v1/judgments/{judgment}", get=IN[Role.REVIEWER]),
    "api/v1/ratings": Row("/api/v1/ratings", get=ANY[Role.REVIEWER]),
    "api/v1/ratings/<int:pk>": Row("/api/v1/ratings/{rating}", get=IN[Role.REVIEWER]),
    "api/v1/preferences": Row("/api/v1/preferences", get=ANY[Role.REVIEWER]),
    "api/v1/reward-models": Row("/api/v1/reward-models", get=ANY[LOOK]),
    "api/v1/reward-models/<int:pk>": Row("/api/v1/reward-models/{reward}", get=ANY[LOOK]),
    "api/v1/snapshots": Row("/api/v1/snapshots", get=ANY[LOOK]),
    "api/v1/snapshots/<int:pk>": Row("/api/v1/snapshots/{snapshot}", get=ANY[LOOK]),
    "api/v1/trainings": Row("/api/v1/trainings", get=ANY[LOOK]),
    "api/v1/trainings/<int:pk>": Row("/api/v1/trainings/{training}", get=ANY[LOOK]),
    "api/v1/evaluations": Row("/api/v1/evaluations", get=ANY[LOOK]),
    "api/v1/evaluations/<int:pk>": Row("/api/v1/evaluations/{evaluation}", get=ANY[LOOK]),
    "api/v1/rounds": Row("/api/v1/rounds", get=ANY[LOOK]),
    "api/v1/rounds/<int:number>": Row("/api/v1/rounds/{round}", get=ANY[LOOK]),
    "api/v1/leaderboard": Row("/api/v1/leaderboard", get=ANY[LOOK]),
    "api/v1/studies": Row("/api/v1/studies", get=ANY[LOOK]),
    "api/v1/studies/<int:pk>": Row("/api/v1/studies/{study}", get=IN[LOOK]),
    "api/v1/feedback/report": Row("/api/v1/feedback/report", get=ANY[LOOK]),
    "api/v1/lineage/<str:kind>/<int:pk>": Row("/api/v1/lineage/policies/{policy}", get=ANY[LOOK]),
    "api/v1/lineage/sources/<int:pk>": Row("/api/v1/lineage/sources/{source}", get=IN[LOOK]),
    "api/v1/lineage/judgments/<int:pk>": Row(
        "/api/v1/lineage/judgments/{judgment}", get=IN[Role.REVIEWER]
    ),
    "api/v1/lineage/snapshots/<int:pk>/judgments": Row(
        "/api/v1/lineage/snapshots/{snapshot}/judgments", get=ANY[Role.REVIEWER]
    ),
}

# Who comes --------------------------------------------------------------------------------------

# `outsider` is admin of another project, `staff` may enter the admin, `root` may do everything.
PEOPLE = ["anonymous", "stranger", "outsider", *Role.values, "staff", "root"]


def make_people() -> dict[str, User | None]:
    elsewhere = Project.objects.create(slug="elsewhere", name="Elsewhere")
    people: dict[str, User | None] = {role: make_user(role, role=role) for role in Role.values}
    outsider = make_user("outsider", role=None)
    Membership.objects.create(project=elsewhere, user=outsider, role=Role.ADMIN)
    return people | {
        "anonymous": None,
        "stranger": make_user("stranger", role=None),
        "outsider": outsider,
        "staff": make_user("staff", role=None, is_staff=True),
        "root": make_user("root", role=None, is_superuser=True, is_staff=True),
    }


def role_of(who: str) -> Role | None:
    return {"staff": Role.MANAGER, "root": Role.ADMIN}.get(who) or next(
        (role for role in Role if role == who), None
    )


def expected(rule: str, who: str) -> str:
    """ "in", "login" (asked to log in), "refused" (403 with a reason) or "nothing" (404)."""
    role = role_of(who)
    always = {PUBLIC: "in", NOBODY: "nothing", CLOSED: "refused"}
    if rule in always:
        return always[rule]
    if who == "anonymous":
        return "login"
    if rule == LOGGED_IN:
        return "in"
    if rule == STAFF:
        return "in" if who in ("staff", "root") else "refused"
    if rule == ROOT:
        return {"root": "in", "staff": "refused"}.get(who, "nothing")
    if rule == MINE:
        return "in" if who == Role.ANNOTATOR else "nothing"
    if rule == OWN:
        if role is None:
            return "nothing"
        return "in" if who == Role.ANNOTATOR else "refused"
    if rule in ANY.values() and who == "outsider":
        role = Role.ADMIN
    if role is None:
        return "nothing"
    table = IN if rule in IN.values() else ANY
    needed = next(one for one in Role if table[one] == rule)
    ladder = list(Role)
    return "in" if ladder.index(role) >= ladder.index(needed) else "refused"


def answer(response: Any) -> str:
    if response.status_code == 404:
        return "nothing"
    if response.status_code == 403:
        return "refused"
    if response.status_code == 401:
        return "login"
    if response.status_code == 302 and response["Location"].startswith("/login/?next="):
        return "login"
    assert response.status_code in (200, 204, 302, 409, 415, 422, 503), response.status_code
    return "in"


def make_site() -> dict[str, Any]:
    """One of everything, in the project “Main”; the turn and the token are the annotator's."""
    people = make_people()
    annotator = people[Role.ANNOTATOR]
    assert annotator is not None
    campaign = make_campaign(sets=2)
    turn = claim(annotator, campaign)
    item = turn.item
    practised = Assignment.objects.create(
        item=item,
        set=turn.set,
        annotator=annotator,
        kind=Assignment.Kind.PRACTICE,
        state=Assignment.State.SUBMITTED,
        submitted_at=timezone.now(),
        slot=0,
        order=turn.order,
        lease_until=timezone.now(),
    )
    round_ = make_round()
    step = round_.steps.get(name=RoundStep.Name.GENERATE)
    RoundStep.objects.filter(pk=step.pk).update(state=JobState.FAILED)
    token, _ = tokens.make(user=annotator, name="x", scopes=["read"])
    endpoint = Endpoint.objects.create(
        project=campaign.project, url="https://example.org/", topics=["run"]
    )
    candidate = turn.set.candidates.select_related("image")[0]
    assert candidate.image is not None
    return {
        "people": people,
        "project": campaign.project,
        "campaign": campaign.pk,
        "turn": turn.pk,
        "item": item.pk,
        "practised": practised.pk,
        "worker": annotator.pk,
        "flag": Flag.objects.create(assignment=turn, reason="dark").pk,
        "picture": candidate.image.sha256,
        "mask": turn.set.source.mask.sha256,
        "member": make_user("member").pk,
        "token": token.pk,
        "round": round_.number,
        "step": step.pk,
        "policy": make_policy().pk,
        "reward": RewardModel.objects.get().pk,
        "endpoint": endpoint.pk,
        "delivery": webhooks.send_test(endpoint).pk,
        "edit": make_edit(turn.set.source).pk,
        "export": make_export(campaign.project).pk,
        "ranking": make_ranking(turn.set.source).pk,
        "set": turn.set.pk,
        "study": Study.objects.create(name="study").pk,
        "board": LeaderboardLink.objects.create(digest="0" * 64).pk,
        "source": turn.set.source_id,
        "snapshot": Snapshot.objects.create(content_hash="0" * 64, directory="-").pk,
        "plan": make_plan(turn.set.source.task).pk,
        "run": GenerationRun.objects.latest("pk").pk,
        "rating": make_rating(practised).pk,
        "training": TrainingRun.objects.create(kind="reward", directory="-").pk,
        "evaluation": make_evaluation_row().pk,
        "judgment": make_judgment(practised).pk,
    }


def make_judgment(turn: Assignment) -> Judgment:
    dimension = turn.set.source.task.dimensions.all()[0]
    return Judgment.objects.create(
        assignment=turn,
        set=turn.set,
        dimension=dimension,
        wording=dimension.wording,
        outcome=Judgment.Outcome.NO_DIFFERENCE,
    )


def make_rating(turn: Assignment) -> Rating:
    candidate = turn.set.candidates.all()[0]
    return Rating.objects.create(assignment=turn, set=turn.set, candidate=candidate, value=1)


def make_evaluation_row() -> Evaluation:
    return Evaluation.objects.create(kind="reward", reward_model=RewardModel.objects.get())


def make_edit(source: Source) -> Edit:
    run = make_run()
    return Edit.objects.create(set=make_set(source, run=run), wanted=4)


def make_export(project: Project) -> Export:
    key = default_storage.save("exports/1.zip", ContentFile(b"PK"))
    return Export.objects.create(project=project, state="succeeded", archive=key, byte_size=2)


def make_ranking(source: Source) -> Ranking:
    return Ranking.objects.create(
        project=source.project,
        task=source.task,
        image=source.image,
        mask=source.mask,
        reward_model=RewardModel.objects.get(),
    )


# The walk ---------------------------------------------------------------------------------------


def routes(resolver: Any, before: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, route)
        else:
            yield route


ROUTES = list(routes(get_resolver()))
ADMIN = [route for route in ROUTES if route.startswith("admin/")]
READS = {row.path: row.get for row in TABLE.values() if row.get is not None}
SENT = {row.path: dict(row.sent) for row in TABLE.values()}
ACTS = {("post", row.path): row.post for row in TABLE.values() if row.post is not None}
ACTS |= {("delete", row.path): row.delete for row in TABLE.values() if row.delete is not None}


def test_every_address_has_a_row_and_every_row_an_address() -> None:
    assert set(TABLE) == set(ROUTES) - set(ADMIN)


def client_of(user: User | None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


@pytest.mark.parametrize("who", PEOPLE)
def test_it_shows_a_person_what_the_table_says(who: str) -> None:
    site = make_site()
    client = client_of(site["people"][who])
    found = {path: answer(client.get(path.format(**site))) for path in READS}
    assert found == {path: expected(rule, who) for path, rule in READS.items()}


@pytest.mark.parametrize(("verb", "path"), ACTS)
def test_it_lets_those_act_whom_the_table_names(verb: str, path: str) -> None:
    site = make_site()
    found = {}
    for who in PEOPLE:
        # Whoever was let in before may have taken the member out.
        Membership.objects.get_or_create(project=site["project"], user_id=site["member"])
        ask = getattr(client_of(site["people"][who]), verb)
        found[who] = answer(ask(path.format(**site), SENT[path]))
    assert found == {who: expected(ACTS[verb, path], who) for who in PEOPLE}


def test_it_knows_no_other_way_to_ask() -> None:
    """Whatever the table does not name is refused to the mightiest, too: each verb of HTTP."""
    site = make_site()
    client = client_of(site["people"]["root"])
    found = {}
    for row in TABLE.values():
        if not {PUBLIC, NOBODY, CLOSED} & {row.get, row.post}:
            verbs = ["put", "patch", "trace"]
            verbs += ["delete"] if row.delete is None else []
            verbs += ["get"] if row.get is None else []
            verbs += ["post"] if row.post is None else []
            for verb in verbs:
                answered = getattr(client, verb)(row.path.format(**site))
                found[f"{verb} {row.path}"] = answered.status_code
        client.force_login(site["people"]["root"])
    # The start page has no verbs: it shows itself to whatever asks.
    assert {found.pop(f"{verb} /") for verb in ("post", "put", "patch", "delete", "trace")} == {200}
    wrong = {asked: status for asked, status in found.items() if status != 405}
    assert not wrong


def test_the_admin_is_for_staff() -> None:
    people = make_people()
    assert len(ADMIN) > 50
    paths = {f"/{_filled(route)}" for route in ADMIN}
    for who in ("anonymous", "stranger", "outsider", *Role.values):
        client = client_of(people[who])
        for path in sorted(paths - {"/admin/login/", "/admin/logout/"}):
            response = client.get(path)
            asked = response.status_code == 302 and "/login/?next=" in response["Location"]
            assert asked, (who, path, response.status_code)


def _filled(route: str) -> str:
    route = re.sub(r"<int:\w+>|<path:\w+>|<id>", "1", route)
    route = re.sub(r"\(\?P<\w+>[^)]*\)", "auth", route)
    return route.replace("^", "").replace("$", "").replace("\\", "")
