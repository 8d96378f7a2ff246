"""The API's first words: who is asking, and the pictures they may see."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import Http404, HttpResponse
from django.urls import URLPattern, path, re_path
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from generation import images, pictures
from generation.access import roles_of
from generation.authentication import needs_scope
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


@api_view(["GET"])
@permission_classes([IsAuthenticated, needs_scope(Scope.READ) | needs_scope(Scope.SERVE)])
def image(request: Request, sha256: str) -> HttpResponse:
    """A picture's PNG, for members of a project that uses it."""
    user = request.user
    assert isinstance(user, User)  # IsAuthenticated
    row = pictures.get_for_user(user, sha256)
    try:
        data = images.read_bytes(row)
    except images.ImageError as error:
        raise Http404(str(error)) from None
    response = HttpResponse(data, content_type="image/png")
    response["Cache-Control"] = "private, max-age=86400"
    return response


urlpatterns: list[URLPattern] = [
    path("me", me, name="me"),
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})\.png$", image, name="api_image"),
]
