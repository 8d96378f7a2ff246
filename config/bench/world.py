"""Campaigns as large as one likes, loaded by the database itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction

from annotation import campaigns
from annotation.models import Campaign
from generation.models import (
    Image,
    Membership,
    Policy,
    Project,
    Role,
    Source,
    Split,
    Task,
    default_project,
)

OVERLAP = 2
POOL = 500  # pictures and sources; sets share them

_IMAGES = """
INSERT INTO generation_image (sha256, width, height, format, byte_size, storage_key, created_at)
SELECT encode(sha256(('bench ' || n)::bytea), 'hex'), 512, 512, 'png', 1, 'none', now()
FROM generate_series(1, %(pool)s) n ON CONFLICT DO NOTHING
"""
_SETS = """
INSERT INTO generation_candidateset (source_id, state, size, error, created_at)
SELECT (%(sources)s::bigint[])[1 + n %% cardinality(%(sources)s::bigint[])],
  'ready', %(size)s, '', now()
FROM generate_series(1, %(number)s) n

"""
_CANDIDATES = """
INSERT INTO generation_candidate
  (set_id, index, policy_id, image_id, seed, num_inference_steps, strength, guidance_scale,
   true_cfg_scale, negative_prompt, prompt, width, height, device, versions, created_at)
SELECT s, k, %(policy)s,
  (%(images)s::bigint[])[1 + (s * %(size)s + k) %% cardinality(%(images)s::bigint[])],
  s, 28, 1, 30, 1, '', '', 512, 512, '', '{}', now()
FROM generate_series(%(first)s, %(last)s) s, generate_series(0, %(size)s - 1) k
"""
# Even positions: what share of the queue lies before an item is its position.
_ITEMS = """
INSERT INTO annotation_item (campaign_id, set_id, shown, position, "full")
SELECT %(campaign)s, s, '[]', (s - %(first)s)::float / %(number)s, false
FROM generate_series(%(first)s, %(last)s) s
"""
# The first items of the queue, each judged by two neighbours in the list; of every third item only
# one has judged it so far.
_TURNS = """
INSERT INTO annotation_assignment
  (item_id, set_id, annotator_id, kind, slot, "order", state, lease_until, skip_reason, comment,
   created_at, submitted_at)
SELECT i.id, i.set_id,
  (%(people)s::bigint[])[1 + (i.id + slot) %% cardinality(%(people)s::bigint[])],
  'work', slot, '[0, 1]', 'submitted', now(), '', '', now(), now() - interval '1 day'
FROM annotation_item i, generate_series(0, 1) slot
WHERE i.campaign_id = %(campaign)s AND i.position < %(share)s
  AND (slot = 0 OR i.id %% 3 <> 0)
  AND NOT EXISTS (SELECT 1 FROM annotation_assignment a WHERE a.item_id = i.id)
ORDER BY i.position
"""
_FULL = """
UPDATE annotation_item i SET "full" = true
WHERE campaign_id = %(campaign)s AND position < %(share)s AND NOT "full"
  AND (SELECT count(*) FROM annotation_assignment a WHERE a.item_id = i.id) = 2
"""
# One person's turns at the next items that lie free, one after the other.
_VETERAN = """
INSERT INTO annotation_assignment
  (item_id, set_id, annotator_id, kind, slot, "order", state, lease_until, skip_reason, comment,
   created_at, submitted_at)
SELECT id, set_id, %(user)s, 'work', 0, '[0, 1]', 'submitted', now(), '', '', now(),
  now() - interval '1 day'
FROM (SELECT * FROM annotation_item
      WHERE campaign_id = %(campaign)s AND position >= %(share)s AND NOT "full"
      ORDER BY position LIMIT %(number)s) i
"""
_SEAT = """
INSERT INTO annotation_seat (campaign_id, user_id, position, paused_reason)
SELECT %(campaign)s, %(user)s, max(i.position), ''
FROM annotation_assignment a JOIN annotation_item i ON i.id = a.item_id
WHERE a.annotator_id = %(user)s AND i.campaign_id = %(campaign)s
ON CONFLICT (campaign_id, user_id) DO UPDATE SET position = excluded.position
"""
_FILLED = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND pg_relation_size(c.oid) > 0
"""


@dataclass(frozen=True)
class World:
    campaign: Campaign
    people: list[User]


def make_world(
    *, items: int, people: int, size: int = 4, images: Sequence[Image] | None = None
) -> World:
    """A campaign of the seeded task, with its real dimensions and guides.

    Its pictures are rows without files unless some are given.
    """
    task = Task.objects.get(slug="fill")
    project = Project.objects.get(pk=default_project())
    policy = Policy.objects.create(
        name=f"policy {Policy.objects.count()}", kind=Policy.Kind.BASE, location="nowhere"
    )
    if images is None:
        _run(_IMAGES, pool=POOL)
        images = list(Image.objects.order_by("pk")[:POOL])
    sources = Source.objects.bulk_create(
        Source(
            project=project,
            task=task,
            image=image,
            mask=images[0],
            prompt=f"a red lantern beside the door, {policy.pk}",
            split=Split.TRAIN,
        )
        for image in images
    )
    campaign = campaigns.open_campaign(
        name=f"Campaign {policy.pk}",
        sets=[],
        tasks=[task],
        overlap=OVERLAP,
        project=project,
        may_be_empty=True,
    )
    users = User.objects.bulk_create(
        User(username=f"annotator {policy.pk} {n}", password="!") for n in range(people)
    )
    Membership.objects.bulk_create(
        Membership(project=project, user=user, role=Role.ANNOTATOR) for user in users
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM generation_candidateset")
        (before,) = cursor.fetchone()
    loaded = {
        "number": items,
        "size": size,
        "policy": policy.pk,
        "campaign": campaign.pk,
        "sources": [source.pk for source in sources],
        "images": [image.pk for image in images],
    }
    with transaction.atomic():
        _without_triggers()
        _run(_SETS, **loaded)
        span = {"first": before + 1, "last": before + items}
        _run(_CANDIDATES, **loaded, **span)
        _run(_ITEMS, **loaded, **span)
    return World(campaign, users)


def judge(world: World, share: float) -> None:
    """Let many people have judged the first `share` of the queue."""
    values = {
        "campaign": world.campaign.pk,
        "people": [user.pk for user in world.people],
        "share": share,
    }
    with transaction.atomic():
        _without_triggers()
        _run(_TURNS, **values)
        _run(_FULL, **values)


def work_long(world: World, user: User, *, share: float, number: int) -> None:
    """Let one person have judged the next `number` items from there on."""
    with transaction.atomic():
        _without_triggers()
        values = {"campaign": world.campaign.pk, "user": user.pk, "share": share}
        _run(_VETERAN, **values, number=number)
        _run(_SEAT, **values)


def load(statements: Mapping[str, Mapping[str, Any]], **values: Any) -> None:
    """Run them one after the other, each with its values and those of all."""
    with transaction.atomic():
        _without_triggers()
        for statement, own in statements.items():
            _run(statement, **own, **values)


def analyse() -> None:
    """As autovacuum does within a minute of so many new rows.

    Empty tables are left alone, as autovacuum leaves them: told that one is empty, the planner
    reads it whole by plans that a connection keeps, however much it has grown since.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FILLED)
        tables = [name for (name,) in cursor.fetchall()]
    _run(f"VACUUM ANALYZE {', '.join(tables)}")


def _run(statement: str, **values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


def _without_triggers() -> None:
    # Foreign keys and the slot's trigger run row by row; what is loaded here keeps their rules.
    _run("SET LOCAL session_replication_role = replica")
