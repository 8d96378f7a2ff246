from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from config import status
from config.version import release
from generation.access import user_of


@require_GET
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    if not user_of(request).is_staff:
        raise PermissionDenied(_("The state of the installation is for those who look after it."))
    context = {"status": status.collect(), "release": release()}
    template = "_status.html" if request.headers.get("HX-Request") else "status.html"
    return render(request, template, context)
