"""Failures go to Sentry where SENTRY_DSN is set, without what they were about.

No cookies, headers of a login, bodies, query strings, local variables or names of people leave this
machine: of a person only the number.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config.logs import scrub
from config.version import release
from generation import trail

KEPT_OF_A_REQUEST = ("method", "url")


def start() -> None:
    if not settings.SENTRY_DSN:
        return
    try:
        import sentry_sdk
    except ImportError:
        raise ImproperlyConfigured(
            "SENTRY_DSN is set, and the package that sends to Sentry is missing. Install it: "
            'pip install "oneloop[sentry]", or unset SENTRY_DSN.'
        ) from None
    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        release=release(),
        environment="production" if settings.PRODUCTION else "development",
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        traces_sample_rate=0,
        before_send=_without_secrets,
        before_breadcrumb=_scrubbed_crumb,
    )


def _without_secrets(event: Any, hint: dict[str, Any]) -> Any:
    request = event.get("request") or {}
    event["request"] = {key: request[key] for key in KEPT_OF_A_REQUEST if key in request}
    event["user"] = {key: value for key, value in (event.get("user") or {}).items() if key == "id"}
    event["tags"] = {**(event.get("tags") or {}), **trail.current()}
    event.pop("extra", None)
    return _scrubbed(event)


def _scrubbed_crumb(crumb: Any, hint: dict[str, Any]) -> Any:
    # A statement's values are people's words, an address's query somebody's search.
    crumb.pop("data", None)
    return _scrubbed(crumb)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {key: _scrubbed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    return value
