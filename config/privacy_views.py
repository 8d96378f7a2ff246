"""What is kept about somebody: to look at, to take away, and to erase."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from config import erasure, privacy
from generation import audit
from generation.access import user_of
from generation.models import Verb


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def my_data(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    if request.method == "POST":
        audit.record(actor=user, verb=Verb.DATA_TAKEN, thing=user)
        response = JsonResponse(privacy.of(user), json_dumps_params={"indent": 1})
        response["Content-Disposition"] = 'attachment; filename="my-data.json"'
        return response
    return render(request, "people/my_data.html", {"counts": privacy.counts(user).items()})


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def erase(request: HttpRequest, pk: int) -> HttpResponse:
    actor = user_of(request)
    if not actor.is_staff:
        raise Http404
    if not actor.is_superuser:
        raise PermissionDenied(_("Only superusers may erase a person. Ask one of them."))
    person = get_object_or_404(User, pk=pk)
    error = ""
    if request.method == "POST":
        name = person.get_username()
        error = _("Write the name as it stands above.")
        if request.POST.get("name", "") == name:
            try:
                erasure.erase(person, actor=actor)
            except erasure.ErasureError as refused:
                error = str(refused)
            else:
                messages.success(request, _("%(name)s is erased.") % {"name": name})
                if person == actor:
                    return redirect("login")
                return redirect("modeling:lineage_person", pk)
    context = {
        "person": person,
        "plan": erasure.plan(person).items(),
        "done": erasure.is_erased(person),
        "error": error,
    }
    return render(request, "people/erase.html", context, status=422 if error else 200)
