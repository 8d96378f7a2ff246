from typing import NamedTuple

from django.http import HttpRequest


class Entry(NamedTuple):
    label: str
    url: str
    current: bool


# Label and path. The paths are public contracts, so the navigation does not depend on how an app
# names its views.
ENTRIES = [
    ("Home", "/", False),
    ("Label", "/label/", False),
    ("Sources", "/sources/", True),
    ("Campaigns", "/campaigns/", True),
    ("Loop", "/loop/", True),
    ("Policies", "/policies/", True),
    ("Admin", "/admin/", True),
]


def navigation(request: HttpRequest) -> dict[str, list[Entry]]:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {"navigation": []}
    return {
        "navigation": [
            Entry(label, path, _is_current(request.path, path))
            for label, path, staff_only in ENTRIES
            if user.is_staff or not staff_only
        ]
    }


def _is_current(here: str, path: str) -> bool:
    return here == path if path == "/" else here.startswith(path)
