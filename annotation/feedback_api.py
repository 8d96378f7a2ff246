"""What became of pictures in production, reported over the API."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from rest_framework import serializers
from rest_framework.decorators import api_view, parser_classes, permission_classes, throttle_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import feedback
from annotation.models import Feedback
from generation import api
from generation.access import require, require_anywhere
from generation.api import PARSERS, Serving, Unfit
from generation.authentication import needs_scope
from generation.models import Candidate, Role, Scope


class Event(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    event = serializers.ChoiceField(choices=Feedback.Kind.choices)
    id = serializers.CharField(max_length=80)
    user = serializers.CharField(max_length=200)
    at = serializers.DateTimeField(required=False)
    value = serializers.FloatField(required=False, min_value=0, max_value=1e12)


@api_view(["POST"])
@parser_classes(PARSERS)
@permission_classes([IsAuthenticated, needs_scope(Scope.FEEDBACK)])
@throttle_classes([Serving])
def report(request: Request) -> Response:
    """Report an event: a candidate was accepted, published, edited again or discarded.

    `id` is the reporter's own and may be sent twice; `user` tells that system's people apart and
    is kept as a digest; `at` is now unless given, `value` what it was worth, in any unit.
    """
    user = api.user_of(request)
    require_anywhere(user, Role.ANNOTATOR)
    data = api.read(Event, request)
    rows = Candidate.objects.filter(image__isnull=False).select_related("policy", "set__source")
    candidate = get_object_or_404(rows, pk=data["candidate"])
    require(user, candidate.set.source.project_id, Role.ANNOTATOR)
    try:
        row, created = feedback.record(
            candidate=candidate,
            kind=data["event"],
            user=data["user"],
            client_id=data["id"],
            happened_at=data.get("at"),
            value=data.get("value"),
            reported_by=user,
        )
    except feedback.FeedbackError as error:
        raise Unfit(str(error)) from None
    body = {
        "id": row.client_id,
        "candidate": row.candidate_id,
        "event": row.kind,
        "policy": candidate.policy.name,
        "at": row.happened_at,
        "value": row.value,
    }
    return Response(body, status=201 if created else 200)


urlpatterns: list[URLPattern] = [path("feedback", report, name="api_feedback")]
