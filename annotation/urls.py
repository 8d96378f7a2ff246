from django.urls import URLPattern, URLResolver, include, path

from annotation import (
    api_urls,
    campaign_views,
    contents_views,
    export_views,
    member_views,
    practice_views,
    quality_views,
    review_views,
    views,
)

app_name = "annotation"

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(api_urls.urlpatterns)),
    path("exports/", export_views.exports, name="exports"),
    path("exports/<int:pk>/", export_views.export, name="export"),
    path("exports/<int:pk>/change/", export_views.export_change, name="export_change"),
    path("exports/<int:pk>/file/", export_views.export_file, name="export_file"),
    path("label/", views.label, name="label"),
    path("label/campaign/<int:campaign_id>/", views.next_turn, name="next"),
    path("label/campaign/<int:campaign_id>/ahead/", views.ahead, name="ahead"),
    path("label/campaign/<int:campaign_id>/undo/", views.undo, name="undo"),
    path("label/history/", views.history, name="history"),
    path("label/campaign/<int:campaign_id>/practice/", practice_views.practise, name="practice"),
    path("label/<int:assignment_id>/feedback/", practice_views.feedback, name="feedback"),
    path("label/<int:assignment_id>/", views.turn, name="turn"),
    path("label/<int:assignment_id>/skip/", views.skip, name="skip"),
    path("label/<int:assignment_id>/flag/", views.flag, name="flag"),
    path("label/outline/<str:sha256>.svg", views.outline, name="outline"),
    path("label/shade/<str:sha256>.svg", views.outline, {"shade": True}, name="shade"),
    path("campaigns/", campaign_views.campaigns, name="campaigns"),
    path("campaigns/new/", campaign_views.new_campaign, name="new_campaign"),
    path("campaigns/<int:campaign_id>/", campaign_views.campaign, name="campaign"),
    path("campaigns/<int:campaign_id>/state/", campaign_views.state, name="campaign_state"),
    path("campaigns/<int:campaign_id>/edit/", campaign_views.edit, name="edit_campaign"),
    path("campaigns/<int:campaign_id>/clone/", campaign_views.clone, name="clone_campaign"),
    path("campaigns/<int:campaign_id>/preview/", campaign_views.preview, name="preview"),
    path("campaigns/<int:campaign_id>/guide/", campaign_views.guide, name="guide"),
    path("campaigns/<int:campaign_id>/sets/", contents_views.contents_page, name="campaign_sets"),
    path("campaigns/<int:campaign_id>/sets/adding/", contents_views.adding, name="adding"),
    path("campaigns/<int:campaign_id>/members/", member_views.members_page, name="members"),
    path("campaigns/<int:campaign_id>/gold/", practice_views.gold_page, name="gold"),
    path(
        "campaigns/<int:campaign_id>/gold/<int:item_id>/", practice_views.set_gold, name="set_gold"
    ),
    path("join/<str:secret>/", member_views.join, name="join"),
    # Quality and review
    path("campaigns/<int:campaign_id>/quality/", quality_views.quality, name="quality"),
    path(
        "campaigns/<int:campaign_id>/quality/consensus/", quality_views.consensus, name="consensus"
    ),
    path("campaigns/<int:campaign_id>/quality/pause/", quality_views.pause_all, name="pause_all"),
    path(
        "campaigns/<int:campaign_id>/quality/gold/",
        quality_views.known_answers,
        name="known_answers",
    ),
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
    path(
        "campaigns/<int:campaign_id>/flags/<int:flag_id>/",
        review_views.flag,
        name="review_flag",
    ),
]
