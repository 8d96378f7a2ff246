"""The API's first words: who is asking."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.urls import URLPattern, path
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from generation.access import roles_of
from generation.models import Scope, Token


@api_view(["GET"])
def me(request: Request) -> Response:
    """The person, their roles by project, and what the token they came with may do.

    A browser's session may do whatever the person may.
    """
    user = request.user
    assert isinstance(user, User)  # IsAuthenticated
    token = request.auth if isinstance(request.auth, Token) else None
    return Response(
        {
            "username": user.get_username(),
            "name": user.get_full_name(),
            "email": user.email,
            "roles": {project.slug: role.value for project, role in roles_of(user).items()},
            "scopes": token.scopes if token else list(Scope.values),
            "token": {"name": token.name, "expires": token.expires_at} if token else None,
        }
    )


urlpatterns: list[URLPattern] = [path("me", me, name="me")]
