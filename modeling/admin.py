from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from generation.access import user_of
from modeling import round_config
from modeling.models import (
    Evaluation,
    Review,
    ReviewPlan,
    RewardModel,
    Round,
    RoundRule,
    RoundStep,
    RoundTransition,
    Snapshot,
    TrainingRun,
)
from modeling.rundir import RunError


class FactsAdmin(admin.ModelAdmin):
    """Rows that record what happened: to be looked at, not to be edited or made up."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Snapshot)
class SnapshotAdmin(FactsAdmin):
    list_display = ("__str__", "counts", "directory", "created_at")
    search_fields = ("content_hash",)
    # A snapshot can hold a million judgments.
    exclude = ("judgments",)


@admin.register(RewardModel)
class RewardModelAdmin(admin.ModelAdmin):
    """New models are registered here; what a training registered is a fact."""

    list_display = ("name", "state", "location", "parent", "created_at")
    list_filter = ("state",)
    list_select_related = ("parent",)
    search_fields = ("name",)
    raw_id_fields = ("parent", "snapshot")
    actions = ("make_active",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        facts = ("state", "card", "excluded", "snapshot", "parent", "created_at")
        return facts if obj is None or obj.snapshot_id is None else (*facts, "location", "adapter")

    @admin.action(description=lazy("Let it reward the next policies"))
    def make_active(self, request: HttpRequest, queryset: models.QuerySet[RewardModel]) -> None:
        from modeling.round_steps import activate_reward

        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, _("Choose one reward model."), level="error")
            return
        activate_reward(chosen[0], actor=user_of(request))
        self.message_user(
            request, _("'%(model)s' rewards the next policies.") % {"model": chosen[0]}
        )


@admin.register(TrainingRun)
class TrainingRunAdmin(FactsAdmin):
    list_display = ("__str__", "state", "progress", "total", "attempt", "created_at", "error")
    list_filter = ("kind", "state")
    list_select_related = ("reward_model", "policy")


class StepInline(admin.TabularInline):
    model = RoundStep
    fields = ("name", "state", "attempt", "progress", "total", "message", "error", "result")
    readonly_fields = fields
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TransitionInline(admin.TabularInline):
    model = RoundTransition
    fields = ("created_at", "step", "from_state", "to_state", "reason", "actor")
    readonly_fields = fields
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Round)
class RoundAdmin(FactsAdmin):
    list_display = ("__str__", "annotators", "parent_policy", "policy", "finished_at", "outcome")
    list_filter = ("annotators",)
    list_select_related = ("parent_policy", "policy")
    inlines = (StepInline, TransitionInline)


class RuleForm(forms.ModelForm):
    class Meta:
        model = RoundRule
        fields = (
            "name",
            "active",
            "kind",
            "threshold",
            "newest",
            "cooldown_hours",
            "annotators",
            "config",
        )

    def clean(self) -> dict[str, Any]:
        """Wrong settings are told here, not when the rule fires some night."""
        values = super().clean() or {}
        if "config" in values and "annotators" in values:
            try:
                round_config.complete(values["config"] or {}, values["annotators"])
            except RunError as error:
                self.add_error("config", str(error))
        return values


@admin.register(RoundRule)
class RoundRuleAdmin(admin.ModelAdmin):
    form = RuleForm
    list_display = (
        "name",
        "active",
        "kind",
        "threshold",
        "last_value",
        "last_said",
        "last_fired_at",
    )
    list_filter = ("active", "kind")
    readonly_fields = ("last_checked_at", "last_value", "last_said", "last_fired_at")


@admin.register(Evaluation)
class EvaluationAdmin(FactsAdmin):
    list_display = ("__str__", "kind", "reward_model", "policy", "parent_policy", "created_at")
    list_filter = ("kind",)
    list_select_related = ("reward_model", "policy", "parent_policy")


@admin.register(ReviewPlan)
class ReviewPlanAdmin(admin.ModelAdmin):
    list_display = ("__str__", "every_days")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and not ReviewPlan.objects.exists()


@admin.register(Review)
class ReviewAdmin(FactsAdmin):
    list_display = ("at", "by", "note")
    list_select_related = ("by",)
