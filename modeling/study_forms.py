from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation.models import Campaign
from generation.models import Policy, Project, Task
from modeling.models import Study
from modeling.power import Design


class StudyForm(forms.ModelForm):
    class Meta:
        model = Study
        fields = ["name", "project", "question", "systems", "tasks", "campaigns"]
        labels = {
            "project": lazy("Project"),
            "systems": lazy("Systems"),
            "tasks": lazy("Tasks"),
            "campaigns": lazy("Campaigns"),
        }
        widgets = {
            "question": forms.Textarea(attrs={"rows": 2}),
            **dict.fromkeys(("systems", "tasks", "campaigns"), forms.CheckboxSelectMultiple),
        }
        error_messages = {
            "name": {"unique": lazy("There is already a study of this name: choose another name.")}
        }

    def __init__(self, data: Any, projects: QuerySet[Project]) -> None:
        super().__init__(data)
        self.projects = projects
        for name, rows in {
            "project": projects,
            "systems": Policy.objects.filter(candidates__isnull=False).distinct(),
            "tasks": Task.objects.filter(sources__isnull=False).distinct(),
            "campaigns": Campaign.objects.filter(project__in=projects),
        }.items():
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = rows
        self.fields["project"].initial = projects.first()
        self.fields["project"].required = False

    def clean_project(self) -> Project:
        project = self.cleaned_data["project"] or self.projects.first()
        if project is None:
            raise forms.ValidationError(_("You manage no project in which the study could be."))
        return project

    def clean(self) -> dict[str, Any]:
        said = super().clean() or self.cleaned_data
        project = said.get("project")
        for campaign in said.get("campaigns") or ():
            if project is not None and campaign.project_id != project.pk:
                self.add_error(
                    "campaigns",
                    _("“%(campaign)s” belongs to another project than the study.")
                    % {"campaign": campaign},
                )
        return said


class FiguresForm(forms.Form):
    file = forms.FileField(label=lazy("CSV of published figures"))


class PowerForm(forms.Form):
    """What a study should see; it lives in the address."""

    base = forms.FloatField(
        initial=60,
        min_value=0.1,
        max_value=99.9,
        label=lazy("Usable today, per cent"),
        required=False,
    )
    points = forms.FloatField(
        initial=5,
        min_value=0.1,
        max_value=99,
        label=lazy("Difference to see, points"),
        required=False,
    )
    alike = forms.FloatField(
        initial=0.5,
        min_value=0,
        max_value=1,
        label=lazy("How alike the two come out on one source"),
        help_text=lazy("Correlation, 0 to 1; 0: as if each were drawn anew."),
        required=False,
    )
    power = forms.FloatField(
        initial=80, min_value=50, max_value=99.9, label=lazy("Power, per cent"), required=False
    )
    level = forms.FloatField(
        initial=5, min_value=0.01, max_value=50, label=lazy("Level, per cent"), required=False
    )
    comparisons = forms.IntegerField(
        initial=1,
        min_value=1,
        max_value=1000,
        label=lazy("Comparisons in the study"),
        required=False,
    )
    raters = forms.IntegerField(
        initial=1, min_value=1, max_value=50, label=lazy("People per image"), required=False
    )
    agreement = forms.FloatField(
        initial=0.5,
        min_value=0,
        max_value=1,
        label=lazy("How alike they answer"),
        help_text=lazy("Correlation of two people’s answers about one image, 0 to 1."),
        required=False,
    )

    def values(self) -> dict[str, Any]:
        """What was said, and the initial value of what was not."""
        said = self.cleaned_data
        initial = {name: field.initial for name, field in self.fields.items()}
        return {name: initial[name] if said.get(name) is None else said[name] for name in initial}

    def design(self) -> Design:
        said = self.values()
        return Design(
            power=said["power"] / 100,
            level=said["level"] / 100,
            comparisons=said["comparisons"],
            raters=said["raters"],
            agreement=said["agreement"],
        )
