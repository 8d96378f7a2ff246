from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from generation.access import needs, projects_of, user_of
from generation.models import Role
from modeling.feedback_report import report


@require_GET
@needs(Role.VIEWER)
def feedback_page(request: HttpRequest) -> HttpResponse:
    """What production says of the policies, in the projects the person sees."""
    found = report(projects_of(user_of(request)))
    return render(request, "modeling/feedback.html", {"report": found})
