from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as lazy

from modeling.models import Round


class RoundForm(forms.Form):
    """What a person decides when a round starts; everything else is the round's default."""

    annotators = forms.ChoiceField(
        choices=[
            (Round.Annotators.HUMAN, lazy("People label in the browser")),
            (Round.Annotators.SIMULATED, lazy("Simulated annotators (starter scenes only)")),
        ],
        initial=Round.Annotators.HUMAN,
        label=lazy("Who labels"),
    )
    sets_per_task = forms.IntegerField(
        min_value=1, max_value=5000, required=False, label=lazy("Sets per task")
    )
    policy_steps = forms.IntegerField(
        min_value=1, max_value=100_000, required=False, label=lazy("Policy training steps")
    )
    reward_steps = forms.IntegerField(
        min_value=1, max_value=100_000, required=False, label=lazy("Reward training steps")
    )
    seed = forms.IntegerField(min_value=0, max_value=2**31 - 1, initial=0, label=lazy("Seed"))
    human_comparisons = forms.IntegerField(
        min_value=1,
        max_value=5000,
        required=False,
        label=lazy("Pairs that people compare blind before the promotion"),
    )
    learn_only = forms.BooleanField(
        required=False, label=lazy("Collect nothing: learn from the labels of earlier campaigns")
    )
    approval = forms.BooleanField(required=False, label=lazy("Ask a person before the promotion"))

    def config(self) -> dict[str, Any]:
        """The values that differ from the round's defaults."""
        values = self.cleaned_data
        config: dict[str, Any] = {}
        if values.get("sets_per_task"):
            config["sets_per_task"] = values["sets_per_task"]
        if values.get("reward_steps"):
            config["reward"] = {"steps": values["reward_steps"]}
        if values.get("policy_steps"):
            config["policy"] = {"steps": values["policy_steps"]}
        if values.get("human_comparisons"):
            config["human_comparisons"] = values["human_comparisons"]
        if values.get("learn_only"):
            config["collect"] = False
        if values.get("approval"):
            config["approval"] = True
        return config
