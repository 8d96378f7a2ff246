"""Before a view of the API is reached: whether the request can be understood, and how often."""

# REST framework's own views import this module: it imports none of them.

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle

from generation.problems import BadParameters, TooLarge

MOST_BYTES = 64 * 2**20  # JSON is read into memory; the files of a form are not


class FirstLook(DefaultContentNegotiation):
    """What is wrong with a request whoever sends it: its method, its parameters, what it accepts.

    Told before anybody is asked who they are. The parameters that a view knows stand in its
    `takes`; none where it has no such attribute.
    """

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        view = request.parser_context["view"]
        if request.method == "OPTIONS" or request.method not in view.allowed_methods:
            raise MethodNotAllowed(str(request.method))
        length = str(request.META.get("CONTENT_LENGTH") or "0")
        is_form = str(request.content_type).startswith("multipart/")
        if not is_form and int(length if length.isdecimal() else 0) > MOST_BYTES:
            raise TooLarge(f"Send at most {MOST_BYTES // 2**20} MiB at once.")
        takes = getattr(view, "takes", ())
        known = takes(request.method) if callable(takes) else takes
        if unknown := sorted(set(request.query_params) - set(known)):
            there = f"There are: {', '.join(known)}." if known else "There are none."
            raise BadParameters({name: [f"is no parameter here. {there}"] for name in unknown})
        return super().select_renderer(request, renderers, format_suffix)


class Often(UserRateThrottle):
    """So many requests a minute of a person, with whatever token; each process counts by itself."""

    scope = "api"

    def get_rate(self) -> str:
        return f"{settings.API_REQUESTS_PER_MINUTE}/min"
