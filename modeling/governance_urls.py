from django.urls import path

from modeling import governance_views

urlpatterns = [
    path("governance/", governance_views.overview, name="governance"),
    path("governance/reviewed/", governance_views.reviewed, name="governance_reviewed"),
    path("governance/wordings/<slug:slug>/", governance_views.wordings, name="wordings"),
    path("governance/tags/", governance_views.tags, name="audit_tags"),
    path("loop/<int:number>/report/", governance_views.round_report, name="round_report"),
]
