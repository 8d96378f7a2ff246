from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialApp, SocialToken
from allauth.socialaccount.providers.openid_connect.views import login as oidc_login
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path
from django.utils.translation import gettext_lazy as _

from config import (
    account_views,
    api_views,
    health,
    privacy_views,
    sign_in,
    status_views,
    views,
)
from config.log_in import LogIn

admin.site.site_header = "OneLoop"
admin.site.site_title = "OneLoop"
admin.site.index_title = _("Everything that can be edited")
# The provider comes from the environment, and its tokens are not kept. Second factors and sessions
# are their owner's business; manage.py remove_second_factor helps who lost one.
for model in (SocialApp, SocialToken, Authenticator, UserSession):
    admin.site.unregister(model)

# The names are allauth's; of its pages only those of the single sign-on exist.
oidc = [
    path("oidc/<slug:provider_id>/login/", oidc_login, name="openid_connect_login"),
    path(
        "oidc/<slug:provider_id>/login/callback/",
        sign_in.callback,
        name="openid_connect_callback",
    ),
    path("oidc/cancelled/", sign_in.cancelled, name="socialaccount_login_cancelled"),
    path("oidc/inactive/", sign_in.inactive, name="account_inactive"),
]

handler400, handler403 = views.unreadable, views.refused
handler404, handler500 = views.missing, views.failed

urlpatterns = [
    path("", views.home, name="home"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics_page, name="metrics"),
    path("status/", status_views.page, name="status"),
    path("favicon.ico", views.favicon),
    path("login/", LogIn.as_view(), name="login"),
    path("login/", LogIn.as_view(), name="account_login"),  # allauth's name of it
    path("login/code/", account_views.LogInCode.as_view(), name="mfa_authenticate"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("language/", views.language, name="language"),
    path("api/v1/schema/", api_views.description, name="api_schema"),
    path("api/v1/docs/", api_views.docs, name="api_docs"),
    path("account/second-factor/", account_views.second_factor, name="second_factor"),
    path("account/sessions/", account_views.sessions, name="sessions"),
    path("account/data/", privacy_views.my_data, name="my_data"),
    path("people/<int:pk>/erase/", privacy_views.erase, name="erase_person"),
    path(settings.ADMIN_PATH, admin.site.urls),
    *oidc,
    path("", include("generation.urls")),
    path("", include("annotation.urls")),
    path("", include("modeling.urls")),
]
