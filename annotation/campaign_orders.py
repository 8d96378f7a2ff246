"""Campaigns made and changed over the API, by the forms and verbs of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db.models import QuerySet
from django.forms import Form
from django.http import QueryDict
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import additions, campaigns, comparisons, contents
from annotation.campaign_api import AddingOut, OfCampaign
from annotation.campaign_api import Campaigns as ReadCampaigns
from annotation.campaign_forms import CampaignForm, who_may_judge
from annotation.campaigns import Entry, change_state
from annotation.contents_forms import ContentsForm
from annotation.errors import Refused
from annotation.models import Campaign, Dimension
from annotation.read_api import CAMPAIGNS, CampaignOut
from generation import api, audit
from generation.api_fields import Choice, Moment, Number, Order, Real, Slug, Switch, Text, Whole
from generation.idempotency import HEADER, once
from generation.models import CandidateSet, Policy, Project, Role, Task, Verb
from generation.problems import Conflict, Unfit

Purpose, State = Campaign.Purpose, Campaign.State
MOST = 2000  # sets that are named in one request
Entries = Callable[[Campaign], Iterable[CandidateSet | Entry]]


class ContentsOrder(Order):
    """Which sets, pairs or pictures; all ready sets of the campaign's tasks where nothing is said.

    A comparison takes the two policies `a` and `b` instead.
    """

    sets = serializers.ListField(
        child=Number(), required=False, max_length=MOST, help_text="These sets alone."
    )
    run = Number(required=False, help_text="Those of one generation.")
    a = Text(required=False, max_length=120, help_text="Name of a policy.")
    b = Text(required=False, max_length=120, help_text="Name of the other.")
    policies = serializers.ListField(
        child=Text(max_length=120),
        required=False,
        max_length=100,
        help_text="Whose pictures are rated; else everybody's.",
    )
    per_set = Choice(
        choices=["all", "one"], required=False, help_text="Pictures of each set that are rated."
    )


class CampaignOrder(ContentsOrder):
    name = Text(max_length=120, trim_whitespace=True)
    project = Slug(required=False, help_text="Not needed by those who manage one project.")
    purpose = Choice(choices=Purpose.values, default=Purpose.PREFERENCE.value)
    state = Choice(choices=[State.DRAFT.value, State.OPEN.value], default=State.OPEN.value)
    tasks = serializers.ListField(child=Slug(), min_length=1, max_length=100)
    dimensions = serializers.ListField(
        child=Slug(), default=list, max_length=100, help_text="None: every one of the tasks'."
    )
    members = serializers.ListField(
        child=Text(max_length=150),
        default=list,
        max_length=1000,
        help_text="Names of those who may judge; none: everyone in the project.",
    )
    overlap = Whole(default=1, min_value=1, max_value=50, help_text="People per set.")
    guideline = Text(default="", allow_blank=True, max_length=50_000)
    daily_limit = Whole(required=False, min_value=1, max_value=1_000_000)
    deadline = Moment(required=False)
    gold_rate = Real(default=0.0, min_value=0, max_value=1)
    repeat_rate = Real(default=0.0, min_value=0, max_value=1)
    lease_minutes = Whole(default=30, min_value=1, max_value=24 * 60)
    one_at_a_time = Switch(default=False)
    editable = Switch(default=True)
    show_gold = Switch(default=False)
    break_minutes = Whole(default=45, min_value=0, max_value=1440)
    practice_sets = Whole(default=0, min_value=0, max_value=1000)
    practice_share = Real(default=0.8, min_value=0, max_value=1)
    pause_below = Real(required=False, min_value=0, max_value=1)
    pause_after = Whole(default=10, min_value=0, max_value=1000)


class Campaigns(ReadCampaigns):
    @extend_schema(
        operation_id="campaigns_create",
        parameters=[HEADER],
        request=CampaignOrder,
        responses={201: CampaignOut},
        examples=[
            OpenApiExample(
                "Best and worst of every ready set, by three people",
                value={"name": "Spring", "tasks": ["fill"], "overlap": 3},
                request_only=True,
            )
        ],
    )
    @once
    def post(self, request: Request) -> Response:
        """Make a campaign. `"sets": []` makes one whose sets come later."""
        said = api.read(CampaignOrder, request)
        project = api.project_for(self.person, said.get("project", ""), Role.MANAGER)
        made = _make(said, project, self.person)
        row = CAMPAIGNS.get(pk=made.pk)
        place = reverse("annotation:api_campaign", args=[made.pk])
        return Response(CampaignOut(row).data, status=201, headers={"Location": place})


def _make(said: dict[str, Any], project: Project, user: Any) -> Campaign:
    form = _settings(said, project)
    wanted = {
        "purpose": said["purpose"],
        "state": said["state"],
        "created_by": user,
        **form.settings(),
    }
    try:
        if said.get("sets") == []:
            made = campaigns.open_campaign(sets=(), may_be_empty=True, **wanted)
            campaigns.note_made(made, user)
            return made
        entries = entries_of(said, said["purpose"], project)
        return contents.create(entries=entries, **wanted)[0]
    except Refused as error:
        raise Unfit(error.message) from None


def _settings(said: dict[str, Any], project: Project) -> CampaignForm:
    projects = Project.objects.filter(pk=project.pk)
    people = who_may_judge(projects)
    data = {name: said[name] for name in CampaignForm.base_fields if name in said}
    data |= {
        "tasks": _keys(Task.objects.all(), "slug", said["tasks"], "tasks"),
        "dimensions": _keys(Dimension.objects.all(), "slug", said["dimensions"], "dimensions"),
        "members": _keys(people, "username", said["members"], "members"),
    }
    form = CampaignForm(
        data, projects=projects, people=people, instance=Campaign(purpose=said["purpose"])
    )
    _require_valid(form)
    return form


def _keys(rows: QuerySet[Any], field: str, wished: Sequence[str], name: str) -> list[int]:
    found = dict(rows.filter(**{f"{field}__in": wished}).values_list(field, "pk"))
    missing = {
        f"{name}.{number}": [f"There is no “{one}” here."]
        for number, one in enumerate(wished)
        if one not in found
    }
    if missing:
        place, (why,) = next(iter(missing.items()))
        raise Unfit(f"{place}: {why}", errors=missing)
    return [found[one] for one in wished]


def _require_valid(form: Form | CampaignForm) -> None:
    if form.is_valid():
        return
    errors = {
        "non_field_errors" if name == "__all__" else name: [str(one) for one in said]
        for name, said in form.errors.items()
    }
    name, said = next(iter(errors.items()))
    raise Unfit(said[0] if name == "non_field_errors" else f"{name}: {said[0]}", errors=errors)


# What it asks about -----------------------------------------------------------------------------


def entries_of(said: dict[str, Any], purpose: str, project: Project) -> Entries:
    if "sets" in said:
        return _chosen(said["sets"], purpose)
    form = ContentsForm(
        _form_data(said), purpose=purpose, projects=Project.objects.filter(pk=project.pk)
    )
    _require_valid(form)
    return form.entries


def _form_data(said: dict[str, Any]) -> QueryDict:
    """As the page sends it, where policies go by number."""
    data = QueryDict(mutable=True)
    policies = Policy.objects.all()
    for name in ("a", "b"):
        if name in said:
            data[name] = str(_keys(policies, "name", [said[name]], name)[0])
    keys = _keys(policies, "name", said.get("policies", []), "policies")
    data.setlist("policies", [str(key) for key in keys])
    for name in ("run", "per_set"):
        if name in said:
            data[name] = str(said[name])
    return data


def _chosen(numbers: list[int], purpose: str) -> Entries:
    def entries(campaign: Campaign) -> Iterable[CandidateSet | Entry]:
        if purpose == Purpose.COMPARISON:
            raise Refused("A comparison is of two policies: give “a” and “b”, not “sets”.")
        rows = CandidateSet.objects.select_related("source__task", "source__project")
        found = rows.filter(source__project=campaign.project).in_bulk(numbers)
        if missing := [str(number) for number in numbers if number not in found]:
            raise Refused(f"sets: there is no {', '.join(missing)} in the campaign's project.")
        if purpose != Purpose.RATING:
            return [found[number] for number in numbers]
        return [Entry(found[n], (index,)) for n in numbers for index in range(found[n].size)]

    return entries


class AddedOut(serializers.Serializer[Any]):
    added = serializers.IntegerField(help_text="New in the queue; those there already stay.")
    adding = AddingOut(allow_null=True, help_text="Where a worker does it: how far that is.")


class CampaignSets(OfCampaign):
    serializer_class = AddedOut

    @extend_schema(
        operation_id="campaigns_add_sets",
        parameters=[HEADER],
        request=ContentsOrder,
        responses={200: AddedOut, 202: AddedOut},
    )
    @once
    def post(self, request: Request, pk: int) -> Response:
        """Add sets to a campaign's queue: at once, or by a worker where they are many (202)."""
        found = self.campaign()
        said = api.read(ContentsOrder, request)
        going_on = additions.latest(found)
        if going_on is not None and going_on.is_open:
            raise Conflict("Sets are being added to this campaign. Wait for that.", wait=5)
        _complete(said, found)
        entries = entries_of(said, found.purpose, found.project)
        if "sets" not in said and additions.takes_a_while(found):
            row = additions.order(campaign=found, about=_form_data(said), by=self.person)
            return Response(AddedOut({"added": 0, "adding": row}).data, status=202)
        try:
            added = campaigns.add_sets(found, entries(found))
        except Refused as error:
            raise Unfit(error.message) from None
        if added:
            after = {"sets": added}
            audit.record(actor=self.person, verb=Verb.SETS_ADDED, thing=found, after=after)
        return Response(AddedOut({"added": added, "adding": None}).data)


def _complete(said: dict[str, Any], found: Campaign) -> None:
    """A comparison goes on with its two policies."""
    goes_on = found.purpose == Purpose.COMPARISON and not {"a", "b"} & set(said)
    if goes_on and (pair := comparisons.compared(found)):
        said["a"], said["b"] = (policy.name for policy in pair)


class StateOrder(Order):
    state = Choice(choices=[State.OPEN.value, State.PAUSED.value, State.CLOSED.value])


class CampaignState(OfCampaign):
    serializer_class = CampaignOut

    @extend_schema(
        operation_id="campaigns_state",
        parameters=[HEADER],
        request=StateOrder,
        responses={200: CampaignOut},
    )
    @once
    def post(self, request: Request, pk: int) -> Response:
        """Open, pause or close a campaign; judgments that were made stay."""
        found = self.campaign()
        try:
            change_state(found, api.read(StateOrder, request)["state"], actor=self.person)
        except Refused as error:
            raise Conflict(error.message) from None
        return Response(CampaignOut(CAMPAIGNS.get(pk=found.pk)).data)
