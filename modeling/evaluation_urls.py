"""The addresses of what is measured: leaderboards, studies and what sampling plans led to."""

from django.urls import path

from modeling import insight_views, sampling_views, study_views
from modeling import leaderboard_views as boards

urlpatterns = [
    path("leaderboard/", boards.leaderboard, name="leaderboard"),
    path("leaderboard/share/", boards.make_link, name="share_leaderboard"),
    path("leaderboard/links/<int:pk>/hide/", boards.revoke_link, name="hide_leaderboard"),
    path("leaderboard/<str:secret>/", boards.public, name="public_leaderboard"),
    path("policies/<int:pk>/", insight_views.policy_page, name="policy"),
    path("policies/<int:pk>/weights/", insight_views.download_policy, name="download_policy"),
    path("reward-models/<int:pk>/", insight_views.reward_page, name="reward_model"),
    path(
        "reward-models/<int:pk>/again/<int:set_id>/", insight_views.judge_again, name="judge_again"
    ),
    path("sampling/", sampling_views.sampling, name="sampling"),
    path("studies/", study_views.study_list, name="studies"),
    path("studies/power/", study_views.power_page, name="power"),
    path("studies/<int:pk>/", study_views.study_page, name="study"),
    path("studies/<int:pk>/figures/", study_views.add_figures, name="add_figures"),
]
