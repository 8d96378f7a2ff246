from django.urls import include, path

from modeling import (
    api_urls,
    edit_views,
    evaluation_urls,
    feedback_views,
    governance_urls,
    lineage_views,
    round_views,
    views,
)

app_name = "modeling"

urlpatterns = [
    path("loop/", views.loop, name="loop"),
    path("loop/start/", views.start_round, name="start_round"),
    path("loop/<int:number>/", views.round_page, name="round"),
    path("loop/<int:number>/labelled/", views.finish_labelling, name="finish_labelling"),
    path("loop/<int:number>/cancel/", views.cancel_round, name="cancel_round"),
    path("loop/<int:number>/approve/", round_views.approve, name="approve_round"),
    path("loop/<int:number>/undo/", round_views.undo, name="undo_round"),
    path("loop/steps/<int:pk>/", round_views.step_page, name="round_step"),
    path("loop/steps/<int:pk>/retry/", views.retry_step, name="retry_step"),
    path("loop/steps/<int:pk>/skip/", round_views.skip, name="skip_step"),
    path("loop/steps/<int:pk>/back/", round_views.roll_back, name="roll_back"),
    *evaluation_urls.urlpatterns,
    *governance_urls.urlpatterns,
    path("policies/", views.policy_list, name="policies"),
    path("policies/<int:pk>/activate/", views.activate_policy, name="activate_policy"),
    path("lineage/policies/<int:pk>/", lineage_views.of_policy, name="lineage_policy"),
    path("lineage/reward-models/<int:pk>/", lineage_views.of_reward, name="lineage_reward"),
    path("lineage/snapshots/<int:pk>/", lineage_views.of_snapshot, name="lineage_snapshot"),
    path("lineage/sources/<int:pk>/", lineage_views.of_source, name="lineage_source"),
    path(
        "lineage/sources/<int:pk>/withdraw/", lineage_views.withdraw_source, name="withdraw_source"
    ),
    path("lineage/people/<int:pk>/", lineage_views.of_person, name="lineage_person"),
    path(
        "lineage/people/<int:pk>/withdraw/", lineage_views.withdraw_person, name="withdraw_person"
    ),
    path("api/v1/", include(api_urls.urlpatterns)),
    path("feedback/", feedback_views.feedback_page, name="feedback"),
    path("edit/", edit_views.edit_new, name="edit_new"),
    path("edit/<int:pk>/", edit_views.edit_page, name="edit"),
    path("edit/<int:pk>/label/", edit_views.edit_label, name="edit_label"),
]
