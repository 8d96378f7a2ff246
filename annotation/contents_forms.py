"""Which sets, pairs or single candidates a campaign asks about, as a form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django import forms
from django.db.models import Count, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation import comparisons, contents
from annotation.campaigns import Entry, tasks_of
from annotation.errors import Refused
from annotation.models import Campaign
from generation.models import CandidateSet, GenerationRun, Policy, Project

Purpose = Campaign.Purpose


class RunField(forms.ModelChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        said = {"run": obj.pk, "policy": obj.policy, "n": obj.ready_sets}
        return _("Generation %(run)s by %(policy)s (%(n)s ready sets)") % said


class ContentsForm(forms.Form):
    """Which sets, pairs or single candidates a campaign asks about."""

    run = RunField(
        GenerationRun.objects.none(),
        required=False,
        label=lazy("Candidate sets"),
        empty_label=lazy("All ready sets of these tasks"),
    )
    a = forms.ModelChoiceField(
        Policy.objects.none(),
        label=lazy("Compare"),
        required=False,
        help_text=lazy("Policies and imported external systems that have candidates."),
    )
    b = forms.ModelChoiceField(
        Policy.objects.none(),
        label=lazy("with"),
        required=False,
        help_text=lazy("Only sources of which both have a candidate are asked about."),
    )
    policies = forms.ModelMultipleChoiceField(
        Policy.objects.none(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label=lazy("Whose candidates"),
        help_text=lazy("None chosen: every policy’s."),
    )
    per_set = forms.ChoiceField(
        choices=[
            ("all", lazy("Every candidate of a set")),
            ("one", lazy("One of each set, drawn at random")),
        ],
        required=False,
        label=lazy("How many per set"),
    )

    OF_PURPOSE: dict[str, tuple[str, ...]] = {
        Purpose.PREFERENCE: ("run",),
        Purpose.COMPARISON: ("a", "b"),
        Purpose.RATING: ("run", "policies", "per_set"),
    }

    def __init__(self, *args: Any, purpose: str, projects: QuerySet[Project], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.purpose = purpose
        for name in set(ContentsForm.base_fields) - set(self.OF_PURPOSE[purpose]):
            self.fields.pop(name)
        made = Policy.objects.filter(
            candidates__set__state=CandidateSet.State.READY,
            candidates__set__source__project__in=projects,
        ).distinct()
        for name, rows in (("run", runs_with_sets(projects)), ("policies", made), *_both(made)):
            field = self.fields.get(name)
            if isinstance(field, forms.ModelChoiceField):
                field.queryset = rows
        for name in {"a", "b"} & set(self.fields):
            self.fields[name].required = True

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("a") is not None and cleaned.get("a") == cleaned.get("b"):
            self.add_error("b", _("A policy cannot be compared with itself: choose another one."))
        return cleaned

    def entries(self, campaign: Campaign) -> Iterable[CandidateSet | Entry]:
        """What was chosen, made where it has to be. Raises Refused."""
        said = self.cleaned_data
        if self.purpose != Purpose.COMPARISON:
            return contents.entries_for(campaign, **self._wanted())
        entries = comparisons.pair_up(
            a=said["a"], b=said["b"], tasks=tasks_of(campaign), project=campaign.project
        )
        if not entries:
            raise Refused(comparisons.nothing_in_common(said["a"], said["b"]))
        return entries

    def count(self, campaign: Campaign) -> int:
        """About how many entries there are to look at."""
        if self.purpose != Purpose.COMPARISON:
            return contents.count_entries(campaign, **self._wanted())
        said = self.cleaned_data
        return len(
            comparisons.find_pairs(
                a=said["a"], b=said["b"], tasks=tasks_of(campaign), project=campaign.project
            )
        )

    def _wanted(self) -> dict[str, Any]:
        said = self.cleaned_data
        return {
            "run": said["run"],
            "policies": said.get("policies") or (),
            "per_set": said.get("per_set") or "all",
        }


def contents_form(campaign: Campaign, data: Any = None) -> ContentsForm:
    """The form for a campaign that exists; a comparison goes on with its two policies."""
    comparison = campaign.purpose == Purpose.COMPARISON
    pair = comparisons.compared(campaign) if comparison else None
    return ContentsForm(
        data,
        purpose=campaign.purpose,
        projects=Project.objects.filter(campaigns=campaign),
        initial={"a": pair[0], "b": pair[1]} if pair else {},
    )


def _both(rows: QuerySet[Policy]) -> Iterator[tuple[str, QuerySet[Policy]]]:
    yield "a", rows
    yield "b", rows


def runs_with_sets(projects: QuerySet[Project]) -> QuerySet[GenerationRun]:
    ready = Q(sets__state=CandidateSet.State.READY, sets__source__project__in=projects)
    return (
        GenerationRun.objects.annotate(ready_sets=Count("sets", filter=ready))
        .filter(ready_sets__gt=0)
        .select_related("policy")
        .order_by("-pk")
    )
