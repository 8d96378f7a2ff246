"""The addresses of what is measured: leaderboards and studies."""

from django.urls import path

from modeling import leaderboard_views as boards
from modeling import study_views

urlpatterns = [
    path("leaderboard/", boards.leaderboard, name="leaderboard"),
    path("leaderboard/share/", boards.make_link, name="share_leaderboard"),
    path("leaderboard/links/<int:pk>/hide/", boards.revoke_link, name="hide_leaderboard"),
    path("leaderboard/<str:secret>/", boards.public, name="public_leaderboard"),
    path("studies/", study_views.study_list, name="studies"),
    path("studies/power/", study_views.power_page, name="power"),
    path("studies/<int:pk>/", study_views.study_page, name="study"),
    path("studies/<int:pk>/figures/", study_views.add_figures, name="add_figures"),
]
