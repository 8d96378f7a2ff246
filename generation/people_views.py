"""Projects and their members, one's own account and tokens."""

from __future__ import annotations

from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from generation import audit, members, tokens
from generation.access import may_anywhere, require, roles_of, user_of
from generation.members import MemberError
from generation.models import Membership, Project, Role, Token, Verb
from generation.people_forms import (
    MemberForm,
    PasswordForm,
    ProfileForm,
    ProjectForm,
    RoleForm,
    TokenForm,
)

# Projects ---------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def projects(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    may_make = user.is_staff or user.is_superuser
    form = ProjectForm(request.POST or None)
    if request.method == "POST":
        if not may_make:
            raise PermissionDenied(_("Projects are made by staff. Ask somebody of them for one."))
        if form.is_valid():
            try:
                made = members.make_project(**form.cleaned_data, actor=user)
            except MemberError as error:
                form.add_error("slug", str(error))
            else:
                messages.success(request, _("“%(name)s” was made.") % {"name": made})
                return redirect("generation:project", made.slug)
    rows = [(project, role, role == Role.ADMIN) for project, role in roles_of(user).items()]
    is_admin = any(may_name for _project, _role, may_name in rows)
    context = {"rows": rows, "form": form, "may_make": may_make, "is_admin": is_admin}
    context["manages"] = may_anywhere(user_of(request), Role.MANAGER)
    return render(request, "people/projects.html", context, status=_status(form))


def _get_project_for_admin(request: HttpRequest, slug: str) -> Project:
    found = get_object_or_404(Project, slug=slug)
    require(user_of(request), found, Role.ADMIN)
    return found


@require_http_methods(["GET", "HEAD", "POST"])
def project(request: HttpRequest, slug: str) -> HttpResponse:
    found = _get_project_for_admin(request, slug)
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = members.find(form.cleaned_data["who"])
            added = members.add(
                project=found, user=user, role=form.cleaned_data["role"], actor=user_of(request)
            )
        except MemberError as error:
            form.add_error("who", str(error))
        else:
            said = {"name": user, "role": added.get_role_display().lower()}
            messages.success(request, _("%(name)s is in the project now, as %(role)s.") % said)
            return redirect("generation:project", slug)
    context = {
        "project": found,
        "memberships": found.memberships.select_related("user").order_by("user__username"),
        "staff": User.objects.filter(is_staff=True, is_active=True).order_by("username"),
        "form": form,
        "roles": Role.choices,
    }
    return render(request, "people/project.html", context, status=_status(form))


@require_POST
def member_role(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    found = _get_project_for_admin(request, slug)
    membership = get_object_or_404(Membership, project=found, user=user_id)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("There is no such role. Nothing was changed."))
        return redirect("generation:project", slug)
    try:
        members.change_role(membership, role=form.cleaned_data["role"], actor=user_of(request))
    except MemberError as error:
        messages.error(request, str(error))
    else:
        role = Role(form.cleaned_data["role"]).label.lower()
        said = {"name": membership.user, "role": role}
        messages.success(request, _("%(name)s is %(role)s now.") % said)
    return _members_page_or_projects(request, found)


@require_http_methods(["GET", "HEAD", "POST"])
def member_remove(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    found = _get_project_for_admin(request, slug)
    membership = get_object_or_404(
        Membership.objects.select_related("user"), project=found, user=user_id
    )
    if request.method != "POST":
        context = {"project": found, "membership": membership, "sources": found.sources.count()}
        return render(request, "people/member_remove.html", context)
    try:
        members.remove(membership, actor=user_of(request))
    except MemberError as error:
        messages.error(request, str(error))
    else:
        said = {"name": membership.user, "project": found}
        messages.success(request, _("%(name)s is no longer in “%(project)s”.") % said)
    return _members_page_or_projects(request, found)


def _members_page_or_projects(request: HttpRequest, found: Project) -> HttpResponse:
    """Whoever just gave away the role of admin may not see the members any more."""
    if roles_of(user_of(request)).get(found) == Role.ADMIN:
        return redirect("generation:project", found.slug)
    return redirect("generation:projects")


# One's own account ------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    # The form writes on its own copy: a refused name must not stand in the page's header.
    form = ProfileForm(request.POST or None, instance=User.objects.get(pk=user.pk))
    if request.method == "POST" and form.is_valid():
        before = {name: form.initial[name] for name in form.changed_data}
        after = {name: form.cleaned_data[name] for name in form.changed_data}
        if after:
            with transaction.atomic():
                form.save()
                audit.record(actor=user, verb=Verb.PROFILE, thing=user, before=before, after=after)
        messages.success(request, _("Your profile is saved."))
        return redirect("generation:account")
    return _account_page(request, profile=form)


@require_POST
@never_cache
def token_new(request: HttpRequest) -> HttpResponse:
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _account_page(request, form=form)
    token, secret = tokens.make(user=user_of(request), **form.cleaned_data)
    # Answered with the page itself, not with a redirect: the secret is stored nowhere on its way.
    return _account_page(request, made=token, secret=secret)


@require_POST
def token_revoke(request: HttpRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(Token, pk=token_id, user=user_of(request))
    if tokens.revoke(token, actor=user_of(request)):
        messages.success(
            request,
            _("“%(name)s” is revoked; whatever used it gets no answer now.") % {"name": token},
        )
    return redirect("generation:account")


def _account_page(request: HttpRequest, **context: Any) -> HttpResponse:
    user = user_of(request)
    context = {
        "profile": ProfileForm(instance=User.objects.get(pk=user.pk)),
        "form": TokenForm(),
        "tokens": user.tokens.all(),
        "projects": roles_of(user).items(),
        "has_password": user.has_usable_password(),
    } | context
    status = max(_status(context["profile"]), _status(context["form"]))
    return render(request, "people/account.html", context, status=status)


def _status(form: Form | Any) -> int:
    return 422 if form.is_bound and form.errors else 200


class PasswordChange(PasswordChangeView):
    http_method_names = ["get", "head", "post"]
    form_class = PasswordForm
    template_name = "people/password.html"
    success_url = reverse_lazy("generation:account")

    def form_valid(self, form: Any) -> HttpResponseBase:  # type: ignore[override]
        with transaction.atomic():
            response = super().form_valid(form)
            audit.record(actor=form.user, verb=Verb.PASSWORD, thing=form.user)
            UserSession.objects.create_from_request(self.request)  # it has another key now
        messages.success(self.request, _("Your password is changed; other browsers are out."))
        return response
