from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_lazy as _

from generation.models import Policy, Task
from modeling.governance_tags import Subject
from modeling.models import Evaluation, RewardModel, TrainingRun


class SubjectForm(forms.Form):
    """Which policy and reward model an audit is about; it lives in the address."""

    policy = forms.ModelChoiceField(
        Policy.objects.all(), required=False, label=_("Policy"), empty_label=_("The newest")
    )
    reward = forms.ModelChoiceField(
        RewardModel.objects.all(),
        required=False,
        label=_("Reward model"),
        empty_label=_("The newest"),
    )
    task = forms.ModelChoiceField(
        Task.objects.all(), required=False, label=_("Task"), empty_label=_("All tasks")
    )
    key = forms.ChoiceField(required=False, label=_("Tag"))

    def subject(self) -> Subject:
        """What the address gets wrong is left out."""
        self.is_valid()
        said: dict[str, Any] = self.cleaned_data
        return Subject(
            said.get("policy") or newest_policy(),
            said.get("reward") or newest_reward(),
            said.get("task"),
        )

    def offer(self, keys: list[str], chosen: str) -> None:
        field = self.fields["key"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(key, key) for key in keys]
        self.data = {**self.data.dict(), "key": chosen}  # type: ignore[attr-defined]


def newest_policy() -> Policy | None:
    """The one that was compared with its parent last, else the active one."""
    compared = Evaluation.objects.filter(kind=Evaluation.Kind.POLICY).select_related("policy")
    newest = compared.first()
    return newest.policy if newest else Policy.objects.filter(state=Policy.State.ACTIVE).first()


def newest_reward() -> RewardModel | None:
    trained = TrainingRun.objects.filter(reward_model=OuterRef("pk"))
    return RewardModel.objects.filter(Exists(trained)).order_by("-pk").first()
