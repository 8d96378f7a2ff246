"""What became of pictures in production: reported over the API, and read again."""

from __future__ import annotations

from typing import Any, ClassVar

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import feedback
from annotation.models import Feedback
from generation import api
from generation.access import require
from generation.api import PARSERS, Serving, Unfit
from generation.api_fields import Choice, Moment, Number, Order, Real, Text
from generation.endpoints import Listing
from generation.models import Candidate, Role, Scope
from generation.parameters import between, choice, number, slug, text


class Event(Order):
    candidate = Number()
    event = Choice(choices=Feedback.Kind.choices)
    id = Text(max_length=80, trim_whitespace=True)
    user = Text(max_length=200, trim_whitespace=True)
    at = Moment(required=False)
    value = Real(required=False, min_value=0, max_value=1e12)


class EventOut(serializers.ModelSerializer[Feedback]):
    id = serializers.CharField(source="client_id", help_text="The reporter's own.")
    project = serializers.CharField(source="project.slug")
    event = serializers.CharField(source="kind")
    policy = serializers.CharField(source="policy.name")
    at = serializers.DateTimeField(source="happened_at")
    user = serializers.CharField(help_text="A digest: told apart, not named.")

    class Meta:
        model = Feedback
        fields = ["id", "project", "candidate", "event", "policy", "user", "at", "value"]


class Events(Listing):
    """What became of pictures, event by event."""

    role = Role.REVIEWER  # it says which policy made a candidate
    write_role = Role.ANNOTATOR
    write_scope = Scope.FEEDBACK
    project = "project"
    queryset = Feedback.objects.select_related("project", "policy")
    serializer_class = EventOut
    parser_classes = PARSERS
    parameters: ClassVar = {
        "project": slug("project__slug", "Slug of the project."),
        "policy": text("policy__name", "Name of the policy."),
        "candidate": number("candidate", "Number of the candidate."),
        "event": choice(Feedback.Kind.values, "kind", "What became of it."),
        **between("happened_at", "It happened"),
    }

    def get_throttles(self) -> Any:
        return [Serving()] if self.request.method == "POST" else super().get_throttles()

    @extend_schema(request=Event, responses={200: EventOut, 201: EventOut})
    def post(self, request: Request) -> Response:
        """Report an event: a candidate was accepted, published, edited again or discarded.

        `id` is the reporter's own and may be sent twice; `user` tells that system's people apart
        and is kept as a digest; `at` is now unless given, `value` what it was worth, in any unit.
        """
        data = api.read(Event, request)
        rows = Candidate.objects.filter(image__isnull=False).select_related("policy", "set__source")
        candidate = get_object_or_404(rows, pk=data["candidate"])
        require(self.person, candidate.set.source.project_id, Role.ANNOTATOR)
        try:
            row, created = feedback.record(
                candidate=candidate,
                kind=data["event"],
                user=data["user"],
                client_id=data["id"],
                happened_at=data.get("at"),
                value=data.get("value"),
                reported_by=self.person,
            )
        except feedback.FeedbackError as error:
            raise Unfit(str(error)) from None
        return Response(EventOut(row).data, status=201 if created else 200)
