"""Lineage over the API, forwards and backwards."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.models import Judgment
from annotation.pseudonyms import pseudonym
from generation import api
from generation.access import require, require_anywhere
from generation.authentication import needs_scope
from generation.endpoints import Listing
from generation.models import Policy, Role, Scope, Source
from modeling import lineage
from modeling.lineage import POLICY, REWARD, SNAPSHOT, Graph, Key
from modeling.models import RewardModel, Snapshot

MODELS: dict[str, tuple[str, Any]] = {
    "policies": (POLICY, Policy),
    "reward-models": (REWARD, RewardModel),
    "snapshots": (SNAPSHOT, Snapshot),
}
READ: list[type[BasePermission]] = [IsAuthenticated, needs_scope(Scope.READ)]
KIND = OpenApiParameter("kind", str, "path", enum=list(MODELS))


class NodeOut(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Kind and number, for example policy/7.")
    kind = serializers.CharField()
    name = serializers.CharField()
    made = serializers.CharField(help_text="A date.")
    tainted_by = serializers.ListField(
        child=serializers.CharField(), help_text="Withdrawals that it learnt from."
    )


class EdgeOut(serializers.Serializer[Any]):
    to = serializers.CharField()
    how = serializers.CharField()

    def get_fields(self) -> dict[str, Any]:
        # A word of Python's.
        return {"from": serializers.CharField(), **super().get_fields()}


class GraphOut(serializers.Serializer[Any]):
    nodes = NodeOut(many=True)
    edges = EdgeOut(many=True)


class ModelOut(GraphOut):
    model = serializers.CharField()
    ancestors = serializers.IntegerField()
    descendants = serializers.IntegerField()


class LearntOut(GraphOut):
    direct = serializers.ListField(child=serializers.CharField())


class SourceLearntOut(LearntOut):
    source = serializers.IntegerField()  # type: ignore[assignment]


class JudgedOut(serializers.Serializer[Any]):
    judgment = serializers.IntegerField()
    annotator = serializers.CharField(help_text="A pseudonym.")
    source = serializers.IntegerField()  # type: ignore[assignment]
    set = serializers.IntegerField()
    dimension = serializers.CharField()
    outcome = serializers.CharField()
    judged_at = serializers.DateTimeField()


class JudgmentLearntOut(LearntOut, JudgedOut):
    pass


@extend_schema(operation_id="lineage", parameters=[KIND], responses=ModelOut)
@api_view(["GET"])
@permission_classes(READ)
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


@extend_schema(operation_id="lineage_source", responses=SourceLearntOut)
@api_view(["GET"])
@permission_classes(READ)
def of_source(request: Request, pk: int) -> Response:
    """Which models learnt from a source: `direct` from its labels or pictures, or by descent."""
    source = get_object_or_404(Source, pk=pk)
    require(api.user_of(request), source.project_id, Role.VIEWER)
    return Response({"source": source.pk} | _reached(lineage.learnt_from(source=source)))


@extend_schema(operation_id="lineage_judgment", responses=JudgmentLearntOut)
@api_view(["GET"])
@permission_classes(READ)
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


class SnapshotJudgments(Listing):
    role = Role.REVIEWER
    project = "set__source__project"
    queryset = Judgment.objects.select_related("assignment", "dimension", "set")
    serializer_class = JudgedOut

    @extend_schema(operation_id="lineage_snapshot_judgments")
    def get(self, request: Request, pk: int) -> Response:
        """The judgments of a snapshot, page by page; annotators are pseudonymous."""
        get_object_or_404(Snapshot, pk=pk)
        return self.list(request)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        rows = self.get_queryset().filter(snapshots=self.kwargs["pk"])
        page = self.paginate_queryset(rows) or []
        return self.get_paginated_response([_judgment(row) for row in page])


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
    path(
        "lineage/snapshots/<int:pk>/judgments",
        SnapshotJudgments.as_view(),
        name="api_lineage_judgments",
    ),
    path("lineage/<str:kind>/<int:pk>", of_model, name="api_lineage"),
]
