"""The API's description (OpenAPI 3.1): made from its views, once per process."""

# REST framework's own views import this module: it imports none of them.

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from django.conf import settings
from django.utils import translation
from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from generation.problems import MEDIA_TYPE

ABOUT = """\
Everything that OneLoop's pages show, for programs.

**Who asks.** A token from the page “Account”, as `Authorization: Bearer olp_…`. Its scopes (`read`,
`manage`, `serve`, `feedback`, …) limit what its owner may do; a project that its owner is not in
does not exist for it (404).

**Lists** come page by page: follow `next`. `order=oldest` begins with the oldest row, so that what
is new can be fetched later from where one was. A parameter that is not known is refused.

**Errors** are problem details (RFC 9457, `application/problem+json`): `type` for programs, `detail`
for people, `errors` field by field.

**Writes** take an `Idempotency-Key`: the same request sent again within a day is not done again.

**Too often** is answered 429 with `Retry-After`.
"""
STATUSES = {
    400: "Not understood: a parameter that is not known or has a wrong value, or no JSON.",
    401: "Nobody knows who asks.",
    403: "The token lacks the scope, or its owner the role.",
    404: "Not there, or in a project that one is not in.",
    405: "This address knows no such method.",
    406: "Answers are JSON.",
    409: "Not in the state that things are in now.",
    413: "Too much at once.",
    415: "A content type that is not read here.",
    422: "Understood, but it does not fit; `errors` says field by field why.",
    429: "Too often; `Retry-After` says when again.",
    503: "The database does not answer; send it again.",
}
OF_WRITES = (409, 413, 415, 422)


class ProblemOut(serializers.Serializer[Any]):
    """What went wrong (RFC 9457)."""

    type = serializers.CharField(help_text="A name for programs, urn:oneloop:problem:….")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What is wrong and what to do, in a sentence.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="By field, nested ones with dots: “sources.0.prompt”.",
    )


class Schema(AutoSchema):
    """Every operation may also answer with a problem."""

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def get_serializer_name(self, serializer: Any, direction: str) -> str:
        return type(serializer).__name__.removesuffix("Out")

    def get_summary(self) -> str:
        said = str(self.get_description() or "").strip().split("\n")[0]
        return said.rstrip(".") or self.get_operation_id()

    def _get_response_bodies(
        self, direction: Literal["request", "response"] = "response"
    ) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        self.resolve_serializer(ProblemOut, "response")  # makes its component
        for status in STATUSES:
            if status not in OF_WRITES or self.method == "POST":
                bodies[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
        return dict(sorted(bodies.items()))


def _problems() -> dict[str, Any]:
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[str, Any] = {
        f"Problem{status}": {"description": said, "content": problem}
        for status, said in STATUSES.items()
    }
    for status in (429, 503):
        found[f"Problem{status}"]["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
        }
    return found


class ByToken(OpenApiAuthenticationExtension):
    target_class = "generation.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "A token: olp_…"}


class TextSchema(OpenApiSerializerFieldExtension):
    """PostgreSQL stores no null character."""

    target_class = "generation.api_fields.Text"
    match_subclasses = False

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        found = {"type": "string", "pattern": "^[^\\u0000]*$"}
        if not self.target.allow_blank:
            # A text of blanks alone is as good as none where it is trimmed.
            found["pattern"] = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"
        if not self.target.trim_whitespace and not self.target.allow_blank:
            found |= {"pattern": "^[^\\u0000]+$"}
        if self.target.max_length is not None:
            return found | {"maxLength": self.target.max_length}
        return found


class SlugSchema(OpenApiSerializerFieldExtension):
    target_class = "generation.api_fields.Slug"
    priority = 1  # before that of Text

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$", "maxLength": 50}


class TagsSchema(OpenApiSerializerFieldExtension):
    target_class = "generation.api_fields.Tags"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        text = {"type": "string", "pattern": "^[^\\u0000]+$"}
        return {
            "type": "object",
            "maxProperties": 50,
            "propertyNames": text | {"maxLength": 80},
            "additionalProperties": text | {"maxLength": 200},
        }


def finished(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    result["info"]["description"] = ABOUT
    result["components"]["responses"] = _problems()
    # What is sent holds no field that is not known.
    for name, component in result["components"]["schemas"].items():
        if name.endswith("Request"):
            component["additionalProperties"] = False
    return result


def of_the_api(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    return [one for one in endpoints if one[0].startswith("/api/v1/")]


@cache
def document() -> dict[str, Any]:
    from drf_spectacular.generators import SchemaGenerator

    with translation.override(settings.LANGUAGE_CODE):
        found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return found
