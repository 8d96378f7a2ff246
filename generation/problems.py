"""The API's errors as problem details (RFC 9457), whoever raises them.

`type` is a name for programs, `detail` a sentence for people; `errors` says field by field what is
wrong with what was sent, nested fields with dots ("sources.0.prompt").
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:oneloop:problem:"
PREFIX = "/api/"


class Unfit(exceptions.APIException):
    """Understood, but it cannot be done; the detail says what to do."""

    status_code = 422
    default_code = "unfit"

    def __init__(self, detail: Any = None, code: str | None = None, errors: Any = None) -> None:
        super().__init__(detail, code)
        self.errors = errors


class Conflict(exceptions.APIException):
    """It could be done, but not in the state that things are in."""

    status_code = 409
    default_code = "conflict"

    def __init__(self, detail: str, code: str | None = None, wait: int | None = None) -> None:
        super().__init__(detail, code)
        self.wait = wait


class TooLarge(exceptions.APIException):
    status_code = 413
    default_code = "too_large"


class BadParameters(exceptions.APIException):
    """What stands behind the question mark is not understood; `errors` by parameter."""

    status_code = 400
    default_code = "bad_parameter"

    def __init__(self, errors: dict[str, list[str]]) -> None:
        name, said = next(iter(errors.items()))
        super().__init__(f"{name}: {said[0]}")
        self.errors = errors


def problem(
    status: int, code: str, detail: str, errors: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": TYPE + code.replace("_", "-"),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return body | ({"errors": errors} if errors else {})


def handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's EXCEPTION_HANDLER; None leaves it to `config.views.failed`."""
    error = _as_api(exception)
    if error is None:
        return None
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = f"{max(1, round(wait))}"
    return Response(
        _body(error), status=error.status_code, headers=headers, content_type=MEDIA_TYPE
    )


def _as_api(exception: Exception) -> exceptions.APIException | None:
    if isinstance(exception, exceptions.APIException):
        return exception
    said = next((one for one in exception.args if isinstance(one, str)), None)
    if isinstance(exception, Http404):
        return exceptions.NotFound(said)
    if isinstance(exception, PermissionDenied):
        return exceptions.PermissionDenied(said)
    if isinstance(exception, RequestDataTooBig):
        return TooLarge("What was sent is too large. Send less at once.")
    if isinstance(exception, RecursionError):  # JSON in a thousand brackets
        return exceptions.ParseError("This is nested too deeply.")
    if isinstance(exception, SuspiciousOperation):
        return exceptions.ParseError(said)
    return None


def _body(error: exceptions.APIException) -> dict[str, Any]:
    errors = getattr(error, "errors", None)
    code = error.default_code if isinstance(error.detail, dict | list) else error.detail.code
    if isinstance(error.detail, dict | list):
        errors = dict(flat(error.detail))
        name, said = next(iter(errors.items()), ("", [error.default_detail]))
        detail = str(said[0]) if name in ("", "non_field_errors") else f"{name}: {said[0]}"
    else:
        detail = str(error.detail)
    return problem(error.status_code, str(code or error.default_code), detail, errors)


def flat(errors: Any, before: str = "") -> Iterator[tuple[str, list[str]]]:
    """Nested errors of serializers, by dotted names."""
    if isinstance(errors, dict):
        for name, inner in errors.items():
            yield from flat(inner, f"{before}.{name}" if before else str(name))
    elif isinstance(errors, list) and any(isinstance(one, dict | list) for one in errors):
        for number, inner in enumerate(errors):
            if inner:
                yield from flat(inner, f"{before}.{number}" if before else str(number))
    elif isinstance(errors, list):
        yield before, [str(one) for one in errors]
    else:
        yield before, [str(errors)]


def answer(status: int, code: str, detail: str) -> JsonResponse:
    """For requests that reach no view of the API."""
    return JsonResponse(problem(status, code, detail), status=status, content_type=MEDIA_TYPE)


def concerns(request: HttpRequest) -> bool:
    return request.path.startswith(PREFIX)
