"""Exports over the API: order a dataset, watch it, take the archive."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import exporting
from annotation.errors import Refused
from annotation.export_forms import LONGEST, ORIGINS, SHORTEST, format_names
from annotation.export_rows import Pictures
from annotation.export_views import download
from annotation.models import Export
from generation import api
from generation.api_fields import Choice, Order, Real, Slug, Text, Whole
from generation.api_views import Png
from generation.endpoints import Listing, Single
from generation.idempotency import HEADER, once
from generation.models import Role, Scope, Split
from generation.ownership import JobState
from generation.parameters import choice, slug
from generation.problems import Unfit


def _names(what: str) -> serializers.ListField:
    return serializers.ListField(
        child=Text(max_length=200), required=False, max_length=1000, help_text=what
    )


class ChosenOrder(Order):
    """Which judgments and ratings; what is left out leaves nothing out."""

    campaigns = _names("Names of campaigns of the project.")
    tasks = _names("Slugs of tasks.")
    dimensions = _names("Slugs of dimensions; “usable” stands for that rating.")
    splits = serializers.ListField(child=Choice(choices=Split.values), required=False, max_length=2)
    origins = serializers.ListField(
        child=Choice(choices=[name for name, _ in ORIGINS]), required=False, max_length=3
    )
    since = serializers.DateField(required=False, help_text="The first day.")
    until = serializers.DateField(required=False, help_text="The last day, included.")
    min_agreement = Real(
        required=False, min_value=0, max_value=1, help_text="Share of people of one opinion."
    )


class ExportOrder(Order):
    project = Slug(required=False, help_text="Not needed by those who manage one project.")
    selection = ChosenOrder(required=False)
    format = Choice(choices=format_names(), default="canonical")
    images = Choice(choices=Pictures.values, default=Pictures.FILES.value)
    max_side = Whole(
        required=False, min_value=SHORTEST, max_value=LONGEST, help_text="Pixels; larger shrink."
    )


class LossOut(serializers.Serializer[Any]):
    aspect = serializers.CharField()
    count = serializers.IntegerField()
    what = serializers.CharField()


class DifferenceOut(serializers.Serializer[Any]):
    added = serializers.IntegerField()
    corrected = serializers.IntegerField()
    withdrawn = serializers.IntegerField()
    left_out = serializers.IntegerField()


class ExportOut(serializers.ModelSerializer[Export]):
    project = serializers.CharField(source="project.slug")
    images = serializers.CharField(source="pictures")
    losses = LossOut(many=True, help_text="What the format cannot hold.")
    difference = DifferenceOut(
        allow_null=True, help_text="Judgments, since the last export of the same selection."
    )
    counts = serializers.DictField(child=serializers.IntegerField())
    selection = serializers.DictField()
    download = serializers.SerializerMethodField()

    class Meta:
        model = Export
        fields = [
            *("id", "project", "state", "progress", "total", "error"),
            *("selection", "format", "images", "max_side"),
            *("content_hash", "counts", "losses", "difference", "byte_size", "download"),
            *("created_at", "finished_at"),
        ]

    def get_download(self, row: Export) -> str | None:
        """Where the archive is, once it is made."""
        if not row.archive:
            return None
        return reverse("annotation:api_export_download", args=[row.pk])


ROWS = Export.objects.select_related("project")


class Exports(Listing):
    """Datasets that were ordered."""

    role = Role.MANAGER
    scope = write_scope = Scope.EXPORT
    project = "project"
    queryset = ROWS
    serializer_class = ExportOut
    parameters: ClassVar = {
        "project": slug("project__slug", "Slug of the project."),
        "state": choice(JobState.values, "state", "How far it is."),
    }

    @extend_schema(
        operation_id="exports_create",
        parameters=[HEADER],
        request=ExportOrder,
        responses={202: ExportOut},
        examples=[
            OpenApiExample(
                "What people said of a campaign's training pictures",
                value={
                    "selection": {"campaigns": ["Spring"], "splits": ["train"]},
                    "format": "canonical",
                    "images": "files",
                },
                request_only=True,
            )
        ],
    )
    @once
    def post(self, request: Request) -> Response:
        """Order a dataset; a worker writes it, and `download` says where it is then."""
        said = api.read(ExportOrder, request)
        try:
            row = exporting.order(
                project=api.project_for(self.person, said.get("project", ""), Role.MANAGER),
                by=self.person,
                selection=_plain(said.get("selection", {})),
                format=said["format"],
                pictures=said["images"],
                max_side=said.get("max_side"),
            )
        except Refused as error:
            raise Unfit(error.message) from None
        place = reverse("annotation:api_export", args=[row.pk])
        return Response(ExportOut(row).data, status=202, headers={"Location": place})


def _plain(chosen: dict[str, Any]) -> dict[str, Any]:
    """As it is stored: days in ISO's form, nothing that is empty."""
    return {
        name: value.isoformat() if name in ("since", "until") else value
        for name, value in chosen.items()
        if value not in (None, [])
    }


class OneExport(Single):
    """An export: how far it is, what it holds, and where its archive is."""

    role = Role.MANAGER
    scope = write_scope = Scope.EXPORT
    project = "project"
    queryset = ROWS
    serializer_class = ExportOut
    http_method_names = ["get", "head", "delete"]

    @extend_schema(operation_id="exports_delete", request=None, responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Cancel it, or delete its archive; what it was stays to be read."""
        row = self.get_object()
        if not exporting.cancel(row):
            exporting.forget_archive(row, by=self.person)
        return Response(status=204)


class Zip(Png):
    media_type = "application/zip"
    format = "zip"


class ExportDownload(Single):
    role = Role.MANAGER
    scope = Scope.EXPORT
    project = "project"
    queryset = ROWS
    http_method_names = ["get", "head"]
    renderer_classes = [Zip, JSONRenderer]

    @extend_schema(
        operation_id="exports_download",
        responses={
            (200, "application/zip"): OpenApiResponse(
                OpenApiTypes.BINARY, "The dataset's directory as a ZIP."
            )
        },
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        """The archive; 404 while there is none."""
        return download(request, self.get_object())
