"""The API's first words: who is asking, and the pictures they may see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import Http404, HttpResponse
from django.urls import URLPattern, path, re_path, reverse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view, permission_classes, renderer_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from generation import api, delivery, pictures
from generation.access import roles_of
from generation.authentication import needs_scope
from generation.images import ImageError
from generation.models import Role, Scope, Token


class TokenOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    expires = serializers.DateTimeField()


class MeOut(serializers.Serializer[Any]):
    username = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    email = serializers.CharField(allow_blank=True)
    roles = serializers.DictField(child=serializers.ChoiceField(choices=Role.choices))
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices))
    token = TokenOut(allow_null=True)


@extend_schema(operation_id="me", responses=MeOut)
@api_view(["GET"])
def me(request: Request) -> Response:
    """Who is asking: the person, their roles by project, and what their token may do.

    A browser's session may do whatever the person may.
    """
    user = api.user_of(request)
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


class Png(BaseRenderer):
    media_type = "image/png"
    format = "png"
    render_style = "binary"

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        """Of errors alone: a picture comes as it is."""
        return JSONRenderer().render(data)


@extend_schema(operation_id="images", responses={(200, "image/png"): OpenApiTypes.BINARY})
@api_view(["GET"])
@renderer_classes([Png, JSONRenderer])
@permission_classes([IsAuthenticated, needs_scope(Scope.READ, Scope.SERVE)])
def image(request: Request, sha256: str) -> HttpResponse:
    """A picture's PNG, for members of a project that uses it."""
    row = pictures.get_for_user(api.user_of(request), sha256)
    try:
        response = delivery.picture(request, row)
    except ImageError as error:
        raise Http404(str(error)) from None
    response["Cache-Control"] = "private, max-age=86400"
    return response


class LinkOut(serializers.Serializer[Any]):
    url = serializers.URLField()
    ends_at = serializers.DateTimeField()


@extend_schema(operation_id="images_link", responses=LinkOut)
@api_view(["GET"])
@permission_classes([IsAuthenticated, needs_scope(Scope.READ)])
def image_link(request: Request, sha256: str) -> Response:
    """An address that shows the picture to whoever has it, without a token, until it ends.

    It ends sooner when you may see the picture no longer, or your account is closed.
    """
    user = api.user_of(request)
    token = delivery.sign(pictures.get_for_user(user, sha256), user)
    ends_at = timezone.now() + timedelta(seconds=settings.IMAGE_LINK_SECONDS)
    url = request.build_absolute_uri(reverse("generation:signed_image", args=[token]))
    return Response(LinkOut({"url": url, "ends_at": ends_at}).data)


urlpatterns: list[URLPattern] = [
    path("me", me, name="me"),
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})\.png$", image, name="api_image"),
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})/link$", image_link, name="api_image_link"),
]
