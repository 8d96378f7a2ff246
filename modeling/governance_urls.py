from django.urls import path

from modeling import governance_views

urlpatterns = [
    path("loop/<int:number>/report/", governance_views.round_report, name="round_report"),
]
