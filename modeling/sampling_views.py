"""What candidates are drawn with, and what the labels of each version of a plan said."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from generation.access import needs, user_of
from generation.models import Role
from modeling import sampling_page
from modeling.models import RewardModel


@require_safe
@needs(Role.VIEWER)
def sampling(request: HttpRequest) -> HttpResponse:
    asked = request.GET.get("labels")
    simulated = asked == "simulated" or (not asked and sampling_page.only_simulated())
    model = RewardModel.objects.filter(state=RewardModel.State.ACTIVE).first()
    context = {
        "histories": sampling_page.histories(simulated=simulated, model=model),
        "simulated": simulated,
        "model": model,
        "may_edit": user_of(request).is_staff,
    }
    return render(request, "modeling/sampling.html", context)
