from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from config.env import origin

# Style attributes carry widths of bars and shades of cells; scripts come from files only.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    ]
)


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        # The button of the single sign-on is a form whose answer leads to the provider.
        elsewhere = [origin(settings.OIDC["server_url"])] if settings.OIDC else []
        targets = " ".join(["'self'", *elsewhere, *settings.OIDC_LOGIN_ORIGINS])
        policy = f"{POLICY}; form-action {targets}"
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return middleware
