"""The addresses of the API below /api/v1/ that this app answers."""

from django.urls import URLPattern, path

from modeling import api_views, edit_api, lineage_api, read_api

urlpatterns: list[URLPattern] = [
    *api_views.urlpatterns,
    *lineage_api.urlpatterns,
    path("edits", edit_api.edit_order, name="api_edits"),
    path("edits/<int:pk>", edit_api.edit_state, name="api_edit"),
    path("reward-models", read_api.RewardModels.as_view(), name="api_reward_models"),
    path("reward-models/<int:pk>", read_api.OneRewardModel.as_view(), name="api_reward_model"),
    path("snapshots", read_api.Snapshots.as_view(), name="api_snapshots"),
    path("snapshots/<int:pk>", read_api.OneSnapshot.as_view(), name="api_snapshot"),
    path("trainings", read_api.Trainings.as_view(), name="api_trainings"),
    path("trainings/<int:pk>", read_api.OneTraining.as_view(), name="api_training"),
    path("evaluations", read_api.Evaluations.as_view(), name="api_evaluations"),
    path("evaluations/<int:pk>", read_api.OneEvaluation.as_view(), name="api_evaluation"),
    path("rounds", read_api.Rounds.as_view(), name="api_rounds"),
    path("rounds/<int:number>", read_api.OneRound.as_view(), name="api_round"),
    path("leaderboard", read_api.Leaderboard.as_view(), name="api_leaderboard"),
    path("studies", read_api.Studies.as_view(), name="api_studies"),
    path("studies/<int:pk>", read_api.OneStudy.as_view(), name="api_study"),
    path("feedback/report", read_api.FeedbackReport.as_view(), name="api_feedback_report"),
]
