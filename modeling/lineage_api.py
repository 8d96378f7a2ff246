"""Lineage over the API, forwards and backwards."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from rest_framework.decorators import api_view
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.models import Judgment
from annotation.pseudonyms import pseudonym
from generation import api
from generation.access import projects_of, require, require_anywhere
from generation.models import Policy, Role, Source
from modeling import lineage
from modeling.lineage import POLICY, REWARD, SNAPSHOT, Graph, Key
from modeling.models import RewardModel, Snapshot

MODELS: dict[str, tuple[str, Any]] = {
    "policies": (POLICY, Policy),
    "reward-models": (REWARD, RewardModel),
    "snapshots": (SNAPSHOT, Snapshot),
}


@api_view(["GET"])
def of_model(request: Request, kind: str, pk: int) -> Response:
    """What a policy, a reward model or a snapshot comes from (`ancestors`) and went into."""
    require_anywhere(api.user_of(request), Role.VIEWER)
    if kind not in MODELS:
        raise Http404
    name, model = MODELS[kind]
    get_object_or_404(model, pk=pk)
    graph, key = lineage.whole(), (name, pk)
    before, after = graph.ancestors([key]), graph.descendants([key])
    return Response(
        {"model": _name(key), "ancestors": len(before) - 1, "descendants": len(after) - 1}
        | _as_json(graph, before | after)
    )


@api_view(["GET"])
def of_source(request: Request, pk: int) -> Response:
    """Which models learnt from a source: `direct` from its labels or pictures, or by descent."""
    source = get_object_or_404(Source, pk=pk)
    require(api.user_of(request), source.project_id, Role.VIEWER)
    return Response({"source": source.pk} | _reached(lineage.learnt_from(source=source)))


@api_view(["GET"])
def of_judgment(request: Request, pk: int) -> Response:
    """Which models learnt from a judgment."""
    judgment = get_object_or_404(Judgment.objects.select_related("set__source"), pk=pk)
    require(api.user_of(request), judgment.set.source.project_id, Role.REVIEWER)
    return Response(_judgment(judgment) | _reached(lineage.learnt_from(judgment=judgment)))


def _reached(direct: set[Key]) -> dict[str, Any]:
    graph = lineage.whole()
    return {"direct": [_name(key) for key in sorted(direct)]} | _as_json(
        graph, graph.descendants(direct)
    )


def _as_json(graph: Graph, keys: set[Key]) -> dict[str, Any]:
    taints = lineage.taints(graph)
    part = graph.part(keys)
    return {
        "nodes": [
            {
                "id": _name(node.key),
                "kind": node.kind,
                "name": node.name,
                "made": node.made,
                "tainted_by": taints.get(node.key, []),
            }
            for node in sorted(part.nodes.values(), key=lambda node: (node.made, node.key))
        ],
        "edges": [
            {"from": _name(edge.origin), "to": _name(edge.target), "how": edge.how}
            for edge in part.edges
        ],
    }


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


class ByNumber(CursorPagination):
    ordering = "pk"
    page_size = 500


@api_view(["GET"])
def judgments(request: Request, pk: int) -> Response:
    """The judgments of a snapshot, page by page; annotators are pseudonymous."""
    user = api.user_of(request)
    require_anywhere(user, Role.REVIEWER)
    snapshot = get_object_or_404(Snapshot, pk=pk)
    mine = projects_of(user, Role.REVIEWER)
    rows = snapshot.judgments.filter(set__source__project__in=mine)
    rows = rows.select_related("assignment", "dimension", "set")
    pages = ByNumber()
    page = pages.paginate_queryset(rows, request) or []
    return pages.get_paginated_response([_judgment(row) for row in page])


def _judgment(row: Judgment) -> dict[str, Any]:
    return {
        "judgment": row.pk,
        "annotator": pseudonym(row.assignment.annotator_id),
        "source": row.set.source_id,
        "set": row.set_id,
        "dimension": row.dimension.slug,
        "outcome": row.outcome,
        "judged_at": row.created_at,
    }


urlpatterns: list[URLPattern] = [
    path("lineage/sources/<int:pk>", of_source, name="api_lineage_source"),
    path("lineage/judgments/<int:pk>", of_judgment, name="api_lineage_judgment"),
    path("lineage/snapshots/<int:pk>/judgments", judgments, name="api_lineage_judgments"),
    path("lineage/<str:kind>/<int:pk>", of_model, name="api_lineage"),
]
