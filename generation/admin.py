from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from generation import audit, candidates, policies
from generation.access import user_of
from generation.forms import PolicyForm, SamplingPlanForm
from generation.models import (
    Candidate,
    CandidateSet,
    GenerationRun,
    Image,
    Policy,
    SamplingPlan,
    Source,
    Task,
    Verb,
)

PLAN_FACTS = (
    "version",
    "current",
    "candidates_per_set",
    "steps",
    "strength",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompts",
    "weights",
    "made_by",
    "created_at",
)
CANDIDATE_FACTS = (
    "index",
    "picture",
    "policy",
    "seed",
    "num_inference_steps",
    "strength",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
    "batch",
    "batch_index",
    "latency_ms",
    "device",
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


def _picture(image: Image | None) -> SafeString | str:
    if image is None:
        return "–"
    address = reverse("generation:image", args=[image.sha256])
    return format_html(
        '<a href="{}"><img src="{}?size=thumb" alt="" style="max-width: 96px; max-height: 96px">'
        "</a>",
        address,
        address,
    )


class PlanInline(admin.TabularInline):
    model = SamplingPlan
    extra = 0
    fields = PLAN_FACTS
    readonly_fields = PLAN_FACTS
    ordering = ["-version"]
    can_delete = False
    show_change_link = True
    verbose_name_plural = lazy("sampling plans (the current one is what candidates are drawn from)")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "wording", "weight", "needs_source", "needs_mask", "active"]
    list_filter = ["active"]
    search_fields = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [PlanInline]

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if obj.active and not obj.plans.filter(current=True).exists():
            messages.warning(
                request,
                _(
                    "%(obj)s has no sampling plan yet: without one nothing can be generated. Add "
                    "one under Sampling plans."
                )
                % {"obj": obj},
            )


@admin.register(SamplingPlan)
class SamplingPlanAdmin(admin.ModelAdmin):
    """Saving makes the next version; what was drawn from stays as it was."""

    form = SamplingPlanForm
    list_display = ["task", "version", "current", "candidates_per_set", "steps", "strength"]
    list_display += ["guidance_scale", "true_cfg_scale", "made_by", "created_at"]
    list_filter = ["current", "task"]
    list_select_related = ["task"]
    ordering = ["task", "-version"]

    def has_change_permission(self, request: HttpRequest, obj: SamplingPlan | None = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or obj.current)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["task"] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        form.save_as_next_version(request.user.get_username())


@admin.register(Policy)
class PolicyAdmin(admin.ModelAdmin):
    form = PolicyForm
    list_display = ["name", "kind", "state", "parent", "location", "created_at"]
    list_filter = ["state", "kind"]
    list_select_related = ["parent"]
    raw_id_fields = ["parent"]
    search_fields = ["name", "location"]
    actions = ["make_active"]
    readonly_fields = ["state", "card", "created_at", "promoted_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Where the weights are is part of every candidate's record: other weights, other row."""
        fixed = ["kind", "location", "revision", "transformer", "subfolder", "adapter", "parent"]
        return [*self.readonly_fields, *(fixed if obj else [])]

    @admin.action(description=lazy("Make active: the next candidates come from it"))
    def make_active(self, request: HttpRequest, queryset: QuerySet[Policy]) -> None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            messages.error(request, _("Choose one policy: only one can be active."))
            return
        try:
            policies.activate(chosen[0], actor=user_of(request))
        except policies.PolicyError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("“%(value)s” is active.") % {"value": chosen[0]})


