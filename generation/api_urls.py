"""The addresses of the API below /api/v1/ that this app answers."""

from django.urls import URLPattern, path

from generation import api_views, read_api, write_api

urlpatterns: list[URLPattern] = [
    *api_views.urlpatterns,
    path("projects", read_api.Projects.as_view(), name="api_projects"),
    path("projects/<slug:slug>", read_api.OneProject.as_view(), name="api_project"),
    path("tasks", read_api.Tasks.as_view(), name="api_tasks"),
    path("tasks/<slug:slug>", read_api.OneTask.as_view(), name="api_task"),
    path("sources", write_api.Sources.as_view(), name="api_sources"),
    path("sources/<int:pk>", read_api.OneSource.as_view(), name="api_source"),
    path("policies", read_api.Policies.as_view(), name="api_policies"),
    path("policies/<int:pk>", read_api.OnePolicy.as_view(), name="api_policy"),
    path("sampling-plans", read_api.Plans.as_view(), name="api_plans"),
    path("sampling-plans/<int:pk>", read_api.OnePlan.as_view(), name="api_plan"),
    path("generations", write_api.Generations.as_view(), name="api_generations"),
    path("generations/<int:pk>", read_api.OneGeneration.as_view(), name="api_generation"),
    path("candidate-sets", read_api.Sets.as_view(), name="api_sets"),
    path("candidate-sets/<int:pk>", read_api.OneSet.as_view(), name="api_set"),
    path("webhooks", read_api.Webhooks.as_view(), name="api_webhooks"),
    path("webhooks/<int:pk>", read_api.OneWebhook.as_view(), name="api_webhook"),
    path("webhook-deliveries", read_api.Deliveries.as_view(), name="api_deliveries"),
    path("withdrawals", read_api.Withdrawals.as_view(), name="api_withdrawals"),
]
