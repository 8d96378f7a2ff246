"""Where this app shows pictures: examples of a dimension, which are for every member."""

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef

from annotation.models import Example
from generation.models import Membership
from generation.pictures import used_in


@used_in
def _example(user: User) -> Exists:
    is_member = Exists(Membership.objects.filter(user=user))
    return Exists(Example.objects.filter(is_member, image=OuterRef("pk")))
