"""Everything that is changed in the admin goes into the audit log, with before and after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from generation import audit
from generation.access import user_of
from generation.models import Verb


class Audited(admin.ModelAdmin):
    """Mixed into every ModelAdmin by the site; the hooks are those of Django's own history."""

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        forms = [form, *(inner for formset in formsets or [] for inner in formset.forms)]
        changed = [one for one in forms if one is not None and one.changed_data]
        request._changes = (  # type: ignore[attr-defined]
            _values((one, one.initial) for one in changed),
            _values((one, getattr(one, "cleaned_data", {})) for one in changed),
        )
        return super().construct_change_message(request, form, formsets, add)

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        _, after = getattr(request, "_changes", ({}, {}))
        audit.record(actor=user_of(request), verb=Verb.ADMIN_ADDED, thing=obj, after=after)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        before, after = getattr(request, "_changes", ({}, {}))
        audit.record(
            actor=user_of(request), verb=Verb.ADMIN_CHANGED, thing=obj, before=before, after=after
        )
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            audit.record(actor=user_of(request), verb=Verb.ADMIN_DELETED, thing=obj)
        return super().log_deletions(request, queryset)


def _values(forms: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """The changed fields of the form and of its inline rows; never a password."""
    found: dict[str, Any] = {}
    for form, values in forms:
        prefix = f"{form.prefix} " if form.prefix else ""
        for name in form.changed_data:
            secret = "password" in name
            found[f"{prefix}{name}"] = "(not written down)" if secret else values.get(name)
    return found


class Site(admin.AdminSite):
    @method_decorator(never_cache)
    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Everybody logs in on one page, which knows of limits and second factors."""
        start = reverse("admin:index")
        if self.has_permission(request):
            return redirect(start)
        if request.user.is_authenticated:
            raise PermissionDenied(_("The admin is for staff. Ask a superuser to make you one."))
        return redirect_to_login(request.GET.get("next", start))

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        base = admin_class or admin.ModelAdmin
        super().register(model_or_iterable, type(base.__name__, (Audited, base), {}), **options)
