"""A turn with everything a page or a submission needs to know of it, read in one query.

The statement is written out: built by the ORM anew for each request, it took longer to build than
to run, and it stands in the path that every annotator walks hundreds of times a day.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import connection, models
from django.utils.safestring import SafeString

from annotation import guides, prepared
from annotation.campaigns import criteria_for
from annotation.models import Assignment, Campaign, Item
from generation.models import CandidateSet, Image, Source, Task


@dataclass(frozen=True)
class Asked:
    """A dimension that is asked about the set, in its newest wording."""

    dimension: int
    wording: int
    slug: str
    name: str
    question: str
    guideline: str
    required: bool

    @property
    def guide(self) -> SafeString:
        return guides.render(self.guideline)


@dataclass(frozen=True)
class Shown:
    """A candidate; `index` is its place in the set, not on the page."""

    pk: int
    index: int
    sha256: str | None
    width: int
    height: int


@dataclass(frozen=True)
class Turn:
    """`shown` is in the order of the page; `revisions` counts earlier answers by dimension.

    Under 0 stand those to the question that is of no dimension: whether a picture is usable.
    """

    assignment: Assignment
    asked: list[Asked]
    shown: list[Shown]
    revisions: dict[int, int]

    @property
    def campaign(self) -> Campaign:
        return self.assignment.item.campaign


# What is read of each table, and under which name; the first is what the others hang on.
_PARTS: list[tuple[str, type[models.Model]]] = [
    ("a", Assignment),
    ("i", Item),
    ("c", Campaign),
    ("s", CandidateSet),
    ("source", Source),
    ("t", Task),
    ("image", Image),
    ("mask", Image),
]
# Large, or of no use here; whoever asks for one has it read then.
_LEFT_OUT = {
    *("scene", "tags", "attribution", "licence", "error", "uid", "external_id"),
    *("format", "byte_size", "storage_key", "plan_id", "run_id"),
    *("created_at", "created_by_id", "completed_at"),
}
# What is asked: as `campaigns.criteria_for`, with the newest wording.
_QUERY = """
SELECT {columns},
  (SELECT coalesce(json_agg(json_build_object(
      'dimension', d.id, 'wording', w.id, 'slug', d.slug, 'name', d.name,
      'question', w.question, 'guideline', w.guideline, 'required', k.required
    ) ORDER BY k.order, k.id), '[]')
   FROM annotation_criterion k
   JOIN annotation_dimension d ON d.id = k.dimension_id AND d.active
   JOIN LATERAL (
     SELECT * FROM annotation_wording w WHERE w.dimension_id = d.id ORDER BY w.version DESC LIMIT 1
   ) w ON true
   WHERE k.task_id = source.task_id AND (
     NOT EXISTS (SELECT 1 FROM annotation_campaign_dimensions x WHERE x.campaign_id = c.id)
     OR EXISTS (SELECT 1 FROM annotation_campaign_dimensions x
                WHERE x.campaign_id = c.id AND x.dimension_id = d.id)
   ))::text,
  (SELECT json_agg(json_build_object(
      'pk', n.id, 'index', n.index, 'sha256', p.sha256, 'width', p.width, 'height', p.height))
   FROM generation_candidate n LEFT JOIN generation_image p ON p.id = n.image_id
   WHERE n.set_id = a.set_id)::text,
  (SELECT json_object_agg(j.dimension_id, j.newest) FROM (
     SELECT dimension_id, max(revision) AS newest FROM annotation_judgment
     WHERE assignment_id = a.id GROUP BY dimension_id
     UNION ALL
     SELECT coalesce(dimension_id, 0), max(revision) FROM annotation_rating
     WHERE assignment_id = a.id GROUP BY dimension_id) j)::text
