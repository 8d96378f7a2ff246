"""Studies, and how large one has to be."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.quality_tables import download
from generation import audit
from generation.access import may, may_anywhere, needs, projects_of, require, user_of
from generation.models import Policy, Role, Verb
from generation.readers import ReadError
from modeling import intervals_chart, power, published, studies
from modeling.models import Study
from modeling.study_forms import FiguresForm, PowerForm, StudyForm

MOST_BYTES = 2**20
DIFFERENCES = (2, 3, 5, 7.5, 10, 15, 20)


@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.VIEWER)
def study_list(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    managed = projects_of(user, Role.MANAGER)
    form = StudyForm(request.POST or None, managed)
    if request.method == "POST":
        if not managed.exists():
            require(user, projects_of(user).first(), Role.MANAGER)
        if form.is_valid():
            with transaction.atomic():
                made = form.save()
                Study.objects.filter(pk=made.pk).update(created_by=user)
                audit.record(actor=user, verb=Verb.STUDY_MADE, thing=made)
            return redirect("modeling:study", pk=made.pk)
    context = {
        "studies": Study.objects.filter(project__in=projects_of(user)).select_related("project"),
        "form": form,
        "may_make": may_anywhere(user, Role.MANAGER),
    }
    return render(request, "modeling/studies.html", context)


def _get_study_for_user(request: HttpRequest, pk: int, needed: Role = Role.VIEWER) -> Study:
    found = get_object_or_404(Study.objects.select_related("project"), pk=pk)
    require(user_of(request), found.project, needed)
    return found


@require_GET
def study_page(request: HttpRequest, pk: int) -> HttpResponseBase:
    study = _get_study_for_user(request, pk)
    if request.GET.get("format") == "json":
        return JsonResponse({"study": study.name, "figures": list(studies.records(study))})
    if request.GET.get("format") == "csv":
        rows = (list(record.values()) for record in studies.records(study))
        return download([studies.HEAD, *rows], f"study-{study.pk}")
    pairs = studies.rivals(study)
    context = {
        "study": study,
        "tables": studies.tables(study),
        "pairs": pairs,
        "versus": _versus(request, study, pairs),
        "published_versus": [
            (system, other, rows, _gsb_chart(system, other, rows))
            for system, other, rows in studies.published_versus(study)
        ],
        "figures_form": FiguresForm(),
        "may_edit": may(user_of(request), study.project, Role.MANAGER),
    }
    return render(request, "modeling/study.html", context)


def _versus(
    request: HttpRequest, study: Study, pairs: list[tuple[Policy, Policy]]
) -> dict[str, Any] | None:
    """Good/same/bad of the two that the address names, else of the two compared most often."""
    if not pairs:
        return None
    chosen = {f"{a.pk}-{b.pk}": (a, b) for a, b in pairs}
    a, b = chosen.get(request.GET.get("pair", ""), pairs[0])
    rows = studies.versus(study, a, b)
    return {"a": a, "b": b, "rows": rows, "chart": _gsb_chart(a.name, b.name, rows)}


def _gsb_chart(
    system: str, other: str, rows: list[studies.Versus]
) -> intervals_chart.IntervalChart | None:
    title = _("Good, same, bad: %(system)s against %(other)s, in per cent")
    return intervals_chart.shares(
        title % {"system": system, "other": other},
        [
            (
                " · ".join(filter(None, [row.task, row.dimension])),
                *(row.good.value, row.same.value, row.bad.value),
            )
            for row in rows
        ],
    )


@require_POST
def add_figures(request: HttpRequest, pk: int) -> HttpResponse:
    study = _get_study_for_user(request, pk, Role.MANAGER)
    form = FiguresForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, _("Choose a CSV file of published figures."))
        return redirect("modeling:study", pk=pk)
    data = form.cleaned_data["file"].read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise ReadError(_("The file is larger than 1 MB: no table of a paper is."))
        report = published.import_figures(study, published.from_csv(data.decode("utf-8-sig")))
    except (ReadError, UnicodeDecodeError) as error:
        said = str(error) if isinstance(error, ReadError) else _("The file is not text in UTF-8.")
        messages.error(request, said)
        return redirect("modeling:study", pk=pk)
    for row, reason in report.refused[:20]:
        messages.warning(request, f"{row}: {reason}")
    messages.success(
        request,
        _("%(created)s figures are new, %(changed)s changed, %(refused)s refused.")
        % {
            "created": report.created,
            "changed": report.changed,
            "refused": len(report.refused),
        },
    )
    return redirect("modeling:study", pk=pk)


@require_GET
@needs(Role.VIEWER)
def power_page(request: HttpRequest) -> HttpResponse:
    """How many images it takes to see a difference, on the same sources and on different ones."""
    form = PowerForm(request.GET if request.GET else None)
    if not request.GET:
        form = PowerForm({name: field.initial for name, field in form.fields.items()})
    context: dict[str, Any] = {"form": form}
    if form.is_valid():
        said, design = form.values(), form.design()
        try:
            context["answer"] = _sizes(said["base"], said["points"], said["alike"], design)
        except power.PowerError:
            context["impossible"] = _(
                "A rate of %(base)s %% cannot rise by %(points)s points: choose a smaller "
                "difference."
            ) % {"base": f"{said['base']:g}", "points": f"{said['points']:g}"}
        context["table"] = [
            (points, sizes)
            for points in DIFFERENCES
            if said["base"] + points < 100
            for sizes in [_sizes(said["base"], points, said["alike"], design)]
        ]
        context["said"] = said
    return render(request, "modeling/power.html", context)


def _sizes(base: float, points: float, alike: float, design: power.Design) -> dict[str, int]:
    share, gap = base / 100, points / 100
    unlike = power.expected_discordant(share, gap, alike)
    paired = power.images_for_paired_share(unlike, gap, design)
    unpaired = power.images_for_share(share, gap, design)
    return {
        "paired": paired,
        "unpaired": unpaired,
        "paired_ratings": 2 * paired * design.raters,
        "unpaired_ratings": 2 * unpaired * design.raters,
        "unlike": round(100 * unlike),
    }
