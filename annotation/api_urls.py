"""The addresses of the API below /api/v1/ that this app answers."""

from django.urls import URLPattern, path

from annotation import campaign_api, campaign_orders, export_api, feedback_api, read_api

urlpatterns: list[URLPattern] = [
    path("feedback", feedback_api.Events.as_view(), name="api_feedback"),
    path("dimensions", read_api.Dimensions.as_view(), name="api_dimensions"),
    path("dimensions/<slug:slug>", read_api.OneDimension.as_view(), name="api_dimension"),
    path("campaigns", campaign_orders.Campaigns.as_view(), name="api_campaigns"),
    path("campaigns/<int:pk>", read_api.OneCampaign.as_view(), name="api_campaign"),
    path("campaigns/<int:pk>/progress", campaign_api.Progress.as_view(), name="api_progress"),
    path("campaigns/<int:pk>/sets", campaign_orders.CampaignSets.as_view(), name="api_add_sets"),
    path("campaigns/<int:pk>/state", campaign_orders.CampaignState.as_view(), name="api_state"),
    path("campaigns/<int:pk>/items", campaign_api.Items.as_view(), name="api_items"),
    path("exports", export_api.Exports.as_view(), name="api_exports"),
    path("exports/<int:pk>", export_api.OneExport.as_view(), name="api_export"),
    path(
        "exports/<int:pk>/download",
        export_api.ExportDownload.as_view(),
        name="api_export_download",
    ),
    path("judgments", read_api.Judgments.as_view(), name="api_judgments"),
    path("judgments/<int:pk>", read_api.OneJudgment.as_view(), name="api_judgment"),
    path("ratings", read_api.Ratings.as_view(), name="api_ratings"),
    path("ratings/<int:pk>", read_api.OneRating.as_view(), name="api_rating"),
    path("preferences", read_api.Preferences.as_view(), name="api_preferences"),
]
