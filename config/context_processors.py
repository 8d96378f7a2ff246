from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from config.version import release
from generation.access import looks_on

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class Entry(NamedTuple):
    label: StrOrPromise
    url: str
    current: bool


# Label and path. The paths are public contracts, so the navigation does not depend on how an app
# names its views.
WORK = [(_("Home"), "/"), (_("Label"), "/label/")]
FIGURES = [
    (_("Sources"), "/sources/"),
    (_("Edit"), "/edit/"),
    (_("Campaigns"), "/campaigns/"),
    (_("Loop"), "/loop/"),
    (_("Policies"), "/policies/"),
    (_("Leaderboard"), "/leaderboard/"),
    (_("Projects"), "/projects/"),
]
ADMIN = [(pgettext_lazy("the site of that name", "Admin"), f"/{settings.ADMIN_PATH}")]


def navigation(request: HttpRequest) -> dict[str, object]:
    # Asked only where a page shows the bar: a fragment of a page costs no query for it.
    return {"navigation": SimpleLazyObject(lambda: _entries(request))}


def languages(request: HttpRequest) -> dict[str, object]:
    """Those to choose from, each in its own words; Django's own tag would translate the names."""
    return {"languages": settings.LANGUAGES}


def sign_in(request: HttpRequest) -> dict[str, str]:
    """The name of the single sign-on, for its button; empty where there is none."""
    return {"sign_in": settings.OIDC.get("name", "")}


def version(request: HttpRequest) -> dict[str, str]:
    return {"release": release()}


def _entries(request: HttpRequest) -> list[Entry]:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return []
    shown = [*WORK, *(FIGURES if looks_on(user) else []), *(ADMIN if user.is_staff else [])]
    return [Entry(label, path, _is_current(request.path, path)) for label, path in shown]


def _is_current(here: str, path: str) -> bool:
    return here == path if path == "/" else here.startswith(path)
