from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from config.env import origin

# Scripts and style sheets come from files only, so that no nonce is needed; there is no inline
# script anywhere. Style attributes carry widths of bars and shades of cells.
POLICY = {
    "default-src": ["'self'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "style-src-attr": ["'unsafe-inline'"],
    "img-src": ["'self'", "data:", "blob:"],
    "connect-src": ["'self'"],
    "frame-src": ["'none'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
    "form-action": ["'self'"],
}
UNUSED = [
    "accelerometer",
    "autoplay",
    "camera",
    "display-capture",
    "encrypted-media",
    "geolocation",
    "gyroscope",
    "hid",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "serial",
    "usb",
    "xr-spatial-tracking",
]
HEADERS = {
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in UNUSED),
    # Other sites may not embed what is answered here, pictures and scripts included.
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Permitted-Cross-Domain-Policies": "none",
    # Of anything that says nothing else itself: kept by no proxy, asked for again by the browser.
    "Cache-Control": "private, no-cache",
}


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """On every answer; the others of their kind are those of Django's SecurityMiddleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", _policy())
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return middleware


def _policy() -> str:
    # The button of the single sign-on is a form whose answer leads to the provider.
    provider = [origin(settings.OIDC["server_url"])] if settings.OIDC else []
    more = {
        "form-action": [*provider, *settings.OIDC_LOGIN_ORIGINS],
        # An image's address may lead on to the object store.
        "img-src": settings.MEDIA_ORIGINS,
        "connect-src": settings.MEDIA_ORIGINS,
    }
    parts = [" ".join([name, *POLICY[name], *more.get(name, [])]) for name in POLICY]
    if settings.SECURE_SSL_REDIRECT:
        parts.append("upgrade-insecure-requests")
    return "; ".join(parts)