@admin.register(Source)
class SourceAdmin(admin.ModelAdmin):
    """New sources come from the page Sources or `import_sources`, which read the pictures."""

    list_display = ["id", "picture", "task", "short_prompt", "split", "external_id", "created_at"]
    list_filter = ["task", "split"]
    list_select_related = ["task", "image"]
    list_per_page = 50
    search_fields = ["prompt", "external_id"]
    show_full_result_count = False
    fields = ["task", "picture", "mask_picture", "prompt", "tags", "split", "external_id"]
    fields += ["licence", "attribution", "created_by", "created_at"]
    readonly_fields = ["task", "picture", "mask_picture", "split", "created_by", "created_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        # Candidates were made, and judged, for this prompt.
        judged = obj is not None and obj.sets.exists()
        return [*self.readonly_fields, *(["prompt"] if judged else [])]

    @admin.display(description=lazy("picture"))
    def picture(self, source: Source) -> SafeString | str:
        return _picture(source.image)

    @admin.display(description=lazy("mask"))
    def mask_picture(self, source: Source) -> SafeString | str:
        return _picture(source.mask)

    @admin.display(description=lazy("prompt"), ordering="prompt")
    def short_prompt(self, source: Source) -> str:
        prompt = source.effective_prompt
        return prompt if len(prompt) <= 60 else f"{prompt[:59]}…"


class CandidateInline(admin.TabularInline):
    model = Candidate
    extra = 0
    fields = CANDIDATE_FACTS
    readonly_fields = CANDIDATE_FACTS
    ordering = ["index"]
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("image", "policy")

    @admin.display(description=lazy("picture"))
    def picture(self, candidate: Candidate) -> SafeString | str:
        return _picture(candidate.image)


@admin.register(CandidateSet)
class CandidateSetAdmin(Facts):
    list_display = ["id", "source", "state", "size", "run", "created_at"]
    list_filter = ["state", "source__task"]
    list_select_related = ["source__task", "run"]
    raw_id_fields = ["source", "plan", "run"]
    inlines = [CandidateInline]


@admin.register(Candidate)
class CandidateAdmin(Facts):
    list_display = ["id", "set", "index", "policy", "num_inference_steps", "guidance_scale"]
    list_display += ["true_cfg_scale", "latency_ms"]
    list_filter = ["policy"]
    list_select_related = ["set", "policy"]
    raw_id_fields = ["set", "policy", "image"]


@admin.register(Image)
class ImageAdmin(Facts):
    list_display = ["sha256", "picture", "width", "height", "byte_size", "created_at"]
    search_fields = ["sha256"]

    @admin.display(description=lazy("picture"))
    def picture(self, image: Image) -> SafeString | str:
        return _picture(image)


@admin.register(GenerationRun)
class GenerationRunAdmin(Facts):
    list_display = ["id", "policy", "state", "progress", "total", "message", "created_at"]
    list_filter = ["state"]
    list_select_related = ["policy"]
    raw_id_fields = ["policy", "requested_by"]
    actions = ["cancel", "retry"]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Rows are facts, but their owner can be told to stop or to go on."""
        allowed = request.user.has_perm("generation.change_generationrun")
        return super().get_actions(request) if allowed else {}

    @admin.action(description=lazy("Cancel: finished candidates are kept"))
    def cancel(self, request: HttpRequest, queryset: QuerySet[GenerationRun]) -> None:
        self._tell(request, [run for run in queryset if run.cancel()], Verb.RUN_CANCELLED)

    @admin.action(description=lazy("Go on with failed or cancelled orders"))
    def retry(self, request: HttpRequest, queryset: QuerySet[GenerationRun]) -> None:
        queued = [run for run in queryset if run.retry()]
        for run in queued:
            candidates.ring(run)
        self._tell(request, queued, Verb.RUN_RETRIED)

    def _tell(self, request: HttpRequest, runs: list[GenerationRun], verb: Verb) -> None:
        for run in runs:
            audit.record(actor=user_of(request), verb=verb, thing=run)
        what = _("Cancelled") if verb == Verb.RUN_CANCELLED else _("Queued again")
        numbers = ", ".join(str(run.pk) for run in runs) or _("none of them")
        messages.info(request, _("%(what)s: %(numbers)s.") % {"what": what, "numbers": numbers})
