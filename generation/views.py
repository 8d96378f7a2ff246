from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import condition, require_http_methods, require_safe

from generation import audit, delivery, pictures
from generation.access import may_anywhere, needs, projects_of, user_of
from generation.forms import SourceFilter, SourceForm
from generation.images import ImageError
from generation.models import Image, Role, Source, Verb, Withdrawal

PER_PAGE = 48


def _etag(request: HttpRequest, row: Image) -> str:
    return f'"{row}-{request.GET.get("size", "")}"'


@require_safe
def image(request: HttpRequest, sha256: str) -> HttpResponse:
    """A picture by its hash, for members of a project that uses it.

    Nothing about it says who or what made it.
    """
    # Asked before the browser's copy is called fresh: who was removed gets no “not modified”.
    return _picture(request, pictures.get_for_user(user_of(request), sha256))


@login_not_required
@require_safe
def signed_image(request: HttpRequest, token: str) -> HttpResponse:
    """A picture for whoever has the link, until it ends; other sites may show it."""
    try:
        response = delivery.picture(request, delivery.signed(token))
    except ImageError as error:
        raise Http404(str(error)) from None
    response["Cache-Control"] = f"private, max-age={settings.IMAGE_LINK_SECONDS // 2}"
    response["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


@condition(etag_func=_etag)
def _picture(request: HttpRequest, row: Image) -> HttpResponse:
    try:
        return delivery.picture(request, row, request.GET.get("size", ""))
    except ImageError as error:
        raise Http404(str(error)) from None


@require_safe
@needs(Role.VIEWER)
def source_list(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    form = SourceFilter(request.GET, projects=projects_of(user))
    rows = Source.objects.library().filter(project__in=projects_of(user)).order_by("-pk")
    standing = Withdrawal.objects.standing().filter(source=OuterRef("pk"))
    rows = rows.select_related("task", "image", "mask").annotate(is_withdrawn=Exists(standing))
    if form.is_valid():
        chosen = form.cleaned_data
        if chosen.get("project"):
            rows = rows.filter(project=chosen["project"])
        if chosen["task"]:
            rows = rows.filter(task=chosen["task"])
        if chosen["split"]:
            rows = rows.filter(split=chosen["split"])
        if chosen["q"]:
            rows = rows.filter(prompt__icontains=chosen["q"])
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {
        "form": form,
        "page": page,
        "query": kept.urlencode(),
        "may_add": may_anywhere(user, Role.MANAGER),
    }
    return render(request, "generation/sources.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@needs(Role.MANAGER)
def source_new(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    managed = projects_of(user, Role.MANAGER)
    form = SourceForm(request.POST or None, request.FILES or None, projects=managed)
    if request.method == "POST" and form.is_valid() and (saved := form.save(user)):
        source, created = saved
        if created:
            audit.record(actor=user, verb=Verb.SOURCE_ADDED, thing=source)
        said = (
            _("The source was added (%(task)s, %(split)s).")
            if created
            else _("The source was there already (%(task)s, %(split)s).")
        )
        messages.success(
            request,
            said % {"task": source.task, "split": source.get_split_display().lower()},
        )
        if "another" in request.POST:
            return redirect("generation:source_new")
        return redirect("generation:sources")
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "generation/source_new.html", {"form": form}, status=status)
