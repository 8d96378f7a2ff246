"""Edits over the API: pictures by a policy, on order."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import (
    api_view,
    parser_classes,
    permission_classes,
    throttle_classes,
)
from rest_framework.request import Request
from rest_framework.response import Response

from generation import api, candidates, images
from generation.access import require, require_anywhere
from generation.api import PARSERS, WAIT, PictureField, Serving, Unfit, takes
from generation.api_fields import Number, Order, Real, Slug, Switch, Text, Whole
from generation.idempotency import HEADER, done_once
from generation.models import Role, Source
from generation.ownership import JobState
from modeling import edits
from modeling.api_views import SERVE, reward_named
from modeling.models import Edit


def _number(name: str) -> Any:
    low, high = edits.SAMPLING[name]
    return Real(min_value=low, max_value=high, required=False)


class EditOrder(Order):
    project = Slug(default="")
    source = Number(required=False)  # type: ignore[assignment]
    task = Slug(default="")
    prompt = Text(default="", allow_blank=True)
    image = PictureField(required=False)
    mask = PictureField(images.decode_mask, required=False)
    policy = Text(default=edits.ACTIVE, max_length=120)
    n = Whole(default=4, min_value=1, max_value=edits.MOST)
    best_of = Whole(required=False, min_value=edits.FEWEST, max_value=edits.MOST)
    reward = Text(default="", max_length=120)
    rank = Switch(default=False)
    seed = Whole(required=False, min_value=0, max_value=candidates.LARGEST_SEED - 1)
    num_inference_steps = Whole(required=False, min_value=1, max_value=200)
    strength = _number("strength")
    guidance_scale = _number("guidance_scale")
    true_cfg_scale = _number("true_cfg_scale")
    negative_prompt = Text(required=False, allow_blank=True, max_length=2000)


class MadeOut(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    image = serializers.CharField(help_text="sha256 of the picture.")
    url = serializers.CharField()
    rank = serializers.IntegerField(allow_null=True)
    score = serializers.FloatField(allow_null=True)
    margins = serializers.DictField(child=serializers.FloatField(), allow_null=True)
    seed = serializers.IntegerField(allow_null=True)
    num_inference_steps = serializers.IntegerField(allow_null=True)
    strength = serializers.FloatField(allow_null=True)
    guidance_scale = serializers.FloatField(allow_null=True)
    true_cfg_scale = serializers.FloatField(allow_null=True)
    negative_prompt = serializers.CharField(allow_blank=True)
    width = serializers.IntegerField()
    height = serializers.IntegerField()


class HowFarOut(serializers.Serializer[Any]):
    made = serializers.IntegerField()
    of = serializers.IntegerField()


class EditOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    url = serializers.CharField()
    state = serializers.ChoiceField(choices=JobState.choices)
    error = serializers.CharField(allow_null=True)
    progress = HowFarOut()
    source = serializers.IntegerField()  # type: ignore[assignment]
    task = serializers.CharField()
    prompt = serializers.CharField(allow_blank=True)
    policy = serializers.CharField()
    seed = serializers.IntegerField()
    reward_model = serializers.CharField(allow_null=True)
    images = MadeOut(many=True)


@takes("wait")
@extend_schema(
    operation_id="edits_create",
    parameters=[WAIT, HEADER],
    request=EditOrder,
    responses={200: EditOut, 202: EditOut},
)
@api_view(["POST"])
@parser_classes(PARSERS)
@permission_classes(SERVE)
@throttle_classes([Serving])
def edit_order(request: Request) -> Response:
    """Edit a picture: `n` pictures by a policy, or the best `n` of `best_of` by reward.

    What is edited is given as `task`, `image`, `mask` and `prompt`, or as the number of a `source`,
    whose mask and prompt others may replace. Sampling values that are not given are drawn from the
    task's plan. Sent again with the same key, the edit is not made again: it is told how far it is.
    """
    require_anywhere(api.user_of(request), Role.ANNOTATOR)
    data, seconds = api.read(EditOrder, request), api.wait_seconds(request)

    def order() -> Response:
        return Response({"id": _ordered(request, data).pk}, status=202)

    try:
        ordered = done_once(request, api.user_of(request).pk, order)
    except edits.REFUSALS as error:
        raise Unfit(str(error)) from None
    edit = get_object_or_404(edits.with_all(), pk=ordered.data["id"])
    found = answer(request, edit, seconds)
    for name in ordered.headers.keys() & {"Idempotency-Replayed"}:
        found.headers[name] = ordered.headers[name]
    return found


def _ordered(request: Request, data: dict[str, Any]) -> Edit:
    user = api.user_of(request)
    ranked = data["rank"] or data["reward"]
    sampling = {name: data[name] for name in (*edits.SAMPLING, "negative_prompt") if name in data}
    return edits.order(
        **_input(request, data),
        policy=edits.policy_named(data["policy"]),
        wanted=data["n"],
        best_of=data.get("best_of"),
        reward=reward_named(data["reward"]) if ranked else None,
        seed=data.get("seed"),
        sampling=sampling,
        user=user,
    )


def _input(request: Request, data: dict[str, Any]) -> dict[str, Any]:
    user = api.user_of(request)
    if "source" not in data:
        return {
            "project": api.project_for(user, data["project"], Role.ANNOTATOR),
            "task": api.task_for(data["task"]),
            "image": data.get("image"),
            "mask": data.get("mask"),
            "prompt": data["prompt"],
        }
    rows = Source.objects.select_related("task", "image", "mask", "project")
    source = get_object_or_404(rows, pk=data["source"])
    require(user, source.project, Role.ANNOTATOR)
    return of_source(source, mask=data.get("mask"), prompt=data["prompt"])


def of_source(source: Source, *, mask: Any = None, prompt: str = "") -> dict[str, Any]:
    """A source's picture to edit again, under its own mask and prompt or others."""
    reads = source.task.needs_source
    own = images.open_image(source.mask) if source.task.needs_mask else None
    return {
        "project": source.project,
        "task": source.task,
        "image": images.open_image(source.image) if reads else None,
        "mask": mask or own,
        "prompt": prompt or source.prompt,
    }


