from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import condition, require_http_methods, require_safe

from generation import images
from generation.forms import SourceFilter, SourceForm
from generation.images import ImageError
from generation.models import Image, Source

PER_PAGE = 48
A_YEAR = 365 * 24 * 3600

View = Callable[..., HttpResponse]


def for_staff(view: View) -> View:
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_staff:
            raise PermissionDenied("This page is for staff. Ask an admin for access.")
        return view(request, *args, **kwargs)

    return wrapped


def _etag(request: HttpRequest, sha256: str) -> str:
    return f'"{sha256}-{request.GET.get("size", "")}"'


@require_safe
@condition(etag_func=_etag)
def image(request: HttpRequest, sha256: str) -> HttpResponse:
    """A picture by its hash. Nothing about it says who or what made it."""
    row = get_object_or_404(Image, sha256=sha256)
    size = request.GET.get("size", "")
    try:
        data = images.reduced(row, size) if size in images.SIDES else images.read_bytes(row)
    except ImageError as error:
        raise Http404(str(error)) from None
    response = HttpResponse(data, content_type="image/png")
    # The address is the content's hash: what it names never changes.
    response["Cache-Control"] = f"private, max-age={A_YEAR}, immutable"
    return response


@require_safe
@for_staff
def source_list(request: HttpRequest) -> HttpResponse:
    form = SourceFilter(request.GET)
    rows = Source.objects.select_related("task", "image", "mask").order_by("-pk")
    if form.is_valid():
        chosen = form.cleaned_data
        if chosen["task"]:
            rows = rows.filter(task=chosen["task"])
        if chosen["split"]:
            rows = rows.filter(split=chosen["split"])
        if chosen["q"]:
            rows = rows.filter(prompt__icontains=chosen["q"])
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {"form": form, "page": page, "query": kept.urlencode()}
    return render(request, "generation/sources.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@for_staff
def source_new(request: HttpRequest) -> HttpResponse:
    form = SourceForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        assert request.user.is_authenticated
        if saved := form.save(request.user):
            source, created = saved
            state = "was added" if created else "was there already"
            messages.success(request, f"The source {state} ({source.task}, {source.split}).")
            if "another" in request.POST:
                return redirect("generation:source_new")
            return redirect("generation:sources")
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "generation/source_new.html", {"form": form}, status=status)
