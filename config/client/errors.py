"""What the site refuses, as exceptions that say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class OneLoopError(Exception):
    """Anything that goes wrong here."""


class Unreachable(OneLoopError):
    """The site does not answer."""


class ApiError(OneLoopError):
    """A refusal, from its problem details (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.errors: dict[str, Sequence[str]] = dict(problem.get("errors") or {})
        super().__init__(self._said())

    def _said(self) -> str:
        lines = [f"{self.status} {self.title}: {self.detail}".strip(": ")]
        lines += [f"  {name}: {' '.join(said)}" for name, said in self.errors.items()]
        return "\n".join(lines if len(self.errors) > 1 else lines[:1])


class NotAllowed(ApiError):
    """The token is not known, lacks the scope, or its owner the role."""


class NotFound(ApiError):
    """Not there, or in a project that the token's owner is not in."""


class Conflict(ApiError):
    """Not in the state that things are in now."""


class Invalid(ApiError):
    """What was sent does not fit; `errors` says field by field why."""


class TooOften(ApiError):
    """Asked too often, and still after several waits."""


class ServerError(ApiError):
    """Something broke there, and still after several tries."""


KINDS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
    429: TooOften,
}


def of(status: int, problem: Mapping[str, Any]) -> ApiError:
    kind = ServerError if status >= 500 else KINDS.get(status, ApiError)
    return kind(status, problem)
