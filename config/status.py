"""What the status page says: every part, what to do about it, who works, and at what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now
from django.utils import translation
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config import parts, queues
from config.doctor import STATES, Examination, Finding, State, examinations, examine, worst
from config.examinations.work import failed_since, kinds
from config.kept import Kept
from config.models import DEAF, SILENT, Heartbeat, LastFinding
from generation.ownership import Job, JobState

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

FRESH_SECONDS = 5
ERRORS = 10
ERRORS_OF = timedelta(days=7)
JOBS = 20


@dataclass(frozen=True)
class Row:
    """A finding for the page."""

    finding: Finding
    looked_at: datetime | None = None

    @property
    def state(self) -> StrOrPromise:
        return STATES[self.finding.state]


@dataclass(frozen=True)
class Process:
    row: Heartbeat
    age: timedelta

    @property
    def seconds(self) -> int:
        return int(self.age.total_seconds())

    @property
    def state(self) -> str:
        if self.age > SILENT:
            return State.BROKEN
        heard = self.row.heard_at
        is_deaf = heard is None or self.row.beat_at - heard > DEAF
        return State.WARNING if is_deaf else State.OK

    @property
    def gpus(self) -> list[str]:
        return [
            f"{one['name']}: {one['used'] / 2**30:.1f} / {one['total'] / 2**30:.0f} GiB"
            for one in self.row.gpus
        ]


@dataclass(frozen=True)
class Status:
    rows: list[Row]
    processes: list[Process]
    waiting: dict[str, int]  # by queue; empty when the broker does not answer
    running: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    @property
    def worst(self) -> State:
        return worst(row.finding for row in self.rows)

    @property
    def ill(self) -> int:
        return sum(row.finding.state != State.OK for row in self.rows)


def _look() -> list[Finding]:
    fast = [one for one in examinations() if not one.is_slow]
    return [finding for _one, found in examine(fast) for finding in found]


def _depths() -> dict[str, int]:
    return {} if parts.broker() else queues.depths()


findings = Kept(_look, seconds=FRESH_SECONDS)
depths = Kept(_depths, seconds=FRESH_SECONDS)


def collect() -> Status:
    rows = [*[Row(finding) for finding in findings()], *_slow_rows()]
    # Those that need somebody first.
    order = list(State)
    rows.sort(key=lambda row: -order.index(State(row.finding.state)))
    return Status(
        rows=rows,
        processes=_processes(),
        waiting=depths(),
        running=_running(),
        failed=_failed(),
    )


def _processes() -> list[Process]:
    ages = dict(Heartbeat.objects.annotate(age=Now() - F("beat_at")).values_list("pk", "age"))
    rows = Heartbeat.objects.filter(pk__in=ages)
    return [Process(row, ages[row.pk]) for row in rows]


def _running() -> list[Job]:
    found = [row for kind in kinds() for row in kind.objects.filter(state=JobState.RUNNING)[:JOBS]]
    return sorted(found, key=lambda row: row.started_at or row.created_at)


def _failed() -> list[Job]:
    found = [row for kind in kinds() for row in failed_since(kind, ERRORS_OF, most=ERRORS)]
    found.sort(key=lambda row: row.finished_at or row.created_at, reverse=True)
    return found[:ERRORS]


# The slow ones ----------------------------------------------------------------------------------


def look_slowly() -> None:
    """Look at what takes seconds, and keep what was found for the page."""
    slow = [one for one in examinations() if one.is_slow]
    for one, found in examine(_with_needed(slow)):
        if one.is_slow:
            values = {"findings": [_kept(finding) for finding in found], "looked_at": Now()}
            LastFinding.objects.update_or_create(key=one.key, defaults=values)


def _with_needed(chosen: list[Examination]) -> list[Examination]:
    keys = {one.key for one in chosen} | {one.needs for one in chosen}
    return [one for one in examinations() if one.key in keys]


def _kept(finding: Finding) -> dict[str, Any]:
    return {
        "state": str(finding.state),
        "name": _in_every_language(finding.name),
        "what": _in_every_language(finding.what),
        "remedy": _in_every_language(finding.remedy),
    }


def _in_every_language(text: StrOrPromise) -> dict[str, str]:
    found = {}
    for code, _name in settings.LANGUAGES:
        with translation.override(code):
            found[code] = str(text)
    return found


def _slow_rows() -> Iterator[Row]:
    kept = {row.key: row for row in LastFinding.objects.all()}
    language = translation.get_language() or settings.LANGUAGE_CODE
    for examination in examinations():
        if not examination.is_slow:
            continue
        if (row := kept.get(examination.key)) is None:
            said = _("Not looked at yet: a job does that every few minutes.")
            yield Row(Finding(examination.name, State.OK, said))
            continue
        for one in row.findings:
            words = {key: _in(language, one[key]) for key in ("name", "what", "remedy")}
            yield Row(Finding(state=one["state"], **words), row.looked_at)


def _in(language: str, words: dict[str, str]) -> str:
    return words.get(language) or words.get(settings.LANGUAGE_CODE, "")


# The start page ---------------------------------------------------------------------------------


def alarms() -> list[Finding]:
    """What of the parts is down, by two small queries: for the start page of those who manage.

    Only who was there can be missed: an installation whose workers have yet to start alarms nobody.
    """
    return [*_deserted_queues(), *_broken_before()]


def deserted() -> list[str]:
    """Queues that had a worker and have none that listens."""
    known = {queue for row in Heartbeat.objects.values_list("queues", flat=True) for queue in row}
    listening = Heartbeat.objects.listening().values_list("queues", flat=True) if known else []
    return sorted(known - {queue for row in listening for queue in row})


def ticks() -> bool:
    """False where there was a clock and none ticks."""
    clocks = Heartbeat.objects.filter(kind=Heartbeat.Kind.BEAT)
    return not clocks.exists() or clocks.listening().exists()


def _deserted_queues() -> Iterator[Finding]:
    for queue in deserted():
        said = format_lazy(_("No worker takes jobs of the queue {queue}"), queue=queue)
        yield Finding(said, State.BROKEN, _("What is sent there waits until one runs again."))
    if not ticks():
        said = _("The clock of the jobs does not tick")
        yield Finding(said, State.BROKEN, _("No lease ends and no schedule starts until it does."))


def _broken_before() -> Iterable[Finding]:
    return [row.finding for row in _slow_rows() if row.finding.state == State.BROKEN]
