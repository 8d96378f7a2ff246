"""The clock, Celery's beat: it reads its schedule from the database, and says that it ticks."""

from __future__ import annotations

from typing import Any

from django_celery_beat.schedulers import DatabaseScheduler

from config import heartbeats, safety


class Scheduler(DatabaseScheduler):
    def __init__(self, *args: Any, **options: Any) -> None:
        # Celery has no signal before it asks the database for the schedule.
        safety.refuse_unsafe()
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        pause = super().tick(*args, **options)
        heartbeats.heard()
        return pause
