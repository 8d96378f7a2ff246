from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from annotation.models import Campaign, Dimension
from generation.models import Project, Task
from modeling.leaderboard import Scope


class ScopeForm(forms.Form):
    """Which judgments a board is about; it lives in the address."""

    project = forms.ModelChoiceField(Project.objects.none(), required=False, label=_("Project"))
    task = forms.ModelChoiceField(
        Task.objects.all(), required=False, label=_("Task"), empty_label=_("All tasks")
    )
    dimension = forms.ModelChoiceField(
        Dimension.objects.all(),
        required=False,
        label=_("Dimension"),
        empty_label=_("All dimensions"),
    )
    campaign = forms.ModelChoiceField(
        Campaign.objects.none(),
        required=False,
        label=_("Campaign"),
        empty_label=_("All campaigns"),
    )
    annotators = forms.ChoiceField(
        choices=[("human", _("People")), ("simulated", _("Simulated annotators"))],
        required=False,
        label=_("Judged by"),
    )

    def __init__(self, data: Any, projects: QuerySet[Project]) -> None:
        super().__init__(data)
        self.projects = projects
        self._rows("project", projects)
        if projects.count() < 2:
            self.fields.pop("project")
        self._rows("campaign", Campaign.objects.filter(project__in=projects))

    def _rows(self, name: str, rows: QuerySet[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = rows

    def scope(self) -> Scope | None:
        """None where the person is in no project. What the address gets wrong is left out."""
        self.is_valid()
        said = self.cleaned_data
        campaign = said.get("campaign")
        project = said.get("project") or (campaign.project if campaign else self.projects.first())
        if project is None:
            return None
        if campaign is not None and campaign.project_id != project.pk:
            campaign = None
        return Scope(
            project=project,
            task=said.get("task"),
            dimension=said.get("dimension"),
            campaigns=(campaign,) if campaign else (),
            simulated=campaign.simulated if campaign else said.get("annotators") == "simulated",
        )
