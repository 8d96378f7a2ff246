from django.urls import path

from modeling import governance_views

urlpatterns = [
    path("governance/tags/", governance_views.tags, name="audit_tags"),
    path("loop/<int:number>/report/", governance_views.round_report, name="round_report"),
]
