"""The head that all pages of a campaign share."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as lazy

from annotation.campaigns import MOVES
from annotation.models import Campaign
from generation.access import includes, role_in, user_of
from generation.models import Role

VERBS = {"open": lazy("Open"), "paused": lazy("Pause"), "closed": lazy("Close")}


def head(request: HttpRequest, found: Campaign, tab: str) -> dict[str, Any]:
    """What the head of every page of a campaign shows: its state, buttons and tabs."""
    imported = found.origin == Campaign.Origin.IMPORTED
    role = role_in(user_of(request), found.project_id)
    return {
        "campaign": found,
        "tab": tab,
        "manages": includes(role, Role.MANAGER),
        "reviews": includes(role, Role.REVIEWER),
        "labels": includes(role, Role.ANNOTATOR),
        "moves": [] if imported else [(state, VERBS[state]) for state in MOVES[found.state]],
    }
