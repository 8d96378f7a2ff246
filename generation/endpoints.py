"""What the API's views have in common: who may ask, which rows, page by page.

`role` is what a person needs to read, in the project of the row or, where `project` is empty and
the thing belongs to the installation, in some project. `scope` is what a token needs.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from django.contrib.auth.models import User
from django.db.models import F, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import generics
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from generation.access import projects_of, require, require_anywhere
from generation.authentication import needs_scope
from generation.models import Role, Scope
from generation.paging import TAKES, ByKey
from generation.parameters import ByParameters, Parameters


class Endpoint(generics.GenericAPIView):
    role: ClassVar[Role] = Role.VIEWER
    write_role: ClassVar[Role] = Role.MANAGER
    scope: ClassVar[Scope] = Scope.READ
    write_scope: ClassVar[Scope] = Scope.MANAGE
    project: ClassVar[str] = ""  # the way from a row to its project
    parameters: ClassVar[Parameters] = {}
    pagination_class: Any = None
    filter_backends: Any = ()
    http_method_names = ["get", "head", "post"]

    def takes(self, method: str) -> list[str]:
        """Which parameters of the address are known."""
        if method not in ("GET", "HEAD"):
            return []
        return [*self.parameters, *(TAKES if self.pagination_class else ())]

    @property
    def person(self) -> User:
        assert isinstance(self.request.user, User)  # IsAuthenticated
        return self.request.user

    @cached_property
    def managed(self) -> set[int]:
        """The projects in which annotators have names for whoever asks, not only pseudonyms."""
        return set(projects_of(self.person, Role.MANAGER).values_list("pk", flat=True))

    def get_permissions(self) -> list[BasePermission]:
        scope = self.write_scope if self.request.method == "POST" else self.scope
        return [IsAuthenticated(), needs_scope(scope)()]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        require_anywhere(self.person, self.write_role if request.method == "POST" else self.role)


class Listing(Endpoint, generics.ListAPIView):
    """The rows of the projects in which the person has the role."""

    pagination_class = ByKey
    filter_backends = (ByParameters,)

    def get_queryset(self) -> QuerySet[Any]:
        rows = super().get_queryset()
        if self.project and not getattr(self, "swagger_fake_view", False):
            path = "pk" if self.project == "self" else self.project
            rows = rows.filter(**{f"{path}__in": projects_of(self.person, self.role)})
        return rows


class Single(Endpoint, generics.RetrieveAPIView):
    """One row: a stranger to its project gets 404, a member who may not see it a reason."""

    def get_object(self) -> Any:
        rows = self.get_queryset()
        if not self.project:
            return get_object_or_404(rows, **self.kwargs)
        key = F("pk") if self.project == "self" else F(f"{self.project}_id")
        row = get_object_or_404(rows.annotate(project_key=key), **self.kwargs)
        require(self.person, row.project_key, self.role)
        return row

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.retrieve(request, *args, **kwargs)
