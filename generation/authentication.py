"""How the API knows a person by a token, and what the token's scopes let it do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from generation import tokens
from generation.models import Token


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer olp_…`"""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        scheme, *rest = get_authorization_header(request).split() or [b""]
        if scheme.lower() != b"bearer":
            return None
        if len(rest) != 1:
            raise AuthenticationFailed(
                _("Write the header as “Authorization: Bearer olp_…”, with one token.")
            )
        try:
            token = tokens.usable(rest[0].decode("ascii", "replace"))
        except tokens.TokenError as error:
            raise AuthenticationFailed(str(error)) from None
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """Lets a token through that has one of the scopes. A person who is logged in needs none.

    The person's roles are asked for besides, by whoever answers the request.
    """

    scopes: tuple[str, ...] = ()

    def has_permission(self, request: Request, view: Any) -> bool:
        token = request.auth
        if isinstance(token, Token) and not any(token.admits(scope) for scope in self.scopes):
            self.message = _(
                "This token may not do that: it lacks the scope “%(scope)s”. Make one that has it "
                "on the page “Account”."
            ) % {"scope": self.scopes[0]}
            return False
        return True


def needs_scope(*scopes: str) -> type[HasScope]:
    """For `permission_classes`, beside IsAuthenticated."""
    return type(f"Has{scopes[0].capitalize()}", (HasScope,), {"scopes": scopes})
