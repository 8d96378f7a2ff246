"""Webhooks of the projects one manages: endpoints, and what was delivered to them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import IntegrityError, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from generation import audit, outside, webhooks
from generation.access import needs, projects_of, require, user_of
from generation.forms import ProjectField
from generation.models import Project, Role, Verb
from generation.webhook_rows import Delivery, Endpoint, Topic, new_secret

PER_PAGE = 50


class EndpointForm(forms.Form):
    project = ProjectField(label=lazy("Project"))
    url = forms.CharField(
        label=lazy("Address"),
        max_length=500,
        widget=forms.URLInput(attrs={"placeholder": "https://example.org/hooks/oneloop"}),
        help_text=lazy("Messages are posted to it as JSON. Redirects are not followed."),
    )
    topics = forms.MultipleChoiceField(
        label=lazy("Tell when"),
        choices=Topic.choices,
        initial=Topic.values,
        widget=forms.CheckboxSelectMultiple,
    )

    def __init__(self, *args: Any, projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ProjectField.offer(self, projects)

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"].strip()
        try:
            outside.check_typed(url)
        except outside.OutsideError as error:
            raise forms.ValidationError(str(error)) from None
        return url


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@needs(Role.MANAGER)
def webhook_list(request: HttpRequest) -> HttpResponse:
    projects = projects_of(user_of(request), Role.MANAGER)
    if request.method != "POST":
        return _list(request, EndpointForm(projects=projects))
    form = EndpointForm(request.POST, projects=projects)
    if not form.is_valid():
        return _list(request, form)
    try:
        with transaction.atomic():
            made = Endpoint.objects.create(**form.cleaned_data, created_by=user_of(request))
            audit.record(
                actor=user_of(request),
                verb=Verb.WEBHOOK_MADE,
                thing=made,
                after={"address": made.url, "topics": made.topics},
            )
    except IntegrityError:
        form.add_error("url", _("This project tells that address already."))
        return _list(request, form)
    # Answered with the page itself, not with a redirect: the secret is shown this once.
    return _page(request, made, secret=made.secret)


def _list(request: HttpRequest, form: EndpointForm) -> HttpResponse:
    projects = projects_of(user_of(request), Role.MANAGER)
    rows = Endpoint.objects.filter(project__in=projects).select_related("project")
    rows = rows.annotate(
        waiting=Count("deliveries", filter=Q(deliveries__state=Delivery.State.WAITING)),
        failed=Count("deliveries", filter=Q(deliveries__state=Delivery.State.FAILED)),
        last=Max("deliveries__created_at"),
    )
    context = {"form": form, "endpoints": rows}
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "generation/webhooks.html", context, status=status)


@require_GET
@never_cache
def webhook_page(request: HttpRequest, pk: int) -> HttpResponse:
    return _page(request, _get_endpoint_for_manager(request, pk))


def _page(request: HttpRequest, found: Endpoint, secret: str = "") -> HttpResponse:
    log = Paginator(found.deliveries.all(), PER_PAGE).get_page(request.GET.get("page"))
    topics = [Topic(topic).label for topic in found.topics]
    context = {"endpoint": found, "page": log, "secret": secret, "topics": topics}
    context["example"] = webhooks.EXAMPLE
    return render(request, "generation/webhook.html", context)


def _get_endpoint_for_manager(request: HttpRequest, pk: int) -> Endpoint:
    found = get_object_or_404(Endpoint.objects.select_related("project"), pk=pk)
    require(user_of(request), found.project, Role.MANAGER)
    return found


@require_POST
@never_cache
def webhook_change(request: HttpRequest, pk: int) -> HttpResponse:
    found = _get_endpoint_for_manager(request, pk)
    verb = request.POST.get("do", "")
    if verb == "test":
        webhooks.send_test(found)
        messages.success(request, _("A test message is on its way; the log shows its answer."))
        return redirect("generation:webhook", found.pk)
    if verb == "delete":
        with transaction.atomic():
            _note(request, found, "deleted")
            found.delete()
        messages.success(request, _("“%(url)s” is told nothing any more.") % {"url": found.url})
        return redirect("generation:webhooks")
    if verb == "secret":
        Endpoint.objects.filter(pk=found.pk).update(secret=new_secret())
        found.refresh_from_db()
        _note(request, found, "new secret")
        return _page(request, found, secret=found.secret)
    if verb in ("pause", "resume"):
        Endpoint.objects.filter(pk=found.pk).update(active=verb == "resume")
        _note(request, found, verb)
    return redirect("generation:webhook", found.pk)


def _note(request: HttpRequest, found: Endpoint, what: str) -> None:
    audit.record(
        actor=user_of(request), verb=Verb.WEBHOOK_CHANGED, thing=found, after={"change": what}
    )


@require_POST
def webhook_again(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(Delivery.objects.select_related("endpoint__project"), pk=pk)
    require(user_of(request), row.endpoint.project, Role.MANAGER)
    webhooks.again(row)
    messages.success(request, _("It is sent again now."))
    return redirect("generation:webhook", row.endpoint_id)
