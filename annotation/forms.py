from __future__ import annotations

from string import Formatter
from typing import Any

from django import forms
from django.db.models import Count, Q, QuerySet

from annotation.models import Campaign, Dimension, Wording
from generation.forms import ProjectField
from generation.models import CandidateSet, GenerationRun, Project, Task

# Campaigns --------------------------------------------------------------------------------------


class TaskField(forms.ModelMultipleChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} ({obj.ready_sets} ready)"


class RunField(forms.ModelChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return f"Generation {obj.pk} by {obj.policy} ({obj.ready_sets} ready sets)"


class CampaignForm(forms.Form):
    project = ProjectField(help_text="Only its members and its sets.")
    name = forms.CharField(max_length=120, help_text="How people will know it.")
    tasks = TaskField(
        Task.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        help_text="Whose sets are judged, on all their active dimensions.",
    )
    run = RunField(
        GenerationRun.objects.none(),
        required=False,
        label="Candidate sets",
        empty_label="All ready sets of these tasks",
    )
    overlap = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        label="People per set",
        help_text="More people per set show how well they agree.",
    )
    guideline = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Shown to annotators beside the pictures; may stay empty.",
    )

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ProjectField.offer(self, projects)
        tasks = self.fields["tasks"]
        assert isinstance(tasks, TaskField)
        tasks.queryset = tasks_with_sets(projects)
        run = self.fields["run"]
        assert isinstance(run, RunField)
        run.queryset = runs_with_sets(projects)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if Campaign.objects.filter(name=name).exists():
            raise forms.ValidationError(
                "There is already a campaign of this name: choose another name."
            )
        return name


def tasks_with_sets(projects: QuerySet[Project]) -> QuerySet[Task]:
    ready = Q(sources__sets__state=CandidateSet.State.READY, sources__project__in=projects)
    return Task.objects.annotate(ready_sets=Count("sources__sets", filter=ready)).filter(
        Q(active=True) | Q(ready_sets__gt=0)
    )


def runs_with_sets(projects: QuerySet[Project]) -> QuerySet[GenerationRun]:
    ready = Q(sets__state=CandidateSet.State.READY, sets__source__project__in=projects)
    return (
        GenerationRun.objects.annotate(ready_sets=Count("sets", filter=ready))
        .filter(ready_sets__gt=0)
        .select_related("policy")
        .order_by("-pk")
    )


# Taxonomy ---------------------------------------------------------------------------------------


class DimensionForm(forms.ModelForm):
    """A dimension together with its newest wording; changing the wording adds a version."""

    question = forms.CharField(
        max_length=300,
        widget=forms.TextInput(attrs={"size": 90}),
        help_text="Asked of annotators.",
    )
    query = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 90}),
        help_text="Asked of the reward model: a yes/no question whether the first image is better "
        "than the second. Where the dimension uses the prompt, {prompt} stands for it.",
    )
    guideline = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 4, "cols": 90})
    )

    class Meta:
        model = Dimension
        fields = ["name", "slug", "active", "uses_prompt"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        newest = self._newest(self.instance)
        if newest is not None:
            for field in ("question", "query", "guideline"):
                self.fields[field].initial = getattr(newest, field)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        query = cleaned.get("query", "")
        try:
            fields = {name for _, name, _, _ in Formatter().parse(query) if name is not None}
        except ValueError:
            self.add_error("query", "Write { and } only around the word prompt: {prompt}.")
            return cleaned
        if fields - {"prompt"}:
            self.add_error("query", "Only {prompt} can stand in a query; write the rest as words.")
        elif cleaned.get("uses_prompt") and not fields:
            self.add_error(
                "query", "This dimension uses the prompt: put {prompt} where it belongs."
            )
        elif fields and not cleaned.get("uses_prompt"):
            self.add_error(
                "query", "Tick “uses prompt”, or write the query without {prompt} in it."
            )
        return cleaned

    def save_wording(self, dimension: Dimension) -> None:
        newest = self._newest(dimension)
        said = {field: self.cleaned_data[field] for field in ("question", "query", "guideline")}
        if newest is None or any(getattr(newest, field) != said[field] for field in said):
            version = newest.version + 1 if newest else 1
            Wording.objects.create(dimension=dimension, version=version, **said)

    @staticmethod
    def _newest(dimension: Dimension) -> Wording | None:
        return dimension.wordings.order_by("-version").first() if dimension.pk else None
