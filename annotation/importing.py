"""Other people's preferences in: a closed campaign of their own, which nothing learns from unasked.

A row becomes a source of the task, a candidate set of external policies (the models that the data
name) and a turn with its judgments for everybody who answered; whoever is not named gets a number.
People become inactive accounts without a password. Votes become judgments one by one, since a
judgment has no weight.

What is the same is found by its content (`CandidateSet.uid`, `Assignment.uid`), so running an
import again changes nothing, and several imports about the same pictures share their sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from annotation.formats import FORMATS
from annotation.formats.checks import Checked, Checks, ImportRefused
from annotation.formats.rows import Comparison
from annotation.formats.store import Report, Store
from generation.images import ImageError
from generation.models import Project, Task
from generation.readers import Refusal
from generation.sources import ReadError, SourceError

__all__ = ["ImportRefused", "Report", "import_preferences"]

# Rows, and pixels of their pictures, that are in memory together.
BATCH, BATCH_PIXELS = 50, 64_000_000


def import_preferences(
    path: str | Path,
    *,
    format: str,
    task: Task,
    project: Project,
    name: str = "",
    dimension: str = "",
    called: Mapping[str, str] | None = None,
    dry_run: bool = False,
    progress: Callable[[Iterable[Comparison | Refusal]], Iterable[Comparison | Refusal]] = iter,
) -> Report:
    """Every good row becomes judgments; the others are reported with a reason.

    `dimension` is what rows are about that name none; `called` says which dimension of ours is
    meant by a name of theirs. Raises ReadError or ImportRefused where nothing can be taken.
    """
    place = Path(path).expanduser().absolute()
    title = name.strip() or f"{format}: {place.name}"
    checks = Checks(task, project, dimension, called or {})
    store = Store(task, project, title, dry_run=dry_run)
    report, good, pixels = Report(campaign=title), list[Checked](), 0
    for row in progress(_rows(format, place)):
        report.rows += 1
        try:
            good.append(checks.check(row))
        except (ImageError, SourceError, ImportRefused) as error:
            report.refused.append((row.name, str(error)))
            continue
        pixels += sum(one.width * one.height for one in good[-1].pictures)
        if len(good) == BATCH or pixels > BATCH_PIXELS:
            store.take(good, report)
            good, pixels = [], 0
    store.take(good, report)
    store.finish()
    return report


def _rows(format: str, path: Path) -> Iterator[Comparison | Refusal]:
    """What is read before a file turns out to be damaged lands; the rest is reported."""
    seen = False
    try:
        for row in FORMATS[format].read(path):
            seen = True
            yield row
    except ReadError as error:
        if not seen:
            raise
        yield Refusal("the rest", str(error))
