"""A canonical dataset directory back into rows: what `annotation.datasets` wrote, read again.

Sets and turns keep the names they had, so that running it again changes nothing, a later export of
the same installation adds what is new, and an export of what came is what it came from. Nobody's
work here is touched: what people judged here stays theirs, and what came lies in closed campaigns
of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from django.db import transaction

from annotation.dataset_files import verify
from annotation.errors import DatasetError
from annotation.restore.work import Report, Restoring
from generation.models import Project, default_project

if TYPE_CHECKING:
    from generation.console import Progress

__all__ = ["Report", "import_canonical"]


def import_canonical(
    path: Path | str,
    *,
    name: str | None = None,
    project: Project | None = None,
    origin: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Every good row of the dataset becomes a row here; the others are reported with a reason.

    `name` is the campaign's, or stands before the campaigns' names where there are several;
    `origin` takes the place of theirs. Raises DatasetError where the directory is not whole or its
    content is not what its card says; nothing is stored then.
    """
    directory = Path(path).expanduser()
    card = verify(directory)
    reduced = (card.get("images") or {}).get("max_side")
    if reduced:
        raise DatasetError(
            f"This dataset holds its pictures reduced to {reduced} pixels a side, and rows need "
            "them as they were judged. Export it again in full size."
        )
    work = Restoring(
        directory,
        card,
        project=project or Project.objects.get(pk=default_project()),
        name=name,
        origin=origin,
        keep=not dry_run,
        progress=progress,
    )
    if not dry_run:
        return work.run()
    with transaction.atomic():
        report = work.run()
        transaction.set_rollback(True)
    return report
