"""Who may do what: roles in projects.

A superuser may do everything everywhere, and staff (who may enter the admin) are managers of every
project. Everyone else may do what their membership of the project says.

Pictures, sources and campaigns belong to projects. Policies, reward models and rounds belong to the
installation for now: whoever may look somewhere may look at them, and whoever manages a project may
run them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _

from generation.models import Membership, Project, Role

View = Callable[..., HttpResponseBase]

LADDER = list(Role)  # each role may do what those before it may


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # LoginRequiredMiddleware
    return request.user


def role_in(user: User, project: Project | int | None) -> Role | None:
    """The person's role in the project, None for a stranger."""
    if user.is_superuser:
        return Role.ADMIN
    key = project.pk if isinstance(project, Project) else project
    found = Membership.objects.filter(user=user, project=key).values_list("role", flat=True)
    return _with_staff(user, next((Role(value) for value in found), None))


def _with_staff(user: User, role: Role | None) -> Role | None:
    if user.is_staff and (role is None or not includes(role, Role.MANAGER)):
        return Role.MANAGER
    return role


def roles_of(user: User) -> dict[Project, Role]:
    """The projects the person sees, with the role they have there."""
    held = dict(Membership.objects.filter(user=user).values_list("project", "role"))
    found = {}
    for project in projects_of(user):
        role = Role(held[project.pk]) if project.pk in held else None
        role = Role.ADMIN if user.is_superuser else _with_staff(user, role)
        if role is not None:
            found[project] = role
    return found


def includes(role: Role | None, needed: Role) -> bool:
    return role is not None and LADDER.index(role) >= LADDER.index(needed)


def may(user: User, project: Project | int | None, needed: Role) -> bool:
    return includes(role_in(user, project), needed)


def require(user: User, project: Project | int | None, needed: Role) -> None:
    """Refuse: a stranger learns nothing of the project (404), a member why not (403)."""
    role = role_in(user, project)
    if role is None:
        raise Http404(_("There is no such page, or it belongs to a project you are not in."))
    if not includes(role, needed):
        raise PermissionDenied(
            _(
                "This needs the role %(needed)s in the project; yours is %(role)s. Ask an admin of "
                "the project."
            )
            % {"needed": needed.label.lower(), "role": role.label.lower()}
        )


def projects_of(user: User, needed: Role = Role.VIEWER) -> QuerySet[Project]:
    """The projects in which the person has at least this role."""
    if _everywhere(user, needed):
        return Project.objects.all()
    roles = [role for role in LADDER if includes(role, needed)]
    return Project.objects.filter(memberships__user=user, memberships__role__in=roles)


def _everywhere(user: User, needed: Role) -> bool:
    return user.is_superuser or (user.is_staff and includes(Role.MANAGER, needed))


def may_anywhere(user: User, needed: Role) -> bool:
    """Whether the role is theirs in some project, or will be in the first one that is made."""
    return _everywhere(user, needed) or projects_of(user, needed).exists()


def looks_on(user: User) -> bool:
    """Whether figures and rounds are the person's business: everyone's but a mere annotator's.

    Annotators may open those pages, too; they are only not led away from their work.
    """
    roles = [role for role in LADDER if role != Role.ANNOTATOR]
    if user.is_superuser or user.is_staff:
        return True
    return Membership.objects.filter(user=user, role__in=roles).exists()


def needs(role: Role) -> Callable[[View], View]:
    """For pages of no one project: the role is needed in some project."""

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            require_anywhere(user_of(request), role)
            return view(request, *args, **kwargs)

        return wrapped

    return decorate


def require_anywhere(user: User, needed: Role) -> None:
    if may_anywhere(user, needed):
        return
    if not may_anywhere(user, Role.VIEWER):
        raise Http404(_("You are in no project yet. Ask an admin of one to add you."))
    raise PermissionDenied(
        _("This needs the role %(needed)s in a project. Ask an admin of yours.")
        % {"needed": needed.label.lower()}
    )
