"""Who judges: the list of a campaign, and what somebody sees who opens an invitation link."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from annotation import members
from annotation.campaign_head import head
from annotation.campaign_views import get_campaign_for_manager
from annotation.campaigns import admits
from annotation.errors import Refused
from annotation.models import Campaign
from generation import audit
from generation.access import user_of
from generation.models import Verb
from generation.people_forms import SignUpForm


class InviteForm(forms.Form):
    uses = forms.IntegerField(
        min_value=1, max_value=1000, initial=1, label=lazy("People who can use it")
    )
    days = forms.IntegerField(
        min_value=1, max_value=members.MOST_DAYS, initial=7, label=lazy("Days it lasts")
    )
    note = forms.CharField(
        max_length=120, required=False, label=lazy("Whom it is for"), help_text=lazy("For you.")
    )


@require_http_methods(["GET", "POST"])
@never_cache
def members_page(request: HttpRequest, campaign_id: int) -> HttpResponseBase:
    found = get_campaign_for_manager(request, campaign_id)
    if request.method == "POST":
        verb = VERBS.get(request.POST.get("do", ""))
        if verb is not None:
            with transaction.atomic():  # what is done and its entry in the log
                return verb(request, found)
    return _page(request, found)


def _page(
    request: HttpRequest, found: Campaign, form: InviteForm | None = None, link: str = ""
) -> HttpResponseBase:
    people = members.people(found)
    groups = list(found.groups.all())
    listed = [person for person in people if person.listed]
    context = head(request, found, "members") | {
        "people": people,
        "member_groups": [(group, group.user_set.count()) for group in groups],
        "is_open": not listed and not groups,
        "last": len(listed) + len(groups) == 1,
        "could_join": members.could_join(found),
        "other_groups": Group.objects.exclude(pk__in=[group.pk for group in groups]),
        "invitations": [
            (invitation, members.state_of(invitation))
            for invitation in found.invitations.select_related("created_by").order_by("-pk")
        ],
        "form": form or InviteForm(),
        "link": link,
    }
    status = 422 if form is not None and form.errors else 200
    return render(request, "annotation/members.html", context, status=status)


def _back(found: Campaign) -> HttpResponseBase:
    return redirect("annotation:members", found.pk)


def _keys(request: HttpRequest, name: str) -> list[int]:
    return [int(value) for value in request.POST.getlist(name) if value.isdecimal()]


def _add(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    users = list(members.could_join(found).filter(pk__in=_keys(request, "user")))
    groups = list(Group.objects.filter(pk__in=_keys(request, "group")))
    if not users and not groups:
        messages.error(request, _("Nobody was chosen: tick a person or a group first."))
        return _back(found)
    members.add(campaign=found, users=users, groups=groups)
    names = ", ".join([user.get_username() for user in users] + [str(group) for group in groups])
    _note(request, Verb.CAMPAIGN_PEOPLE, found, added=names)
    messages.success(request, _("Added: %(names)s.") % {"names": names})
    return _back(found)


def _remove(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    user = found.members.filter(pk__in=_keys(request, "user")).first()
    group = found.groups.filter(pk__in=_keys(request, "group")).first()
    members.remove(campaign=found, user=user, group=group)
    _note(request, Verb.CAMPAIGN_PEOPLE, found, removed=str(user or group))
    messages.success(
        request,
        _("%(who)s was taken off the list. What they submitted is kept.") % {"who": user or group},
    )
    return _back(found)


def _invite(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _page(request, found, form)
    _made, secret = members.invite(campaign=found, by=user_of(request), **form.cleaned_data)
    _note(request, Verb.INVITED, found, **form.cleaned_data)
    # Shown in this answer alone: only its digest is kept.
    link = request.build_absolute_uri(reverse("annotation:join", args=[secret]))
    return _page(request, found, link=link)


def _revoke(request: HttpRequest, found: Campaign) -> HttpResponseBase:
    members.revoke(get_object_or_404(found.invitations, pk__in=_keys(request, "invitation")))
    _note(request, Verb.INVITATION_REVOKED, found)
    messages.success(request, _("The link was taken back. Who joined by it stays a member."))
    return _back(found)


def _note(request: HttpRequest, verb: Verb, found: Campaign, **after: Any) -> None:
    audit.record(actor=user_of(request), verb=verb, thing=found, after=after)


VERBS = {"add": _add, "remove": _remove, "invite": _invite, "revoke": _revoke}


# An invitation --------------------------------------------------------------------------------


@login_not_required
@require_http_methods(["GET", "POST"])
@sensitive_post_parameters("password1", "password2")
@never_cache
def join(request: HttpRequest, secret: str) -> HttpResponseBase:
    invitation = members.find(secret)
    if invitation is None:
        return _closed(request, None, 404)
    user = request.user if isinstance(request.user, User) else None
    if user is not None and admits(invitation.campaign, user):
        return _welcome(request, invitation.campaign)
    if (reason := members.why_closed(invitation)) is not None:
        return _closed(request, reason, 410)
    form = SignUpForm(request.POST if request.method == "POST" and user is None else None)
    if request.method == "POST" and (user is not None or form.is_valid()):
        try:
            # An account is made only together with its membership.
            with transaction.atomic():
                joined = user
                if joined is None:
                    joined = form.save()
                    audit.record(actor=joined, verb=Verb.SIGN_UP, thing=joined)
                members.join(invitation=invitation, user=joined)
                audit.record(actor=joined, verb=Verb.JOINED, thing=invitation.campaign)
        except Refused as error:
            return _closed(request, error.message, 410)
        if user is None:
            login(request, joined)
        return _welcome(request, invitation.campaign)
    context = {"invitation": invitation, "campaign": invitation.campaign, "form": form}
    status = 422 if form.errors else 200
    return render(request, "annotation/join.html", context, status=status)


def _welcome(request: HttpRequest, campaign: Campaign) -> HttpResponseBase:
    messages.success(request, _("You are a member of “%(campaign)s”.") % {"campaign": campaign})
    return redirect("annotation:next", campaign.pk)


def _closed(request: HttpRequest, reason: str | None, status: int) -> HttpResponseBase:
    reason = reason or _(
        "There is no such invitation. Copy the whole link, or ask whoever sent it for a new one."
    )
    return render(request, "annotation/join_closed.html", {"reason": reason}, status=status)
