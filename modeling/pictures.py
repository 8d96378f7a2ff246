"""Where this app shows pictures: the held-out pairs of an evaluation."""

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef

from generation.pictures import used_in
from modeling.models import EvaluationPair


@used_in
def _new(user: User) -> Exists:
    mine = EvaluationPair.objects.filter(source__project__memberships__user=user)
    return Exists(mine.filter(image=OuterRef("pk")))


@used_in
def _parent(user: User) -> Exists:
    mine = EvaluationPair.objects.filter(source__project__memberships__user=user)
    return Exists(mine.filter(parent_image=OuterRef("pk")))
