"""Who may do what: roles in projects.

A superuser may do everything everywhere, and staff (who may enter the admin) are managers of every
project. Everyone else may do what their membership of the project says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404

from generation.models import Membership, Project, Role

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LADDER = list(Role)  # each role may do what those before it may


def role_in(user: User, project: Project | int) -> Role | None:
    """The person's role in the project, None for a stranger."""
    if user.is_superuser:
        return Role.ADMIN
    key = project if isinstance(project, int) else project.pk
    found = Membership.objects.filter(user=user, project=key).values_list("role", flat=True)
    role = next((Role(value) for value in found), None)
    if user.is_staff and (role is None or not includes(role, Role.MANAGER)):
        return Role.MANAGER
    return role


def includes(role: Role | None, needed: Role) -> bool:
    return role is not None and LADDER.index(role) >= LADDER.index(needed)


def may(user: User, project: Project | int, needed: Role) -> bool:
    return includes(role_in(user, project), needed)


def require(user: User, project: Project | int, needed: Role) -> None:
    """Refuse: a stranger learns nothing of the project (404), a member why not (403)."""
    role = role_in(user, project)
    if role is None:
        raise Http404("There is no such page, or it belongs to a project you are not in.")
    if not includes(role, needed):
        raise PermissionDenied(
            f"This needs the role {needed.label.lower()} in the project; yours is "
            f"{role.label.lower()}. Ask an admin of the project."
        )


def projects_of(user: User, needed: Role = Role.VIEWER) -> QuerySet[Project]:
    """The projects in which the person has at least this role."""
    if user.is_superuser or (user.is_staff and includes(Role.MANAGER, needed)):
        return Project.objects.all()
    roles = [role for role in LADDER if includes(role, needed)]
    return Project.objects.filter(memberships__user=user, memberships__role__in=roles)


def may_anywhere(user: User, needed: Role) -> bool:
    return projects_of(user, needed).exists()
