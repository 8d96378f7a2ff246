"""What the API's endpoints share: reading what was sent, pictures in it, and how often one asks."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from PIL import Image as Pillow
from rest_framework import serializers
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle

from generation import images
from generation.access import projects_of, require, require_anywhere
from generation.models import Project, Role, Task
from generation.problems import BadParameters, Unfit, flat

__all__ = ["Unfit"]

PARSERS = [JSONParser, MultiPartParser, FormParser]
LONGEST_WAIT = 20.0  # a request holds one of the server's few threads


class Serving(UserRateThrottle):
    """Each process of the server counts by itself."""

    scope = "serving"
    rate = "240/min"


@extend_schema_field(
    {"type": "string", "contentEncoding": "base64", "description": "Or, in a form, a file."}
)
class PictureField(serializers.Field):
    """An uploaded file, or base64 in JSON (as it is, or as a data: address)."""

    def __init__(self, decode: Callable[..., Pillow.Image] = images.decode, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._decode = decode

    def to_internal_value(self, data: Any) -> Pillow.Image:
        name = getattr(data, "name", "") or self.field_name or ""
        try:
            file = data.file if isinstance(data, UploadedFile) else io.BytesIO(_bytes(data))
            return self._decode(file, name=name)
        except images.ImageError as error:
            raise serializers.ValidationError(str(error)) from None

    def to_representation(self, value: Any) -> Any:
        raise NotImplementedError("pictures are only read")


def _bytes(data: Any) -> bytes:
    text = data.rpartition(",")[2] if isinstance(data, str) else ""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise serializers.ValidationError(_("Upload a file, or send it in base64."))
    return found


def read(kind: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """What was sent, checked; Unfit names the fields that are wrong."""
    form = kind(data=request.data)
    if form.is_valid():
        found: dict[str, Any] = form.validated_data
        return found
    errors = dict(flat(form.errors))
    field, said = next(iter(errors.items()))
    detail = said[0] if field == "non_field_errors" else f"{field}: {said[0]}"
    raise Unfit(detail, errors=errors)


def user_of(request: Request) -> User:
    assert isinstance(request.user, User)  # IsAuthenticated
    return request.user


def project_for(user: User, slug: str, role: Role) -> Project:
    """The project that was named, or the only one in which the person has the role."""
    if slug:
        project = Project.objects.filter(slug=slug).first()
        require(user, project, role)
        if project is None:  # a superuser's role reaches even there
            raise Http404(f"There is no project “{slug}”.")
        return project
    require_anywhere(user, role)
    found = list(projects_of(user, role)[:2])
    if len(found) != 1:
        raise Unfit(_("You are in several projects: name one as “project”."))
    return found[0]


def task_for(slug: str) -> Task:
    task = Task.objects.active().filter(slug=slug).first()
    if task is None:
        known = ", ".join(Task.objects.active().values_list("slug", flat=True))
        raise Unfit(_("task: give one of %(known)s.") % {"known": known or _("none yet")})
    return task


def wait_seconds(request: Request) -> float:
    """How long `?wait=` asks to wait for the result."""
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        said = _("give 0 to %(most)d seconds.") % {"most": LONGEST_WAIT}
        raise BadParameters({"wait": [said]})
    return seconds


def takes(*names: str) -> Callable[[Any], Any]:
    """Which parameters of the address a view knows; see `asking.FirstLook`."""

    def mark(view: Any) -> Any:
        view.cls.takes = names
        return view

    return mark


WAIT = OpenApiParameter(
    "wait",
    type={"type": "number", "minimum": 0, "maximum": LONGEST_WAIT, "default": 0},
    description="Seconds to wait for the result.",
)
