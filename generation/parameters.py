"""Which rows of a list: parameters of the address, each checked, none passed over in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from generation import api_fields
from generation.problems import BadParameters

Lookup = str | Callable[[QuerySet[Any], Any], QuerySet[Any]]


@dataclass(frozen=True)
class Parameter:
    """`lookup` names a field, or is given the rows and the value."""

    field: serializers.Field
    lookup: Lookup
    says: str
    schema: dict[str, Any] = dataclasses.field(default_factory=dict)

    def rows(self, rows: QuerySet[Any], value: Any) -> QuerySet[Any]:
        if callable(self.lookup):
            return self.lookup(rows, value)
        return rows.filter(**{self.lookup: value})


Parameters = Mapping[str, Parameter]
SLUG = {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$", "maxLength": 50}


def slug(lookup: Lookup, says: str) -> Parameter:
    return Parameter(api_fields.Slug(), lookup, says, SLUG)


def text(lookup: Lookup, says: str, most: int = 200) -> Parameter:
    schema = {"type": "string", "minLength": 1, "maxLength": most, "pattern": "^[^\\u0000]+$"}
    return Parameter(api_fields.Text(max_length=most), lookup, says, schema)


def number(lookup: Lookup, says: str) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": api_fields.LARGEST}
    # The address is text: the strict kind of the bodies would refuse it.
    kind = serializers.IntegerField(min_value=1, max_value=api_fields.LARGEST)
    return Parameter(kind, lookup, says, schema)


def choice(choices: Iterable[str], lookup: Lookup, says: str) -> Parameter:
    values = list(choices)
    schema = {"type": "string", "enum": values}
    return Parameter(api_fields.Choice(choices=values), lookup, says, schema)


def switch(lookup: str | Q, says: str) -> Parameter:
    """true or false; a Q that holds where it is true."""
    holds = lookup if isinstance(lookup, Q) else Q(**{lookup: True})

    def rows(found: QuerySet[Any], value: str) -> QuerySet[Any]:
        return found.filter(holds if value == "true" else ~holds)

    kind = api_fields.Choice(choices=["true", "false"])
    return Parameter(kind, rows, says, {"type": "boolean"})


def between(name: str, what: str) -> dict[str, Parameter]:
    """`since` and `until`: from the one on, and before the other."""
    schema = {"type": "string", "format": "date-time"}
    return {
        "since": Parameter(api_fields.Moment(), f"{name}__gte", f"{what} then or later.", schema),
        "until": Parameter(api_fields.Moment(), f"{name}__lt", f"{what} before then.", schema),
    }


class ByParameters(BaseFilterBackend):
    """For views with `parameters`."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> Any:
        for parameter, value in read(request, view.parameters):
            queryset = parameter.rows(queryset, value)
        return queryset

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return described(view.parameters)


def read(request: Request, parameters: Parameters) -> list[tuple[Parameter, Any]]:
    """Those that were given, with their values; BadParameters names all that are wrong."""
    errors: dict[str, list[str]] = {}
    found = []
    for name, parameter in parameters.items():
        values = request.query_params.getlist(name)
        if not values:
            continue
        try:
            if len(values) > 1:
                raise serializers.ValidationError("stands there twice. Give it once.")
            found.append((parameter, parameter.field.run_validation(values[0])))
        except serializers.ValidationError as error:
            said = error.detail
            errors[name] = [str(one) for one in said] if isinstance(said, list) else [str(said)]
    if errors:
        raise BadParameters(errors)
    return found


def described(parameters: Parameters) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": parameter.says,
            "schema": parameter.schema,
        }
        for name, parameter in parameters.items()
    ]


def documented(parameters: Parameters) -> list[OpenApiParameter]:
    """For `extend_schema`, where a view is no list."""
    return [
        OpenApiParameter(name, type=parameter.schema, description=parameter.says)
        for name, parameter in parameters.items()
    ]
