"""What is made on order of the API: sources that are pushed, and sets that are generated."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from PIL import Image as Pillow
from rest_framework import serializers
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from generation import api, audit, candidates, images, policies, sources
from generation.api_fields import Choice, Number, Order, Slug, Tags, Text, Whole
from generation.candidates import LARGEST_SEED
from generation.idempotency import HEADER, once
from generation.images import ImageError
from generation.models import GenerationRun, Project, Role, Source, Split, Task, Verb
from generation.problems import Unfit
from generation.read_api import GenerationOut, orders
from generation.read_api import Generations as ReadGenerations
from generation.read_api import Sources as ReadSources

MOST = 100  # sources a call
PICTURE = "As base64 (or a data: address); in a form, as a file."


class PushedSource(Order):
    """One source. A picture that cannot be read refuses its row, not its neighbours."""

    task = Slug(required=False, help_text="Instead of the request's.")
    image = Text(required=False, help_text=f"{PICTURE} Left out where the task needs none.")
    mask = Text(required=False, help_text=f"{PICTURE} White where it is to be edited.")
    prompt = Text(default="", allow_blank=True, help_text="What the masked area should show.")
    tags = Tags(default=dict)
    external_id = Text(default="", allow_blank=True, max_length=200)
    licence = Text(default="", allow_blank=True, max_length=120)
    attribution = Text(default="", allow_blank=True, max_length=300)
    width = Whole(required=False, min_value=64, max_value=4096)
    height = Whole(required=False, min_value=64, max_value=4096)


class SourcesOrder(Order):
    project = Slug(required=False, help_text="Not needed by those who manage one project.")
    task = Slug(required=False, help_text="Of rows that name none.")
    tags = Tags(default=dict, help_text="Given to all.")
    sources = serializers.ListField(child=PushedSource(), min_length=1, max_length=MOST)


class SourceForm(PushedSource):
    """One source as a form, with files."""

    project = Slug(required=False)
    image = serializers.FileField(required=False)  # type: ignore[assignment]
    mask = serializers.FileField(required=False)  # type: ignore[assignment]
    tags = None  # type: ignore[assignment]


class RefusedOut(serializers.Serializer[Any]):
    row = serializers.IntegerField(help_text="Counted from 0.")
    reason = serializers.CharField()


class PushedOut(serializers.Serializer[Any]):
    rows = serializers.IntegerField()
    created = serializers.IntegerField()
    existing = serializers.IntegerField(help_text="Were there already; nothing was changed.")
    refused = RefusedOut(many=True)
    sources = serializers.ListField(
        child=serializers.IntegerField(allow_null=True),
        help_text="Their numbers, row by row; null where refused.",
    )


class Sources(ReadSources):
    parser_classes = [JSONParser, MultiPartParser, FormParser]

    @extend_schema(
        operation_id="sources_create",
        parameters=[HEADER],
        request={"application/json": SourcesOrder, "multipart/form-data": SourceForm},
        responses={200: PushedOut, 201: PushedOut},
        examples=[
            OpenApiExample(
                "Two sources of one picture",
                value={
                    "task": "fill",
                    "sources": [
                        {"image": "iVBORw0KGgo…", "mask": "iVBORw0KGgo…", "prompt": "a lantern"},
                        {"image": "iVBORw0KGgo…", "mask": "iVBORw0KGgo…", "prompt": "a cat"},
                    ],
                },
                request_only=True,
                media_type="application/json",
            )
        ],
    )
    @once
    def post(self, request: Request) -> Response:
        """Add up to 100 sources, or one with files.

        Good rows land and the report says why the others did not; the same rows sent again change
        nothing. 422 where none could be taken.
        """
        said = _said(request)
        project = api.project_for(self.person, said.get("project", ""), Role.MANAGER)
        report = sources.Report()
        numbers: list[int | None] = []
        for number, row in enumerate(said["sources"]):
            report.rows += 1
            try:
                with transaction.atomic():
                    found, created = _add(row, said, project, self.person)
            except (ImageError, sources.SourceError, Unfit) as error:
                report.refused.append((str(number), str(error)))
                numbers.append(None)
                continue
            numbers.append(found.pk)
            report.created += created
            report.existing += not created
        if not any(numbers):
            errors = {f"sources.{row}": [reason] for row, reason in report.refused}
            raise Unfit(report.refused[0][1], code="all_refused", errors=errors)
        body = report.as_json() | {"sources": numbers}
        body["refused"] = [{"row": int(row), "reason": why} for row, why in report.refused]
        return Response(PushedOut(body).data, status=201 if report.created else 200)


def _said(request: Request) -> dict[str, Any]:
    """A form's one source in the shape of the JSON's many."""
    if request.content_type == "application/json":
        return api.read(SourcesOrder, request)
    row = api.read(SourceForm, request)
    project = row.pop("project", "")
    return {"project": project, "tags": {}, "sources": [row]}


def _add(row: dict[str, Any], said: dict[str, Any], project: Project, user: Any) -> Any:
    task = _task(row.get("task") or said.get("task") or "")
    # A picture that the task has no use for is left alone, as in an import.
    image = _picture(row.get("image"), images.decode, "image") if task.needs_source else None
    mask = _picture(row.get("mask"), images.decode_mask, "mask") if task.needs_mask else None
    sides = [row[name] for name in ("width", "height") if name in row]
    if len(sides) == 1:
        raise sources.SourceError("Give both width and height, or neither.")
    found, created = sources.add_source(
        task=task,
        image=image,
        mask=mask,
        prompt=row["prompt"],
        tags={**row.get("tags", {}), **said["tags"]},
        external_id=row["external_id"],
        licence=row["licence"],
        attribution=row["attribution"],
        user=user,
        project=project,
        size=(sides[0], sides[1]) if sides else None,
    )
    if created:
        audit.record(actor=user, verb=Verb.SOURCE_ADDED, thing=found)
    return found, created


def _task(slug: str) -> Task:
    if not slug:
        raise Unfit("task: name the task, for the row or for all of them.")
    return api.task_for(slug)


def _picture(
    sent: str | UploadedFile | None, decode: Callable[..., Pillow.Image], name: str
) -> Pillow.Image | None:
    if sent is None:
        return None
    if isinstance(sent, UploadedFile):
        return decode(sent.file, name=sent.name or name)
    try:
        data = base64.b64decode(sent.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ImageError(_("Upload a file, or send it in base64."))
    return decode(io.BytesIO(data), name=name)


# Sets -------------------------------------------------------------------------------------------


class GenerationOrder(Order):
    project = Slug(required=False, help_text="Whose sources; not needed by those of one project.")
    task = Slug(required=False, help_text="Draw sources of this task …")
    sets = Whole(default=10, min_value=1, max_value=1000, help_text="… so many sets …")
    split = Choice(choices=[*Split.values, "any"], default="train", help_text="… of this part …")
    tags = Tags(default=dict, help_text="… with these tags.")
    sources = serializers.ListField(
        child=Number(), required=False, min_length=1, max_length=1000,
        help_text="Or these sources, each as often as it stands here.",
    )  # fmt: skip
    policy = Text(required=False, max_length=120, help_text="By name; else the active one.")
    seed = Whole(default=0, min_value=0, max_value=LARGEST_SEED - 1)


class Generations(ReadGenerations):
    @extend_schema(
        operation_id="generations_create",
        parameters=[HEADER],
        request=GenerationOrder,
        responses={202: GenerationOut},
        examples=[
            OpenApiExample(
                "Twenty sets by the active policy",
                value={"task": "fill", "sets": 20, "split": "train"},
                request_only=True,
            )
        ],
    )
    @once
    def post(self, request: Request) -> Response:
        """Order candidate sets, drawn from the tasks' sampling plans and made by a worker."""
        said = api.read(GenerationOrder, request)
        project = api.project_for(self.person, said.get("project", ""), Role.MANAGER)
        if ("sources" in said) == ("task" in said):
            raise Unfit("Give a task to draw sources of, or the numbers of sources.")
        try:
            run = candidates.order_sets(
                policy=policies.named(said["policy"]) if "policy" in said else policies.active(),
                sources=_sources(said, project),
                seed=said["seed"],
                requested_by=self.person,
            )
        except (candidates.CandidateError, policies.PolicyError) as error:
            raise Unfit(str(error)) from None
        after = {"policy": run.policy.name, "sets": run.sets.count()}
        audit.record(
            actor=self.person, verb=Verb.SETS_ORDERED, thing=run, project=project, after=after
        )
        candidates.ring(run)
        return _made(run)


def _sources(said: dict[str, Any], project: Project) -> list[Source]:
    if "task" in said:
        split = None if said["split"] == "any" else said["split"]
        task, count = api.task_for(said["task"]), said["sets"]
        found = candidates.pick_sources(
            task, count, split, said["seed"], said["tags"], project=project
        )
        # Fewer sources than sets: each serves again, with other draws.
        return [found[number % len(found)] for number in range(count)]
    rows = Source.objects.not_withdrawn().filter(project=project)
    known = rows.select_related("task", "image", "mask").in_bulk(said["sources"])
    if missing := [str(number) for number in said["sources"] if number not in known]:
        raise Unfit(f"sources: there is no {', '.join(missing)} in “{project}”, or not any more.")
    return [known[number] for number in said["sources"]]


def _made(run: GenerationRun) -> Response:
    row = orders().get(pk=run.pk)
    place = reverse("generation:api_generation", args=[run.pk])
    return Response(GenerationOut(row).data, status=202, headers={"Location": place})
