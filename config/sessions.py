"""Who is asking, by statements that each connection plans once.

Every request begins with two rows, the session and its user; built by the ORM anew each time they
took a sixth of an annotator's cycle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth import backends
from django.contrib.auth.models import User
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from annotation import prepared


class SessionStore(db.SessionStore):
    """Sessions in the database, as Django keeps them."""

    def _get_session_from_db(self) -> Session | None:
        values = {"key": self.session_key, "now": timezone.now()}
        found = prepared.get(Session, "session_key = %(key)s AND expire_date > %(now)s", values)
        if found is None:
            self._session_key = None
        return found


class Backend(backends.ModelBackend):
    """People with a password, as Django knows them."""

    def get_user(self, user_id: Any) -> User | None:
        user = prepared.get(User, "id = %(pk)s", {"pk": user_id})
        return user if user is not None and self.user_can_authenticate(user) else None


def end_idle(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Logs out whoever did nothing for SESSION_IDLE_MINUTES; written down a tenth as often."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        longest = settings.SESSION_IDLE_MINUTES * 60
        if longest and auth.SESSION_KEY in request.session:
            now = int(time.time())
            seen = request.session.setdefault("seen", now)
            if now - seen > longest:
                auth.logout(request)
            elif now - seen > longest // 10:
                request.session["seen"] = now
        return get_response(request)

    return middleware
