"""The models as a service: pictures are ranked by a reward model.

Work is done by the GPU worker: an order is answered by 202 and the address of its row, or, with
`?wait=SECONDS`, by the result where it is there in time.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import (
    api_view,
    parser_classes,
    permission_classes,
    throttle_classes,
)
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from generation import api, images, sources
from generation.access import require, require_anywhere
from generation.api import PARSERS, WAIT, PictureField, Serving, Unfit, takes
from generation.api_fields import Number, Order, Slug, Text
from generation.authentication import needs_scope
from generation.models import Candidate, Role, Scope, Source
from generation.ownership import JobState
from modeling import rankings
from modeling.models import Ranking, RewardModel

SERVE: list[type[BasePermission]] = [IsAuthenticated, needs_scope(Scope.SERVE)]


class RerankOrder(Order):
    source = Number(required=False)  # type: ignore[assignment]
    project = Slug(default="")
    task = Slug(default="")
    prompt = Text(default="", allow_blank=True)
    image = PictureField(required=False)
    mask = PictureField(images.decode_mask, required=False)
    images = serializers.ListField(child=PictureField(), default=list, max_length=rankings.MOST)
    candidates = serializers.ListField(child=Number(), default=list, max_length=rankings.MOST)
    reward = Text(default="", max_length=120)


class RankedOut(serializers.Serializer[Any]):
    rank = serializers.IntegerField()
    index = serializers.IntegerField(help_text="Of the pictures, as they were given.")
    candidate = serializers.IntegerField(allow_null=True)
    image = serializers.CharField(help_text="sha256 of the picture.")
    score = serializers.FloatField()
    margins = serializers.DictField(
        child=serializers.FloatField(), help_text="Mean log-odds to be better, by dimension."
    )
    flipped = serializers.DictField(
        child=serializers.FloatField(),
        help_text="Share of its comparisons that come out otherwise with the sides swapped.",
    )


class RankingOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    url = serializers.CharField()
    state = serializers.ChoiceField(choices=JobState.choices)
    error = serializers.CharField(allow_null=True)
    task = serializers.CharField()
    reward_model = serializers.CharField()
    ranking = RankedOut(many=True, allow_null=True)


@takes("wait")
@extend_schema(
    operation_id="rerank_create",
    parameters=[WAIT],
    request=RerankOrder,
    responses={200: RankingOut, 202: RankingOut},
)
@api_view(["POST"])
@parser_classes(PARSERS)
@permission_classes(SERVE)
@throttle_classes([Serving])
def rerank(request: Request) -> Response:
    """Order pictures of one source from best to worst, with margins by dimension.

    The source is given by number (`source`), by `candidates` of it, or as `task`, `image`, `mask`
    and `prompt`; the pictures as `images` or as numbers of `candidates`. A margin is the mean
    log-odds that the picture is better than the others on that dimension.
    """
    require_anywhere(api.user_of(request), Role.ANNOTATOR)
    data, seconds = api.read(RerankOrder, request), api.wait_seconds(request)
    with transaction.atomic():
        row = _ordered(request, data)
    return answer(request, row, seconds)


def _ordered(request: Request, data: dict[str, Any]) -> Ranking:
    user = api.user_of(request)
    if bool(data["images"]) == bool(data["candidates"]):
        raise Unfit(_("Give the pictures as “images” or as “candidates”."))
    candidates = _candidates(data["candidates"])
    try:
        source = _source(request, data, candidates)
        given = [rankings.Given(one.image, one) for one in candidates if one.image is not None]
        given += [rankings.Given(images.store(picture)) for picture in data["images"]]
        return rankings.order(
            project=source.project,
            source=source,
            pictures=given,
            model=reward_named(data["reward"]),
            user=user,
        )
    except (rankings.RankingError, sources.SourceError, images.ImageError) as error:
        raise Unfit(str(error)) from None


def _candidates(numbers: list[int]) -> list[Candidate]:
    """In the order given; one that is not there answers as one that may not be seen."""
    rows = Candidate.objects.filter(image__isnull=False).select_related("image")
    found = rows.select_related("set__source").in_bulk(numbers)
    missing = [str(number) for number in numbers if number not in found]
    if missing:
        raise Http404(_("There is no candidate %(numbers)s.") % {"numbers": ", ".join(missing)})
    return [found[number] for number in numbers]


def _source(request: Request, data: dict[str, Any], candidates: list[Candidate]) -> Source:
    user = api.user_of(request)
    numbers = {candidate.set.source_id for candidate in candidates}
    if "source" in data:
        numbers.add(data["source"])
    if not numbers:
        project = api.project_for(user, data["project"], Role.ANNOTATOR)
        return sources.loose_source(
            task=api.task_for(data["task"]),
            image=data.get("image"),
            mask=data.get("mask"),
            prompt=data["prompt"],
            project=project,
        )
    rows = Source.objects.select_related("task", "image", "mask", "project")
    found = [get_object_or_404(rows, pk=number) for number in sorted(numbers)]
    for source in found:  # a stranger learns nothing, not even that sources differ
        require(user, source.project, Role.ANNOTATOR)
    if len(found) > 1:
        raise Unfit(_("All pictures must be edits of one source."))
    return found[0]


def reward_named(name: str) -> RewardModel:
    if not name:
        return rankings.active_reward()
    model = RewardModel.objects.filter(name=name).first()
    if model is None:
        raise Unfit(_("There is no reward model “%(name)s”.") % {"name": name})
    return model


@takes("wait")
@extend_schema(operation_id="rerank_retrieve", parameters=[WAIT], responses=RankingOut)
@api_view(["GET"])
@permission_classes(SERVE)
def ranking(request: Request, pk: int) -> Response:
    """A ranking's state and, once there, its result."""
    row = get_object_or_404(Ranking.objects.select_related("project"), pk=pk)
    require(api.user_of(request), row.project, Role.VIEWER)
    return answer(request, row, api.wait_seconds(request), asked=True)


def answer(request: Request, row: Ranking, seconds: float, *, asked: bool = False) -> Response:
    """The row's state: 202 while somebody who ordered it must still come back."""
    row = rankings.wait(row, seconds)
    body = rankings.as_json(row, request.build_absolute_uri)
    open_ = row.state in (JobState.QUEUED, JobState.RUNNING)
    return Response(
        body,
        status=202 if open_ and not asked else 200,
        headers={"Location": body["url"]} | ({"Retry-After": "1"} if open_ else {}),
    )


urlpatterns: list[URLPattern] = [
    path("rerank", rerank, name="api_rerank"),
    path("rerank/<int:pk>", ranking, name="api_ranking"),
]
