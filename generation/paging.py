"""Pages by keyset: a page costs the same however far back it lies, and none is seen twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db.models import Model, QuerySet
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from generation.problems import BadParameters

USUAL, MOST = 100, 500
NEWEST, OLDEST = "newest", "oldest"
TAKES = ("cursor", "order", "page_size")
# "f120": forwards from the row 120, in the order asked for; "b120": backwards.
CURSOR = re.compile(r"([fb])([0-9]{1,18})")


class ByKey(BasePagination):
    """Rows by their id, the newest first unless `order=oldest`."""

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: Any = None
    ) -> list[Any]:
        self._url = request.build_absolute_uri()
        params = request.query_params
        _once(request)
        size = _size(params.get("page_size", str(USUAL)))
        way, start = _cursor(params.get("cursor"))
        descending = _descends(params.get("order", NEWEST)) is (way != "b")
        rows = queryset.order_by("-pk" if descending else "pk")
        if start is not None:
            rows = rows.filter(**{"pk__lt" if descending else "pk__gt": start})
        found = list(rows[: size + 1])
        more, found = len(found) > size, found[:size]
        if way == "b":
            found.reverse()
        self._next = found and (more if way != "b" else True)
        self._previous = found and (more if way == "b" else start is not None)
        self._found: Sequence[Model] = found
        return found

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self._link("f"), "previous": self._link("b"), "results": data})

    def _link(self, way: str) -> str | None:
        if not (self._next if way == "f" else self._previous):
            return None
        row = self._found[-1 if way == "f" else 0]
        return replace_query_param(self._url, "cursor", f"{way}{row.pk}")

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {
                "next": link | {"description": "Address of the next page; null on the last."},
                "previous": link | {"description": "Address of the page before."},
                "results": schema,
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        cursor = {"type": "string", "pattern": f"^{CURSOR.pattern}$"}
        order = {"type": "string", "enum": [NEWEST, OLDEST], "default": NEWEST}
        size = {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}
        said = {
            "cursor": (cursor, "Where the page begins: from `next` or `previous`."),
            "order": (order, "Which rows come first."),
            "page_size": (size, "Rows on a page."),
        }
        return [
            {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
            for name, (schema, text) in said.items()
        ]


def _once(request: Request) -> None:
    for name, values in request.query_params.lists():
        if len(values) > 1:
            raise BadParameters({name: ["stands there twice. Give it once."]})


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MOST):
        raise BadParameters({"page_size": [f"Give a number from 1 to {MOST}."]})
    return int(text)


def _descends(order: str) -> bool:
    if order not in (NEWEST, OLDEST):
        raise BadParameters({"order": [f"Give {NEWEST} or {OLDEST}."]})
    return order == NEWEST


def _cursor(text: str | None) -> tuple[str, int | None]:
    if text is None:
        return "", None
    found = CURSOR.fullmatch(text)
    if found is None:
        raise BadParameters(
            {"cursor": ["is none of this list. Take it from “next” or “previous”."]}
        )
    return found[1], int(found[2])
