"""A campaign's settings, for whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from annotation import contents
from annotation.models import Campaign, Criterion, Dimension
from generation.access import may
from generation.models import CandidateSet, Project, Role, Task

Purpose = Campaign.Purpose


class TaskField(forms.ModelMultipleChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return _("%(task)s (%(n)s ready)") % {"task": obj.name, "n": obj.ready_sets}


class SomeFixed(forms.CheckboxSelectMultiple):
    """Check boxes of which some stay ticked."""

    fixed: frozenset[str] = frozenset()

    def create_option(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option = super().create_option(*args, **kwargs)
        if str(option["value"]) in self.fixed:
            option["attrs"]["disabled"] = True
            option["selected"] = True
            option["attrs"]["checked"] = True
        return option


PER_ITEM = {
    Purpose.PREFERENCE: lazy("People per set"),
    Purpose.COMPARISON: lazy("People per pair"),
    Purpose.RATING: lazy("People per picture"),
}
NEWCOMER = ("name", "project", "tasks", "overlap")
GROUPS: list[tuple[Any, tuple[str, ...]]] = [
    (lazy("What is asked"), ("dimensions", "guideline", "one_at_a_time")),
    (lazy("Who judges, and how much"), ("members", "groups", "daily_limit", "deadline")),
    (lazy("Quality"), ("gold_rate", "repeat_rate", "pause_below", "pause_after", "show_gold")),
    (lazy("Practice before work counts"), ("practice_sets", "practice_share")),
    (lazy("At work"), ("lease_minutes", "break_minutes", "editable")),
]
# Left empty these mean the model's default.
WITH_DEFAULT = [
    "overlap",
    "gold_rate",
    "repeat_rate",
    "break_minutes",
    "practice_sets",
    "practice_share",
    "pause_after",
]


class CampaignForm(forms.ModelForm):
    """A campaign's settings; `projects` are those that the person manages."""

    tasks = TaskField(
        Task.objects.none(),
        widget=SomeFixed,
        label=lazy("Tasks"),
        help_text=lazy("Whose sets are judged."),
    )
    lease_minutes = forms.IntegerField(
        min_value=1,
        max_value=24 * 60,
        initial=30,
        required=False,
        label=lazy("Minutes a set is kept for a person"),
        help_text=lazy("After that somebody else may get it; unsent answers stay in the browser."),
    )

    class Meta:
        model = Campaign
        fields = [
            "name",
            "project",
            "tasks",
            "overlap",
            "dimensions",
            "guideline",
            "one_at_a_time",
            "members",
            "groups",
            "daily_limit",
            "deadline",
            "gold_rate",
            "repeat_rate",
            "pause_below",
            "pause_after",
            "show_gold",
            "practice_sets",
            "practice_share",
            "break_minutes",
            "editable",
        ]
        labels = {
            "name": lazy("Name"),
            "project": lazy("Project"),
            "dimensions": lazy("Dimensions"),
            "guideline": lazy("Guideline"),
            "members": lazy("Members"),
            "groups": lazy("Groups"),
            "deadline": lazy("Deadline"),
            "daily_limit": lazy("Most sets per person and day"),
            "gold_rate": lazy("Gold rate"),
            "repeat_rate": lazy("Repeat rate"),
            "pause_below": lazy("Pause people below"),
            "pause_after": lazy("but not before so many known answers"),
            "show_gold": lazy("Show people their own gold accuracy"),
            "one_at_a_time": lazy("One dimension at a time"),
            "editable": lazy("People may correct their own judgments"),
            "break_minutes": lazy("Suggest a break after (minutes)"),
            "practice_sets": lazy("Practice sets"),
            "practice_share": lazy("Share that must be right"),
        }
        help_texts = {
            "name": lazy("How people will know it."),
            "overlap": lazy("More people show how well they agree."),
            "dimensions": lazy("None chosen: every active dimension of each task."),
            "guideline": lazy("Shown beside the pictures; Markdown. May stay empty."),
            "members": lazy(
                "No person and no group chosen: everyone in the project. "
                "Invitation links are made on the campaign’s page."
            ),
            "daily_limit": lazy("Empty: no limit."),
            "deadline": lazy("No set is handed out after it. Empty: no deadline."),
            "gold_rate": lazy("0.1 = every tenth turn is at a set whose answer is known."),
            "repeat_rate": lazy("0.05 = every twentieth turn repeats one of the person’s own."),
            "pause_below": lazy("Gold accuracy, 0 to 1; empty: nobody is paused."),
            "pause_after": "",
            "practice_sets": lazy("To be passed before work counts; 0: none."),
            "practice_share": lazy("0.8 = four of five practice answers."),
            "break_minutes": lazy("0: never."),
            "one_at_a_time": lazy("Otherwise all of them are on one screen."),
            "editable": lazy("While the campaign is open; earlier versions are kept."),
            "show_gold": "",
        }
        widgets = {
            "dimensions": forms.CheckboxSelectMultiple,
            "members": forms.CheckboxSelectMultiple,
            "groups": forms.CheckboxSelectMultiple,
            "guideline": forms.Textarea(attrs={"rows": 4}),
            "deadline": forms.DateTimeInput(
                attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"
            ),
            **{
                name: forms.NumberInput(attrs={"min": 0, "max": 1, "step": 0.01})
                for name in ("gold_rate", "repeat_rate", "pause_below", "practice_share")
            },
        }
        error_messages = {
            "name": {
                "unique": lazy("There is already a campaign of this name: choose another name.")
            }
        }

    def __init__(
        self, *args: Any, projects: QuerySet[Project], people: QuerySet[User], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.queued = contents.queued_tasks(self.instance) if self.instance.pk else {}
        for name in WITH_DEFAULT:
            self.fields[name].required = False
        if not self.instance.pk:
            self.fields["project"].initial = projects.first()
        else:
            self.fields["lease_minutes"].initial = max(1, self.instance.lease_seconds // 60)
        self._rows("project", projects)
        self._rows("tasks", tasks_with_sets(projects, also=list(self.queued)))
        self._rows("dimensions", Dimension.objects.active().filter(wordings__isnull=False))
        self._rows("members", people)
        if self.queued or projects.count() < 2:
            # The sets in the queue are this project's, and so are their pictures.
            self.fields.pop("project")
        tasks = self.fields["tasks"].widget
        assert isinstance(tasks, SomeFixed)
        tasks.fixed = frozenset(str(key) for key in self.queued)
        if self.queued:
            self.fields["tasks"].required = False
        self.projects = projects
        self.fields["overlap"].label = PER_ITEM[self.instance.purpose]

    def _rows(self, name: str, rows: QuerySet[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = rows.distinct()

    def clean_tasks(self) -> QuerySet[Task]:
        chosen: QuerySet[Task] = self.cleaned_data["tasks"]
        if not self.queued:
            return chosen
        if not chosen and not self.instance.tasks.exists():
            return chosen  # it asked about every active task and goes on doing so
        field = self.fields["tasks"]
        assert isinstance(field, forms.ModelMultipleChoiceField)
        assert field.queryset is not None
        keys = {task.pk for task in chosen} | set(self.queued)
        return field.queryset.filter(pk__in=keys)

    def clean_deadline(self) -> Any:
        deadline = self.cleaned_data["deadline"]
        if deadline and "deadline" in self.changed_data and deadline <= timezone.now():
            raise forms.ValidationError(
                _("The deadline is in the past: choose a later one or none.")
            )
        return deadline

    def _share(self, name: str) -> Any:
        value = self.cleaned_data[name]
        if value is not None and not 0 <= value <= 1:
            raise forms.ValidationError(
                _("%(value)s is not a share: write a number from 0 to 1, for example 0.1.")
                % {"value": f"{value:g}"}
            )
        return value

    def clean_gold_rate(self) -> Any:
        return self._share("gold_rate")

    def clean_repeat_rate(self) -> Any:
        return self._share("repeat_rate")

    def clean_pause_below(self) -> Any:
        return self._share("pause_below")

    def clean_practice_share(self) -> Any:
        return self._share("practice_share")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        for name in WITH_DEFAULT:
            if name in cleaned and cleaned[name] is None:
                cleaned[name] = getattr(Campaign(), name)
        if cleaned.get("gold_rate", 0) + cleaned.get("repeat_rate", 0) >= 1:
            self.add_error(
                "repeat_rate",
                _("Gold and repeats together leave no turn for new sets: keep them below 1."),
            )
        if self.instance.purpose == Purpose.RATING:
            self._clean_rating(cleaned)
        self._clean_members(cleaned)
        self._clean_questions(cleaned)
        return cleaned

    def _clean_rating(self, cleaned: dict[str, Any]) -> None:
        reason = _("Known answers name a best and a worst, which a rating does not: leave it at 0.")
        for name in ("gold_rate", "practice_sets"):
            if cleaned.get(name):
                self.add_error(name, reason)

    def _clean_members(self, cleaned: dict[str, Any]) -> None:
        project = cleaned.get("project") or (
            self.instance.project if self.instance.pk else self.projects.first()
        )
        if project is None:
            return  # the choice of the project is wrong already
        before = set(self.instance.members.all()) if self.instance.pk else set()
        outside = [
            user.get_username()
            for user in cleaned.get("members") or ()
            if user not in before and not may(user, project, Role.ANNOTATOR)
        ]
        if outside:
            self.add_error(
                "members",
                _(
                    "Not in the project “%(project)s”, so they may not judge its pictures: "
                    "%(names)s. Send them an invitation link instead."
                )
                % {"project": project, "names": ", ".join(outside)},
            )

    def _clean_questions(self, cleaned: dict[str, Any]) -> None:
        tasks = list(cleaned.get("tasks") or ())
        dimensions = list(cleaned.get("dimensions") or ())
        for task in tasks:
            asked = Criterion.objects.filter(
                task=task, dimension__active=True, dimension__wordings__isnull=False
            )
            if dimensions:
                asked = asked.filter(dimension__in=dimensions)
            if not asked.exists():
                self.add_error(
                    "dimensions" if dimensions else "tasks",
                    _(
                        "Nothing is asked about the task “%(task)s” then: choose one of its own "
                        "dimensions, or leave the task out."
                    )
                    % {"task": task},
                )

    def save(self, commit: bool = True) -> Any:
        self.instance.lease_seconds = 60 * (self.cleaned_data["lease_minutes"] or 30)
        return super().save(commit)

    def settings(self) -> dict[str, Any]:
        """The fields as `open_campaign` takes them."""
        said = dict(self.cleaned_data)
        said["lease_seconds"] = 60 * (said.pop("lease_minutes") or 30)
        said["project"] = said.get("project") or self.projects.get()
        return said

    @property
    def first_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in NEWCOMER if name in self.fields]

    @property
    def groups_of_fields(self) -> list[tuple[Any, list[forms.BoundField], bool]]:
        """Title, fields, and whether the group stands open because something in it is wrong."""
        return [
            (
                title,
                [self[name] for name in names],
                any(name in self.errors for name in names),
            )
            for title, names in GROUPS
        ]


def tasks_with_sets(projects: QuerySet[Project], also: Sequence[int] = ()) -> QuerySet[Task]:
    ready = Q(sources__sets__state=CandidateSet.State.READY, sources__project__in=projects)
    return Task.objects.annotate(ready_sets=Count("sources__sets", filter=ready)).filter(
        Q(active=True) | Q(ready_sets__gt=0) | Q(pk__in=also)
    )


def who_may_judge(projects: QuerySet[Project]) -> QuerySet[User]:
    roles = [Role.ANNOTATOR, Role.REVIEWER, Role.MANAGER, Role.ADMIN]
    return User.objects.filter(
        memberships__project__in=projects, memberships__role__in=roles, is_active=True
    ).order_by("username")
