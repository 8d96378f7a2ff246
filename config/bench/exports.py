"""What it takes to export judgments: seconds, until there is something to see, and memory.

Each export is a process of its own, so that each has its own peak: config/bench/export_once.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from config.bench import world as worlds
from config.bench.world import POOL, World

Found = dict[str, float]
SMALL, MIDDLE = 20_000, 100_000  # judgments
PEOPLE = 200
SIZE = 4

_KEYS = """
UPDATE generation_image SET storage_key = left(sha256, 2) || '/' || sha256 || '.png'
WHERE storage_key = 'none'
"""
# Both slots of every item, each by another person, in an order drawn for them.
_TURNS = """
INSERT INTO annotation_assignment
  (item_id, set_id, annotator_id, kind, slot, "order", state, lease_until, skip_reason, comment,
   created_at, submitted_at, seconds_spent)
SELECT i.id, i.set_id,
  (%(people)s::bigint[])[1 + (i.id + slot) %% cardinality(%(people)s::bigint[])],
  'work', slot,
  jsonb_build_array(i.id %% 4, (i.id + 1 + slot) %% 4, (i.id + 2 - slot) %% 4, (i.id + 3) %% 4),
  'submitted', now(), '', '', now(), now(), 4.2
FROM annotation_item i, generate_series(0, 1) slot
WHERE i.campaign_id = %(campaign)s
ORDER BY i.id, slot
"""
# One in ten finds no difference; of the others the best and the worst are two neighbours.
JUDGMENTS = """
INSERT INTO annotation_judgment
  (assignment_id, set_id, dimension_id, wording_id, outcome, best_id, worst_id, revision, current,
   created_at)
SELECT a.id, a.set_id, w.dimension_id, w.id,
  CASE WHEN same THEN 'no_difference' ELSE 'picked' END,
  CASE WHEN NOT same THEN best.id END, CASE WHEN NOT same THEN worst.id END, 1, true, now()
FROM annotation_assignment a
JOIN annotation_item i ON i.id = a.item_id
CROSS JOIN annotation_wording w
CROSS JOIN LATERAL (SELECT (a.id + w.id) %% 10 = 0) drawn (same)
JOIN generation_candidate best ON best.set_id = a.set_id AND best.index = (a.id * 7 + w.id) %% 4
JOIN generation_candidate worst
  ON worst.set_id = a.set_id AND worst.index = (a.id * 7 + w.id + 1 + a.id %% 3) %% 4
WHERE i.campaign_id = %(campaign)s AND w.id = ANY(%(wordings)s)
ORDER BY a.id, w.id
"""


def measure(*, large: int) -> Found:
    call_command("migrate", verbosity=0, interactive=False)
    sizes = dict.fromkeys([SMALL, MIDDLE, large])
    campaigns = {size: _judged(size) for size in sizes}
    _store_pictures()
    worlds.analyse()
    with tempfile.TemporaryDirectory(dir=settings.DATA_DIR) as folder:
        took = {
            size: _export(world.campaign.name, Path(folder) / str(size))
            for size, world in campaigns.items()
        }
    return {
        "export_first_byte_s": took[SMALL]["first"],
        "export_first_byte_1m_s": took[large]["first"],
        "export_seconds_20k": took[SMALL]["seconds"],
        "export_seconds_1m": took[large]["seconds"],
        "export_memory_mb_1m": took[large]["memory"],
        "export_memory_ratio_1m_vs_100k": took[large]["memory"] / took[MIDDLE]["memory"],
    }


def _judged(judgments: int) -> World:
    """A campaign with about so many: two people about each set, dimension by dimension."""
    from annotation.campaigns import dimensions_for
    from annotation.models import Campaign
    from generation.models import Task

    task = Task.objects.get(slug="fill")
    asked = dimensions_for(Campaign(), task)
    items = judgments // (2 * len(asked))
    world = worlds.make_world(items=items, people=PEOPLE, size=SIZE)
    worlds.load(
        {
            _TURNS: {"people": [user.pk for user in world.people]},
            JUDGMENTS: {"wordings": [dimension.wording.pk for dimension in asked]},
        },
        campaign=world.campaign.pk,
    )
    return world


def _store_pictures() -> None:
    """Of each image a file whose hash is its name, as the rows say."""
    for number in range(1, POOL + 1):
        data = f"bench {number}".encode()
        sha256 = hashlib.sha256(data).hexdigest()
        path = Path(settings.MEDIA_ROOT) / "images" / sha256[:2] / f"{sha256}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    worlds.load({_KEYS: {}})


def _export(campaign: str, directory: Path) -> Found:
    command = [sys.executable, "-m", "config.bench.export_once", campaign, str(directory)]
    done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"The export failed:\n{done.stderr}")
    found: Found = json.loads(done.stdout)
    return found
