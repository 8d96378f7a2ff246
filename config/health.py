"""Probes and metrics, for machines: nobody logs in, and no answer names a secret or an address."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from prometheus_client import CONTENT_TYPE_LATEST

from config import metrics, parts, requests, status
from config.kept import Kept
from generation.audit import address_of

# However often and by however many it is asked.
READY_SECONDS = 2
PARTS: dict[str, Callable[[], str]] = {
    "database": parts.database,
    "broker": parts.broker,
    "store": parts.store,
}


@login_not_required
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers, by the same threads as everybody, and they are not stuck.

    Nothing else is asked: a slow database is no reason to restart the web.
    """
    if requests.is_wedged():
        return HttpResponse("wedged\n", content_type="text/plain", status=503)
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """The process can serve: its parts answer. `?exclude=broker` asks for all but that one.

    `degraded` are parts that others miss, such as workers, while pages are served all the same.
    """
    excluded = set(request.GET.getlist("exclude"))
    found, degraded = ready()
    is_ready = not any(state for name, state in found.items() if name not in excluded)
    said = {name: state or "ok" for name, state in found.items()}
    answer = {"ready": is_ready, **said, "degraded": degraded}
    return JsonResponse(answer, status=200 if is_ready else 503)


def _look() -> tuple[dict[str, str], list[str]]:
    found = {name: look() for name, look in PARTS.items()}
    degraded = []
    if not found["database"]:
        try:
            degraded = [f"worker of {queue}" for queue in status.deserted()]
            degraded += [] if status.ticks() else ["beat"]
        except DatabaseError:
            found["database"] = "unreachable"
    return found, degraded


ready = Kept(_look, seconds=READY_SECONDS)


@login_not_required
@never_cache
@require_GET
def metrics_page(request: HttpRequest) -> HttpResponse:
    """For whoever has the token or asks from an allowed address; others find nothing here."""
    if not (_has_token(request) or _is_allowed(request)):
        raise Http404
    return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


def _has_token(request: HttpRequest) -> bool:
    given = request.headers.get("Authorization", "")
    wanted = f"Bearer {settings.METRICS_TOKEN}"
    return bool(settings.METRICS_TOKEN) and secrets.compare_digest(given.encode(), wanted.encode())


def _is_allowed(request: HttpRequest) -> bool:
    address = address_of(request)
    if address is None:
        return False
    return any(ipaddress.ip_address(address) in network for network in settings.METRICS_NETWORKS)
