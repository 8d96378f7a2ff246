from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import pgettext_lazy

from annotation.forms import DimensionForm, ExampleForm
from annotation.models import (
    Assignment,
    Campaign,
    Criterion,
    Dimension,
    Example,
    Flag,
    Gold,
    Item,
    Judgment,
    Wording,
)


class Facts(admin.ModelAdmin):
    """What happened: to be read, not edited."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EarlierWordings(admin.TabularInline):
    """Every version stays, because judgments say which one was asked."""

    model = Wording
    extra = 0
    fields = ("version", "question", "query", "guideline", "created_at")
    readonly_fields = ("version", "question", "query", "guideline", "created_at")
    ordering = ["-version"]
    can_delete = False
    verbose_name_plural = lazy("versions of the wording")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CriterionInline(admin.TabularInline):
    model = Criterion
    extra = 0
    verbose_name_plural = lazy("asked of these tasks")


class ExampleInline(admin.TabularInline):
    """Pictures that show what is good or bad; annotators see them in the guide."""

    model = Example
    form = ExampleForm
    extra = 1
    fields = ("thumbnail", "picture", "good", "caption", "order")
    readonly_fields = ("thumbnail",)
    verbose_name_plural = lazy("example pictures")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("image")

    @admin.display(description=pgettext_lazy("the present picture", "now"))
    def thumbnail(self, example: Example) -> SafeString | str:
        if example.image_id is None:
            return "–"
        address = reverse("generation:image", args=[example.image.sha256])
        small = 'style="max-width: 96px; max-height: 96px"'
        return format_html('<img src="{}?size=thumb" alt="" {}>', address, mark_safe(small))  # nosec B308  # a constant


@admin.register(Dimension)
class DimensionAdmin(admin.ModelAdmin):
    form = DimensionForm
    list_display = ["name", "slug", "uses_prompt", "active"]
    list_filter = ["active", "uses_prompt", "tasks"]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    fieldsets = [
        (None, {"fields": ["name", "slug", "active"]}),
        (
            lazy("Wording"),
            {
                "fields": ["uses_prompt", "question", "query", "guideline"],
                "description": lazy(
                    "A change becomes a new version; judgments made before keep theirs."
                ),
            },
        ),
    ]
    inlines = [CriterionInline, ExampleInline, EarlierWordings]

    def save_model(
        self, request: HttpRequest, obj: Dimension, form: forms.ModelForm, change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        assert isinstance(form, DimensionForm)
        form.save_wording(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Dimension | None = None) -> bool:
        judged = obj is not None and obj.judgments.exists()
        return not judged and super().has_delete_permission(request, obj)


@admin.register(Criterion)
class CriterionAdmin(admin.ModelAdmin):
    list_display = ["task", "dimension", "weight", "order", "required"]
    list_editable = ["weight", "order", "required"]
    list_filter = ["task", "dimension"]
    list_select_related = ["task", "dimension"]


@admin.register(Campaign)
class CampaignAdmin(admin.ModelAdmin):
    list_display = ["name", "purpose", "state", "overlap", "simulated", "origin", "created_at"]
    list_filter = ["state", "purpose", "simulated", "origin"]
    search_fields = ["name"]
    readonly_fields = [
        *("project", "purpose", "state", "simulated", "origin", "created_by", "created_at")
    ]
    # What is asked and how is set on the campaign's own pages, which check it.
    fields = ["name", *readonly_fields]

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A campaign needs its candidate sets, which the page /campaigns/new/ chooses.
        return False


@admin.register(Item)
class ItemAdmin(Facts):
    list_display = ["pk", "campaign", "set", "position"]
    list_filter = ["campaign"]
    list_select_related = ["campaign", "set"]


@admin.register(Assignment)
class AssignmentAdmin(Facts):
    list_display = ["pk", "campaign", "set", "annotator", "state", "slot", "lease_until"]
    list_filter = ["state", "item__campaign"]
    list_select_related = ["item__campaign", "set", "annotator"]
    search_fields = ["=pk", "=set__pk", "annotator__username"]
    date_hierarchy = "created_at"

    @admin.display(ordering="item__campaign")
    def campaign(self, assignment: Assignment) -> str:
        return assignment.item.campaign.name


@admin.register(Judgment)
class JudgmentAdmin(Facts):
    list_display = ["pk", "set", "dimension", "outcome", "best", "worst", "annotator", "current"]
    list_filter = ["current", "outcome", "dimension", "assignment__item__campaign"]
    list_select_related = ["set", "dimension", "best", "worst", "assignment__annotator"]
    search_fields = ["=pk", "=set__pk", "assignment__annotator__username"]
    date_hierarchy = "created_at"

    @admin.display(ordering="assignment__annotator")
    def annotator(self, judgment: Judgment) -> str:
        return judgment.assignment.annotator.get_username()


@admin.register(Gold)
class GoldAdmin(admin.ModelAdmin):
    list_display = ["set", "dimension", "best", "worst", "origin", "practice", "attention"]
    list_filter = ["origin", "practice", "attention"]
    list_select_related = ["set", "dimension", "best", "worst"]
    raw_id_fields = ["set", "best", "worst"]


@admin.register(Flag)
class FlagAdmin(admin.ModelAdmin):
    list_display = ["assignment", "reason", "created_at", "resolved_at"]
    list_select_related = ["assignment"]
    list_filter = [("resolved_at", admin.EmptyFieldListFilter)]
    readonly_fields = ["assignment", "reason", "created_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False