FROM annotation_assignment a
JOIN annotation_item i ON i.id = a.item_id
JOIN annotation_campaign c ON c.id = i.campaign_id
JOIN generation_candidateset s ON s.id = a.set_id
JOIN generation_source source ON source.id = s.source_id
JOIN generation_task t ON t.id = source.task_id
JOIN generation_image image ON image.id = source.image_id
JOIN generation_image mask ON mask.id = source.mask_id
WHERE """
LOCK = " FOR NO KEY UPDATE OF a"


def load(pk: int, *, lock: bool = False) -> Turn:
    """The turn of this number; `lock` keeps others from changing it until the transaction ends.

    Raises Assignment.DoesNotExist.
    """
    found = _read_all("a.id = %(pk)s" + (LOCK if lock else ""), {"pk": pk})
    if not found:
        raise Assignment.DoesNotExist(f"There is no turn {pk}.")
    return found[0]


def load_all(pks: Sequence[int]) -> list[Turn]:
    """The turns of these numbers, in this order, in one query; those that are gone are left out."""
    if not pks:
        return []
    values = {"pks": prepared.array(pks)}
    found = {one.assignment.pk: one for one in _read_all("a.id = ANY(%(pks)s::bigint[])", values)}
    return [found[pk] for pk in pks if pk in found]


def _read_all(condition: str, values: dict[str, Any]) -> list[Turn]:
    query, fields = _statement()
    with connection.cursor() as cursor:
        prepared.execute(cursor, query + condition, values)
        return [_read(fields, row) for row in cursor.fetchall()]


def _read(fields: _Fields, row: Sequence[Any]) -> Turn:
    values = iter(row)
    parts: dict[str, Any] = {}
    for name, model, columns, names in fields:
        read = [_value(column, next(values)) for column in columns]
        parts[name] = model.from_db("default", names, read)
    assignment, item, source = parts["a"], parts["i"], parts["source"]
    assignment.item, assignment.set, item.campaign = item, parts["s"], parts["c"]
    item.set, parts["s"].source, source.task = parts["s"], source, parts["t"]
    source.image, source.mask = parts["image"], parts["mask"]
    asked, shown, revisions = (json.loads(value or "[]") for value in values)
    by_index = {one["index"]: Shown(**one) for one in shown}
    return Turn(
        assignment=assignment,
        asked=[Asked(**one) for one in asked],
        shown=[by_index[index] for index in assignment.order],
        revisions={int(dimension): newest for dimension, newest in dict(revisions).items()},
    )


def preview(campaign: Campaign, item: Item, order: list[int]) -> Turn:
    """A turn at the item as somebody would get it, without a row."""
    item.campaign = campaign
    row = Assignment(pk=0, item=item, set=item.set, kind=Assignment.Kind.WORK, order=order)
    candidates = {c.index: c for c in item.set.candidates.select_related("image")}
    asked = []
    for criterion in criteria_for(campaign, item.set.source.task):
        dimension, wording = criterion.dimension, criterion.dimension.wording
        asked.append(
            Asked(
                dimension.pk,
                wording.pk,
                dimension.slug,
                dimension.name,
                wording.question,
                wording.guideline,
                criterion.required,
            )
        )
    shown = []
    for index in order:
        image = candidates[index].image
        assert image is not None  # only sets that are ready are shown
        shown.append(Shown(candidates[index].pk, index, image.sha256, image.width, image.height))
    return Turn(row, asked, shown, {})


def _value(column: Any, value: Any) -> Any:
    return json.loads(value) if isinstance(column, models.JSONField) and value else value


_Fields = list[tuple[str, type[models.Model], list[Any], frozenset[str]]]


@cache
def _statement() -> tuple[str, _Fields]:
    """The statement, and for each part its model, its columns, and their attributes' names."""
    fields = []
    for name, model in _PARTS:
        columns = [f for f in model._meta.concrete_fields if f.attname not in _LEFT_OUT]
        # A set: Django looks each of the model's fields up in it, for every row.
        fields.append((name, model, columns, frozenset(f.attname for f in columns)))
    quoted = (f'{name}."{f.column}"' for name, _model, columns, _names in fields for f in columns)
    return _QUERY.format(columns=", ".join(quoted)), fields
