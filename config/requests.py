"""Every request, written down once it is answered: who, what, how long; and counted."""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest, HttpResponseBase

from config import metrics
from generation import trail

log = logging.getLogger("oneloop.request")

# What a proxy in front may call a request.
GIVEN = re.compile(r"[A-Za-z0-9._:-]{8,128}")
# Asked every few seconds by machines.
PROBES = {"/healthz", "/readyz", "/metrics"}
# A request that keeps its thread for so long is stuck; long answers take half a minute.
STUCK_SECONDS = 120.0

# When each thread began with what it is at.
_under_way: dict[int, float] = {}


def watched(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if GIVEN.fullmatch(given) else uuid.uuid4().hex
        began = time.perf_counter()
        thread = threading.get_ident()
        _under_way[thread] = time.monotonic()
        token = trail.enter(request_id=request_id)
        try:
            response = get_response(request)
            response.headers["X-Request-ID"] = request_id
            _note(request, response.status_code, time.perf_counter() - began)
            return response
        finally:
            trail.leave(token)
            _under_way.pop(thread, None)

    return middleware


def is_wedged() -> bool:
    """Whether all threads of this process but one have been at the same request for minutes."""
    since = time.monotonic() - STUCK_SECONDS
    stuck = sum(began < since for began in list(_under_way.values()))
    return stuck >= max(1, settings.WEB_THREADS - 1)


def _note(request: HttpRequest, status: int, seconds: float) -> None:
    view = _view_of(request)
    metrics.count_request(view, request.method or "", status, seconds)
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    # Nobody's address breaks a line in two.
    path = request.path if request.path.isprintable() else ascii(request.path)
    facts: dict[str, Any] = {
        "method": request.method,
        "path": path,
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "view": view,
    }
    if (user := _user_of(request)) is not None:
        facts["user"] = user
    told = f" user={user}" if user is not None else ""
    log.log(
        level,
        "%s %s %s %.1f ms%s",
        request.method,
        path,
        status,
        1000 * seconds,
        told,
        extra=facts,
    )


def _view_of(request: HttpRequest) -> str:
    """The name of the address: few enough to count by, and without anybody's secret."""
    match = request.resolver_match
    if match is not None:
        return match.view_name or "unnamed"
    return "static" if request.path.startswith(settings.STATIC_URL) else "none"


def _user_of(request: HttpRequest) -> int | None:
    """Whoever was asked for anyway: nobody is looked up for the log."""
    held = request.__dict__.get("user")
    # The API puts there whose token it is. Elsewhere it is a promise, which the page has
    # redeemed or not; isinstance() would.
    is_known = issubclass(type(held), AbstractBaseUser)
    known = held if is_known else getattr(request, "_cached_user", None)
    return getattr(known, "pk", None)
