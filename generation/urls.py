from django.urls import URLPattern, URLResolver, include, path, re_path

from generation import api_views, audit_views, people_views, views

app_name = "generation"

urlpatterns: list[URLPattern | URLResolver] = [
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})\.png$", views.image, name="image"),
    path("sources/", views.source_list, name="sources"),
    path("sources/new/", views.source_new, name="source_new"),
    path("projects/", people_views.projects, name="projects"),
    path("projects/<slug:slug>/", people_views.project, name="project"),
    path(
        "projects/<slug:slug>/members/<int:user_id>/", people_views.member_role, name="member_role"
    ),
    path(
        "projects/<slug:slug>/members/<int:user_id>/remove/",
        people_views.member_remove,
        name="member_remove",
    ),
    path("account/", people_views.account, name="account"),
    path("account/password/", people_views.PasswordChange.as_view(), name="password"),
    path("account/tokens/", people_views.token_new, name="token_new"),
    path("account/tokens/<int:token_id>/revoke/", people_views.token_revoke, name="token_revoke"),
    path("audit/", audit_views.audit_log, name="audit"),
    path("audit/entries.csv", audit_views.audit_csv, name="audit_csv"),
    path("api/v1/", include(api_views.urlpatterns)),
]
