"""The addresses of what is measured: leaderboards and studies."""

from django.urls import path

from modeling import leaderboard_views as boards

urlpatterns = [
    path("leaderboard/", boards.leaderboard, name="leaderboard"),
    path("leaderboard/share/", boards.make_link, name="share_leaderboard"),
    path("leaderboard/links/<int:pk>/hide/", boards.revoke_link, name="hide_leaderboard"),
    path("leaderboard/<str:secret>/", boards.public, name="public_leaderboard"),
]
