from allauth.socialaccount.models import SocialApp, SocialToken
from allauth.socialaccount.providers.openid_connect.views import login as oidc_login
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.utils.translation import gettext_lazy as _

from config import api_views, sign_in, views

admin.site.site_header = "OneLoop"
admin.site.site_title = "OneLoop"
admin.site.index_title = _("Everything that can be edited")
# The provider comes from the environment, and its tokens are not kept.
for model in (SocialApp, SocialToken):
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
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("favicon.ico", views.favicon),
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("language/", views.language, name="language"),
    path("api/v1/schema/", api_views.description, name="api_schema"),
    path("api/v1/docs/", api_views.docs, name="api_docs"),
    path("admin/", admin.site.urls),
    *oidc,
    path("", include("generation.urls")),
    path("", include("annotation.urls")),
    path("", include("modeling.urls")),
]
