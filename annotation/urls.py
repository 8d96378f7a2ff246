from django.urls import URLPattern, URLResolver, path

from annotation import campaign_views, quality_views, review_views, views

app_name = "annotation"

urlpatterns: list[URLPattern | URLResolver] = [
    path("label/", views.label, name="label"),
    path("label/campaign/<int:campaign_id>/", views.next_turn, name="next"),
    path("label/campaign/<int:campaign_id>/undo/", views.undo, name="undo"),
    path("label/<int:assignment_id>/", views.turn, name="turn"),
    path("label/<int:assignment_id>/skip/", views.skip, name="skip"),
    path("label/outline/<str:sha256>.svg", views.outline, name="outline"),
    path("label/shade/<str:sha256>.svg", views.outline, {"shade": True}, name="shade"),
    path("campaigns/", campaign_views.campaigns, name="campaigns"),
    path("campaigns/new/", campaign_views.new_campaign, name="new_campaign"),
    path("campaigns/<int:campaign_id>/", campaign_views.campaign, name="campaign"),
    path("campaigns/<int:campaign_id>/state/", campaign_views.state, name="campaign_state"),
    path("campaigns/<int:campaign_id>/sets/", campaign_views.add_sets, name="campaign_sets"),
    # Quality and review
    path("campaigns/<int:campaign_id>/quality/", quality_views.quality, name="quality"),
    path(
        "campaigns/<int:campaign_id>/quality/consensus/", quality_views.consensus, name="consensus"
    ),
    path("campaigns/<int:campaign_id>/quality/pause/", quality_views.pause_all, name="pause_all"),
    path("campaigns/<int:campaign_id>/quality/gold/", quality_views.known_answers, name="gold"),
    path(
        "campaigns/<int:campaign_id>/quality/people/<int:user_id>/",
        quality_views.person,
        name="quality_person",
    ),
    path("campaigns/<int:campaign_id>/labels/", quality_views.labels, name="labels"),
    path("campaigns/<int:campaign_id>/review/", review_views.queue, name="review"),
    path(
        "campaigns/<int:campaign_id>/review/<int:item_id>/", review_views.item, name="review_item"
    ),
    path(
        "campaigns/<int:campaign_id>/review/<int:item_id>/withdraw/",
        review_views.withdraw,
        name="review_withdraw",
    ),
    path(
        "campaigns/<int:campaign_id>/review/<int:item_id>/gold/",
        review_views.make_gold,
        name="review_gold",
    ),
    path("campaigns/<int:campaign_id>/flags/<int:flag_id>/", review_views.flag, name="flag"),
]
