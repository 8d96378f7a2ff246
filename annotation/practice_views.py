"""Practice for annotators, and the known answers for whoever runs the campaign."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from annotation import gold, practice
from annotation.campaign_head import head
from annotation.campaign_views import get_campaign_for_manager
from annotation.campaigns import admits, criteria_for, shown_indexes
from annotation.models import Assignment, Campaign, Dimension, Gold, Item
from generation import audit
from generation.access import require, user_of
from generation.models import CandidateSet, Role, Verb

PER_PAGE = 24


# For annotators -------------------------------------------------------------------------------


@require_GET
@never_cache
def practise(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    """The next practice turn, on the labelling page; or how the practice stands."""
    found = get_object_or_404(Campaign, pk=campaign_id)
    user = user_of(request)
    require(user, found.project, Role.ANNOTATOR)
    # Somebody who has passed may practise on, but has to ask for it.
    if practice.needed(user=user, campaign=found) or "more" in request.GET:
        turn = practice.next_practice(user=user, campaign=found)
        if turn is not None:
            return redirect("annotation:turn", turn.pk)
    context = {
        "campaign": found,
        "standing": practice.standing(user=user, campaign=found),
        "needed": practice.needed(user=user, campaign=found),
        "admitted": admits(found, user),
    }
    return render(request, "annotation/practice.html", context)


@require_GET
@never_cache
def feedback(request: HttpRequest, assignment_id: int) -> HttpResponseBase:
    """What was right in a practice turn that is done."""
    rows = Assignment.objects.filter(kind=Assignment.Kind.PRACTICE).select_related(
        "item__campaign", "set__source__task", "set__source__image", "set__source__mask"
    )
    turn = get_object_or_404(rows, pk=assignment_id, annotator=user_of(request))
    if turn.state != Assignment.State.SUBMITTED:
        return redirect("annotation:turn", turn.pk)
    found = practice.feedback(turn)
    by_index = {c.index: c for c in turn.set.candidates.select_related("image")}
    pictures = [
        {
            "place": place,
            "image": by_index[index].image,
            "best": [row.name for row in found if row.right_best == place],
            "worst": [row.name for row in found if row.right_worst == place],
        }
        for place, index in enumerate(turn.order, start=1)
    ]
    context = {
        "turn": turn,
        "campaign": turn.item.campaign,
        "task": turn.set.source.task,
        "source": turn.set.source,
        "rows": found,
        "pictures": pictures,
        "standing": practice.standing(user=turn.annotator, campaign=turn.item.campaign),
    }
    return render(request, "annotation/feedback.html", context)


# For managers ---------------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
def gold_page(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    golds = Gold.objects.filter(set__items__campaign=found).distinct()
    if request.method == "POST":
        gold = golds.filter(pk=_key(request.POST.get("gold", ""))).first()
        if gold is None:
            messages.error(request, _("There is no such known answer in this campaign any more."))
        else:
            with transaction.atomic():
                _change(request, gold)
                act = {"set": gold.set_id, "did": request.POST.get("do", "")}
                audit.record(actor=user_of(request), verb=Verb.GOLD_CHANGED, thing=found, after=act)
        return redirect("annotation:gold", found.pk)
    shown = golds.select_related(
        "set__source__task", "set__source__image", "dimension", "best__image", "worst__image"
    ).order_by("-practice", "set_id", "dimension_id")
    items = found.items.filter(set__state=CandidateSet.State.READY)
    without = items.filter(~Exists(Gold.objects.filter(set=OuterRef("set"))))
    counts = golds.aggregate(
        sets=Count("set", distinct=True, filter=Q(practice=False)),
        practice=Count("set", distinct=True, filter=Q(practice=True)),
    )
    context = head(request, found, "gold") | {
        "page": Paginator(shown, PER_PAGE).get_page(request.GET.get("page")),
        "counts": counts,
        "missing": practice.missing(found),
        "items": without.select_related("set__source__image", "set__source__task").order_by(
            "position", "pk"
        )[:12],
    }
    return render(request, "annotation/gold.html", context)


def _key(value: str) -> int:
    return int(value) if value.isdecimal() else 0


def _change(request: HttpRequest, gold: Gold) -> None:
    verb = request.POST.get("do", "")
    if verb == "delete":
        gold.delete()
        messages.success(request, _("The known answer was deleted; the judgments stay."))
    elif verb in {"practice", "attention"}:
        setattr(gold, verb, not getattr(gold, verb))
        gold.save(update_fields=[verb])
        messages.success(request, _("Saved."))


class GoldForm(forms.Form):
    """The known answer of one set on one dimension; both fields empty: none is known."""

    best = forms.TypedChoiceField(coerce=int, required=False, empty_value=None)
    worst = forms.TypedChoiceField(coerce=int, required=False, empty_value=None)
    explanation = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 2}), label=lazy("Why")
    )

    def __init__(self, data: Any, *, dimension: Dimension, item: Item) -> None:
        self.dimension, self.item = dimension, item
        self.known = Gold.objects.filter(set=item.set, dimension=dimension).first()
        initial: dict[str, Any] = {}
        if self.known is not None:
            initial = {
                "best": self.known.best.index,
                "worst": self.known.worst.index,
                "explanation": self.known.explanation,
            }
        super().__init__(data, prefix=dimension.slug, initial=initial)
        choices = [("", "–"), *((index, str(index + 1)) for index in shown_indexes(item))]
        for name in ("best", "worst"):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = choices

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        best, worst = cleaned.get("best"), cleaned.get("worst")
        if (best is None) != (worst is None):
            raise forms.ValidationError(_("Choose both a best and a worst, or neither."))
        if best is not None and best == worst:
            raise forms.ValidationError(_("Best and worst are the same picture: choose two."))
        return cleaned

    def save(self, *, practice: bool, attention: bool) -> bool:
        said = self.cleaned_data
        if said["best"] is None:
            return False
        gold.set_gold(
            set=self.item.set,
            dimension=self.dimension,
            best=said["best"],
            worst=said["worst"],
            explanation=said["explanation"],
            practice=practice,
            attention=attention,
        )
        return True


@require_http_methods(["GET", "POST"])
def set_gold(request: HttpRequest, campaign_id: int, item_id: int) -> HttpResponseBase:
    """A manager picks best and worst of one item by hand."""
    found = get_campaign_for_manager(request, campaign_id)
    rows = found.items.select_related("set__source__task", "set__source__image")
    item = get_object_or_404(rows, pk=item_id)
    asked = [criterion.dimension for criterion in criteria_for(found, item.set.source.task)]
    data = request.POST or None
    answers = [GoldForm(data, dimension=dimension, item=item) for dimension in asked]
    # Every form is asked, so that all errors show at once.
    wrong = [form for form in answers if not form.is_valid()]
    if data is not None and not wrong:
        kept = [
            form.save(practice="practice" in data, attention="attention" in data)
            for form in answers
        ]
        if any(kept):
            act = {"set": item.set_id, "did": "set by hand"}
            audit.record(actor=user_of(request), verb=Verb.GOLD_CHANGED, thing=found, after=act)
            messages.success(request, _("The known answers of this set were saved."))
            return redirect("annotation:gold", found.pk)
        messages.error(request, _("Nothing was chosen: pick a best and a worst somewhere."))
    by_index = {c.index: c for c in item.set.candidates.select_related("image")}
    known = [form.known for form in answers if form.known]
    context = head(request, found, "gold") | {
        "item": item,
        "source": item.set.source,
        "answers": answers,
        "pictures": [(index + 1, by_index[index].image) for index in shown_indexes(item)],
        "practice": any(gold.practice for gold in known)
        or (not known and "practice" in request.GET),
        "attention": any(gold.attention for gold in known),
    }
    status = 422 if any(form.errors for form in answers) else 200
    return render(request, "annotation/set_gold.html", context, status=status)
