"""Which pictures a person may see: those that are used in a project they are in.

An app that uses pictures says where with `used_in`; the uses are asked in one query, each by an
index, and the first that fits ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from generation.models import Candidate, Image, Source

# Given a person, whether the picture of the outer query stands somewhere in their projects.
Use = Callable[[User], Exists]
USES: list[Use] = []


def used_in(use: Use) -> Use:
    USES.append(use)
    return use


@used_in
def _source(user: User) -> Exists:
    mine = Source.objects.filter(project__memberships__user=user)
    return Exists(mine.filter(image=OuterRef("pk")))


@used_in
def _mask(user: User) -> Exists:
    mine = Source.objects.filter(project__memberships__user=user)
    return Exists(mine.filter(mask=OuterRef("pk")))


@used_in
def _candidate(user: User) -> Exists:
    mine = Candidate.objects.filter(set__source__project__memberships__user=user)
    return Exists(mine.filter(image=OuterRef("pk")))


def get_for_user(user: User, sha256: str) -> Image:
    """The picture, or Http404: a stranger does not learn that it exists."""
    if user.is_superuser or user.is_staff:
        return get_object_or_404(Image, sha256=sha256)
    visible = reduce(or_, (Q(use(user)) for use in USES))
    found = Image.objects.filter(visible, sha256=sha256).first()
    if found is None:
        raise Http404(_("There is no such picture, or it belongs to a project you are not in."))
    return found
