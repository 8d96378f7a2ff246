from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation.export_rows import Pictures
from annotation.formats import FORMATS
from annotation.models import Campaign, Dimension
from generation.forms import ProjectField
from generation.models import Project, Split, Task

CANONICAL = ("canonical", lazy("OneLoop (everything)"))
ORIGINS = [
    ("people", lazy("people")),
    ("simulated", lazy("simulated annotators")),
    ("imported", lazy("imported")),
]
SHORTEST, LONGEST = 16, 8192
WHOLE = {"project", "format", "pictures", "max_side"}


def format_names() -> list[str]:
    return [CANONICAL[0], *sorted(FORMATS)]


def format_choices() -> list[tuple[str, Any]]:
    return [CANONICAL, *((name, name) for name in format_names()[1:])]


def _several(label: Any, choices: Any = ()) -> forms.MultipleChoiceField:
    return forms.MultipleChoiceField(
        label=label, choices=choices, required=False, widget=forms.CheckboxSelectMultiple
    )


class ExportForm(forms.Form):
    """Which judgments, and in which form; what is left empty leaves nothing out."""

    project = ProjectField(label=lazy("Project"))
    campaigns = _several(lazy("Campaigns"))
    tasks = _several(lazy("Tasks"))
    dimensions = _several(lazy("Dimensions"))
    splits = _several(lazy("Split"), Split.choices)
    origins = _several(lazy("Judged by"), ORIGINS)
    since = forms.DateField(
        label=lazy("From"), required=False, widget=forms.DateInput(attrs={"type": "date"})
    )
    until = forms.DateField(
        label=lazy("To, that day included"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    min_agreement = forms.FloatField(
        label=lazy("Least agreement"),
        required=False,
        min_value=0,
        max_value=1,
        widget=forms.NumberInput(attrs={"step": "0.05"}),
        help_text=lazy("Share of people who chose the same best, 0 to 1."),
    )
    format = forms.ChoiceField(label=lazy("Format"), choices=format_choices)
    pictures = forms.ChoiceField(label=lazy("Pictures"), choices=Pictures.choices)
    max_side = forms.IntegerField(
        label=lazy("Longest side, in pixels"),
        required=False,
        min_value=SHORTEST,
        max_value=LONGEST,
        help_text=lazy("Larger pictures are scaled down. Empty: as they are."),
    )

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ProjectField.offer(self, projects)
        campaigns = Campaign.objects.filter(project__in=projects).order_by("name")
        offered = {
            "campaigns": [(name, name) for name in campaigns.values_list("name", flat=True)],
            "tasks": Task.objects.values_list("slug", "name"),
            "dimensions": Dimension.objects.values_list("slug", "name"),
        }
        for name, choices in offered.items():
            field = self.fields[name]
            assert isinstance(field, forms.MultipleChoiceField)
            field.choices = list(dict(choices).items())

    @property
    def whole(self) -> list[forms.BoundField]:
        """What is said of every export; the others choose among the judgments."""
        return [field for field in self.visible_fields() if field.name in WHOLE]

    @property
    def partly(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.name not in WHOLE]

    @property
    def is_partial(self) -> bool:
        return any(field.value() or field.errors for field in self.partly)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        since, until = data.get("since"), data.get("until")
        if since and until and until < since:
            self.add_error("until", _("The last day comes before the first."))
        if data.get("format") != "canonical" and data.get("pictures") != Pictures.FILES:
            self.add_error("pictures", _("Other formats place the pictures themselves: as files."))
        return data

    def selection(self) -> dict[str, Any]:
        """As `annotation.exports.Selection` takes it, without what was left empty."""
        names = ("campaigns", "tasks", "dimensions", "splits", "origins", "min_agreement")
        found = {name: self.cleaned_data[name] for name in names}
        for name in ("since", "until"):
            day = self.cleaned_data[name]
            found[name] = day.isoformat() if day else None
        return {name: value for name, value in found.items() if value not in (None, [], "")}


def chosen_words(selection: dict[str, Any]) -> list[tuple[Any, str]]:
    """A selection to be read: the names of its parts and what is chosen of each."""
    fields = ExportForm.base_fields
    return [
        (fields[name].label, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in selection.items()
        if name in fields
    ]
