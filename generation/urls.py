from django.urls import URLPattern, URLResolver, path, re_path

from generation import views

app_name = "generation"

urlpatterns: list[URLPattern | URLResolver] = [
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})\.png$", views.image, name="image"),
    path("sources/", views.source_list, name="sources"),
    path("sources/new/", views.source_new, name="source_new"),
]