@takes("wait")
@extend_schema(operation_id="edits_retrieve", parameters=[WAIT], responses=EditOut)
@api_view(["GET"])
@permission_classes(SERVE)
def edit_state(request: Request, pk: int) -> Response:
    """How far an edit is, and its pictures once they are there."""
    edit = get_object_or_404(edits.with_all(), pk=pk)
    require(api.user_of(request), edit.source.project, Role.VIEWER)
    return answer(request, edit, api.wait_seconds(request), asked=True)


def answer(request: Request, edit: Edit, seconds: float, *, asked: bool = False) -> Response:
    edit = edits.wait(edit, seconds)
    body = as_json(request, edit)
    headers = {"Location": body["url"]} | ({"Retry-After": "1"} if edit.is_open else {})
    return Response(body, status=202 if edit.is_open and not asked else 200, headers=headers)


def as_json(request: Request, edit: Edit) -> dict[str, Any]:
    return {
        "id": edit.pk,
        "url": request.build_absolute_uri(reverse("modeling:api_edit", args=[edit.pk])),
        "state": edit.state,
        "error": edit.error or None,
        "progress": {"made": edit.run.progress, "of": edit.run.total},
        "source": edit.source.pk,
        "task": edit.source.task.slug,
        "prompt": edit.source.effective_prompt,
        "policy": edit.run.policy.name,
        "seed": edit.run.seed,
        "reward_model": edit.reward_model.name if edit.reward_model else None,
        "images": [_picture(request, one) for one in edits.pictures(edit)],
    }


def _picture(request: Request, made: edits.Made) -> dict[str, Any]:
    row = made.candidate
    assert row.image is not None
    path = reverse("generation:api_image", args=[row.image.sha256])
    return {
        "candidate": row.pk,
        "image": row.image.sha256,
        "url": request.build_absolute_uri(path),
        "rank": made.rank,
        "score": made.score,
        "margins": made.margins,
        "seed": row.seed,
        "num_inference_steps": row.num_inference_steps,
        "strength": row.strength,
        "guidance_scale": row.guidance_scale,
        "true_cfg_scale": row.true_cfg_scale,
        "negative_prompt": row.negative_prompt,
        "width": row.width,
        "height": row.height,
    }
