from django.urls import URLPattern, URLResolver, include, path, re_path

from generation import api_urls, audit_views, people_views, views, webhook_views

app_name = "generation"

urlpatterns: list[URLPattern | URLResolver] = [
    re_path(r"^images/(?P<sha256>[0-9a-f]{64})\.png$", views.image, name="image"),
    path("images/signed/<str:token>/", views.signed_image, name="signed_image"),
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
    path("webhooks/", webhook_views.webhook_list, name="webhooks"),
    path("webhooks/<int:pk>/", webhook_views.webhook_page, name="webhook"),
    path("webhooks/<int:pk>/change/", webhook_views.webhook_change, name="webhook_change"),
    path("webhooks/deliveries/<int:pk>/again/", webhook_views.webhook_again, name="webhook_again"),
    path("api/v1/", include(api_urls.urlpatterns)),
]
