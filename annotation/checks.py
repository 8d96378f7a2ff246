from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import connections

from annotation.models import Criterion, Dimension
from generation.models import Task


@register(Tags.database)
def taxonomy_can_be_asked(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """What would make a part of the taxonomy vanish from the loop without a word."""
    if not databases or "default" not in databases:
        return []
    tables = set(connections["default"].introspection.table_names())
    if not {Dimension._meta.db_table, Criterion._meta.db_table, Task._meta.db_table} <= tables:
        return []
    found: list[CheckMessage] = [
        Warning(
            f"The dimension “{dimension}” has no wording, so nobody is asked about it.",
            hint="Write its question and query in the admin, or make it inactive.",
            id="annotation.W001",
        )
        for dimension in Dimension.objects.active().filter(wordings__isnull=True)
    ]
    found += [
        Warning(
            f"The task “{task}” has no active dimension, so its sets cannot be judged.",
            hint="Add a criterion for it in the admin, or make it inactive.",
            id="annotation.W002",
        )
        for task in Task.objects.active().exclude(
            criteria__in=Criterion.objects.filter(dimension__active=True)
        )
    ]
    return found
