from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from config import views

admin.site.site_header = "OneLoop"
admin.site.site_title = "OneLoop"
admin.site.index_title = "Everything that can be edited"

urlpatterns = [
    path("", views.home, name="home"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("favicon.ico", views.favicon),
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("", include("generation.urls")),
    path("", include("annotation.urls")),
    path("", include("modeling.urls")),
]
