from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.campaigns import tasks_of
from annotation.judged import Filters
from annotation.models import Assignment, Campaign, Dimension, Judgment
from generation.models import Task

Kind = Assignment.Kind


class Day(forms.DateInput):
    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


class FilterForm(forms.Form):
    """Which part of the campaign a page is about; it lives in the address."""

    task = forms.ModelChoiceField(
        Task.objects.none(), required=False, label=_("Task"), empty_label=_("All tasks")
    )
    dimension = forms.ModelChoiceField(
        Dimension.objects.none(),
        required=False,
        label=_("Dimension"),
        empty_label=_("All dimensions"),
    )
    since = forms.DateField(required=False, label=_("From"), widget=Day)
    until = forms.DateField(required=False, label=_("To"), widget=Day)

    def __init__(self, data: Any, campaign: Campaign) -> None:
        super().__init__(data)
        tasks = [task.pk for task in tasks_of(campaign)]
        asked = Dimension.objects.filter(criteria__task__in=tasks).distinct()
        for name, rows in (("task", Task.objects.filter(pk__in=tasks)), ("dimension", asked)):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = rows

    def filters(self) -> Filters:
        """What was chosen; a choice that makes no sense counts as none."""
        if not self.is_bound:
            return Filters()
        self.is_valid()
        chosen = self.cleaned_data
        return Filters(
            task=_key(chosen.get("task")),
            dimension=_key(chosen.get("dimension")),
            since=chosen.get("since"),
            until=chosen.get("until"),
        )


def _key(row: Any) -> int | None:
    return None if row is None else row.pk


class LabelFilterForm(FilterForm):
    outcome = forms.ChoiceField(
        choices=[("", _("All answers")), *Judgment.Outcome.choices],
        required=False,
        label=_("Answer"),
    )
    kind = forms.ChoiceField(
        choices=[
            ("", _("All kinds")),
            (Kind.WORK.value, _("Work")),
            (Kind.GOLD.value, _("Known answers")),
            (Kind.REPEAT.value, _("Repeats")),
        ],
        required=False,
        label=_("Kind"),
    )
    person = forms.IntegerField(required=False, widget=forms.HiddenInput)


class RequeueForm(forms.Form):
    since = forms.DateTimeField(
        label=_("Work submitted since"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
    )

    def __init__(self, data: Any = None) -> None:
        day_ago = timezone.localtime() - timedelta(days=1)
        super().__init__(data, initial={"since": day_ago.replace(second=0, microsecond=0)})


class ConsensusGoldForm(forms.Form):
    min_annotators = forms.IntegerField(
        min_value=2, max_value=50, initial=3, label=_("People who gave the same answer")
    )
    limit = forms.IntegerField(
        min_value=1, required=False, label=_("At most so many sets"), help_text=_("Empty: all.")
    )
    practice = forms.BooleanField(required=False, label=_("For practice instead of checking"))
