"""Sign-in through an OpenID provider, by django-allauth; off unless the environment names one.

Passwords stay with Django's own login page. A person is known by the provider's `sub` and never
matched to an account here by e-mail, which anybody may claim: whoever has an account connects it
on the page “Account”.
"""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from allauth.socialaccount.signals import social_account_added
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.db import transaction
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from generation import audit, members
from generation.models import Project, Verb, default_project

PROVIDER = "sso"  # stands in the addresses the provider is told


class Passwords(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False  # accounts with passwords are made by invitation or by an admin

    def get_client_ip(self, request: HttpRequest) -> str:
        return audit.address_of(request) or "0.0.0.0"


class People(DefaultSocialAccountAdapter):
    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        """The environment's provider alone; rows in the database would be a second truth."""
        if not settings.OIDC or provider not in (None, PROVIDER, "openid_connect"):
            return []
        return [
            SocialApp(
                provider="openid_connect",
                provider_id=PROVIDER,
                name=settings.OIDC["name"],
                client_id=settings.OIDC["client_id"],
                secret=settings.OIDC["client_secret"],
                settings={"server_url": settings.OIDC["server_url"], "oauth_pkce_enabled": True},
            )
        ]

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return True  # the provider decides who is known to it

    @transaction.atomic
    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        """A new person, who is in no project until somebody adds them, unless a rule says more."""
        user: User = super().save_user(request, sociallogin, form)
        audit.record(
            actor=user, verb=Verb.SIGN_UP, thing=user, after={"through": settings.OIDC["name"]}
        )
        if settings.OIDC_DEFAULT_ROLE:
            project = Project.objects.get(pk=default_project())
            members.add(project=project, user=user, role=settings.OIDC_DEFAULT_ROLE, actor=None)
        return user

    def get_connect_redirect_url(self, request: HttpRequest, socialaccount: Any) -> str:
        return reverse("generation:account")


@receiver(social_account_added)
def _connected(sender: Any, request: HttpRequest, sociallogin: SocialLogin, **kwargs: Any) -> None:
    user = sociallogin.user
    after = {"through": settings.OIDC["name"]}
    audit.record(actor=user, verb=Verb.CONNECT, thing=user, after=after)


class Checked(OpenIDConnectOAuth2Adapter):
    """Trusts an answer by the provider's signature, not only by the connection it came over."""

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: Any, **kwargs: Any
    ) -> SocialLogin:
        if "id_token" not in kwargs["response"]:
            raise OAuth2Error("The provider sent no id_token.")
        # allauth skips the signature of a token that it has fetched itself.
        self.did_fetch_access_token = False
        try:
            login = super().complete_login(request, app, token, **kwargs)
        except (KeyError, ValueError) as error:
            raise OAuth2Error("The provider's answer lacks something.") from error
        said = login.account.extra_data
        if said["userinfo"]["sub"] != said["id_token"]["sub"]:
            raise OAuth2Error("The provider's id_token and userinfo are about different people.")
        return login


@login_not_required
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    try:
        return OAuth2CallbackView.adapter_view(Checked(request, provider_id))(request)
    except SocialApp.DoesNotExist:
        raise Http404 from None


@login_not_required
def cancelled(request: HttpRequest) -> HttpResponse:
    return render(request, "socialaccount/login_cancelled.html")


@login_not_required
def inactive(request: HttpRequest) -> HttpResponse:
    return render(request, "account/account_inactive.html", status=403)
