"""Where a model comes from, what a source or a person went into, and taking either back."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation import withdrawals
from annotation.errors import Refused
from generation.access import may, needs, require, user_of
from generation.models import Policy, Role, Source
from modeling import lineage
from modeling.lineage import POLICY, REWARD, SNAPSHOT, Graph, Key
from modeling.lineage_drawing import ADDRESSES, draw
from modeling.models import RewardModel, Snapshot


@require_GET
@needs(Role.VIEWER)
def of_policy(request: HttpRequest, pk: int) -> HttpResponse:
    return _of_model(request, get_object_or_404(Policy, pk=pk), (POLICY, pk))


@require_GET
@needs(Role.VIEWER)
def of_reward(request: HttpRequest, pk: int) -> HttpResponse:
    return _of_model(request, get_object_or_404(RewardModel, pk=pk), (REWARD, pk))


@require_GET
@needs(Role.VIEWER)
def of_snapshot(request: HttpRequest, pk: int) -> HttpResponse:
    return _of_model(request, get_object_or_404(Snapshot, pk=pk), (SNAPSHOT, pk))


def _of_model(request: HttpRequest, row: Policy | RewardModel | Snapshot, key: Key) -> HttpResponse:
    graph = lineage.whole()
    before, after = graph.ancestors([key]), graph.descendants([key])
    context = _drawn(graph, before | after, key) | {
        "title": str(row),
        "row": row,
        "kind": key[0],
        "before": len(before) - 1,
        "after": len(after) - 1,
        "contents": [(s, lineage.contents(s)) for s in _snapshots(before)],
    }
    return render(request, "modeling/lineage.html", context)


def _snapshots(keys: set[Key]) -> list[Snapshot]:
    pks = [pk for kind, pk in keys if kind == SNAPSHOT]
    return list(Snapshot.objects.filter(pk__in=pks).order_by("-pk"))


def _drawn(graph: Graph, keys: set[Key], focus: Key) -> dict[str, Any]:
    taints = lineage.taints(graph)
    part = graph.part(keys)
    rows = [
        {
            "target": part.nodes[edge.target],
            "how": HOW[edge.how],
            "origin": part.nodes[edge.origin],
        }
        for edge in part.edges
    ]
    return {
        "drawing": draw(part, focus, taints),
        "edges": rows,
        "taint": taints.get(focus, []),
        "addresses": ADDRESSES,
    }


class _How(dict[str, str]):
    def __missing__(self, key: str) -> str:
        said = {
            "learnt from": _("learnt from"),
            "started from": _("started from"),
            "rewarded by": _("was rewarded by"),
        }
        return said[key]


HOW = _How()


@require_GET
def of_source(request: HttpRequest, pk: int) -> HttpResponse:
    source = get_object_or_404(Source.objects.select_related("task", "image", "mask"), pk=pk)
    user = user_of(request)
    require(user, source.project_id, Role.VIEWER)
    context = _of_thing(source=source) | {
        "title": _("Source %(n)s") % {"n": source.pk},
        "source": source,
        "may_withdraw": may(user, source.project_id, Role.MANAGER),
    }
    return render(request, "modeling/lineage_of.html", context)


@require_GET
def of_person(request: HttpRequest, pk: int) -> HttpResponse:
    _require_staff(request)
    person = get_object_or_404(User, pk=pk)
    title = _("Judgments of %(name)s") % {"name": person.get_username()}
    context = _of_thing(person=person) | {"title": title, "person": person, "may_withdraw": True}
    return render(request, "modeling/lineage_of.html", context)


def _of_thing(**thing: Any) -> dict[str, Any]:
    graph = lineage.whole()
    direct = lineage.learnt_from(**thing)
    reached = graph.descendants(direct)
    return _drawn(graph, reached, ("", 0)) | {
        "direct": len(direct),
        "reached": len(reached),
        "reach": withdrawals.reach(**thing),
        "standing": withdrawals.standing(**thing),
    }


@require_POST
def withdraw_source(request: HttpRequest, pk: int) -> HttpResponse:
    source = get_object_or_404(Source, pk=pk)
    require(user_of(request), source.project_id, Role.MANAGER)
    return _withdraw(request, "modeling:lineage_source", source.pk, source=source)


@require_POST
def withdraw_person(request: HttpRequest, pk: int) -> HttpResponse:
    _require_staff(request)
    person = get_object_or_404(User, pk=pk)
    return _withdraw(request, "modeling:lineage_person", person.pk, person=person)


def _withdraw(request: HttpRequest, back: str, pk: int, **thing: Any) -> HttpResponse:
    user = user_of(request)
    try:
        if "lift" in request.POST:
            withdrawals.lift(user=user, **thing)
            messages.success(request, _("This counts again."))
        else:
            withdrawals.withdraw(user=user, reason=request.POST.get("reason", ""), **thing)
            messages.success(request, _("Withdrawn. What learnt from it is marked as tainted."))
    except Refused as error:
        messages.error(request, error.message)
    return redirect(back, pk)


def _require_staff(request: HttpRequest) -> None:
    # A person's judgments lie in all projects, so no project's manager may take them back.
    if not user_of(request).is_staff:
        raise PermissionDenied(_("Only staff may look at one person's judgments in all projects."))
