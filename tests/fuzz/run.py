"""Takes in spoilt files by the thousand, and looks at what came of it: `python -m tests.fuzz`."""

from __future__ import annotations

import logging
import os
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generation.decoding import pool
from generation.decoding.pixels import SENTENCES
from tests.fuzz.kinds import Kind, kinds

MEMORY_MB = 1024  # of a decoder here
PARENT_MB = 400  # what this process may grow by
CASE_SECONDS = 30.0


DEATHS: list[str] = []


class Notes(logging.Handler):
    """The pool says which decoder ended otherwise than it should."""

    def emit(self, record: logging.LogRecord) -> None:
        DEATHS.append(record.getMessage())


NOTES = Notes()


@dataclass
class Report:
    """What came of a kind's cases."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Run:
    reports: list[Report] = field(default_factory=list)
    deaths: int = 0  # of decoders
    decoder_mb: float = 0.0
    grown_mb: float = 0.0
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        return sum(report.outcomes.total() for report in self.reports)

    @property
    def wrong(self) -> list[str]:
        return [f"{report.kind}: {what}" for report in self.reports for what in report.wrong]

    def lines(self) -> list[str]:
        columns = ("read", "refused", "memory", "time", "killed")
        head = f"{'kind':22}" + "".join(f"{name:>9}" for name in (*columns, "wrong", "slowest"))
        body = [
            f"{one.kind:22}"
            + "".join(f"{one.outcomes[name]:9}" for name in columns)
            + f"{len(one.wrong):9}{one.slowest:8.2f}s"
            for one in self.reports
        ]
        foot = (
            f"{self.cases} cases in {self.seconds:.0f} s, {self.deaths} decoders died; one took "
            f"{self.decoder_mb:.0f} MB at most (of {MEMORY_MB}), this process grew by "
            f"{self.grown_mb:.0f} MB"
        )
        return [head, *body, foot]


def own_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(count: int, seed: int, place: Path) -> Run:
    """Some `count` cases of all kinds. Every case is known by its kind, the seed and a number."""
    found, began, before = Run(), time.monotonic(), 0.0
    DEATHS.clear()
    for name, kind in kinds():
        report = Report(name)
        found.reports.append(report)
        for number in range(max(1, round(count * kind.share))):
            rng = random.Random(f"{name} {seed} {number}")
            case = kind.cases(rng, place)
            start = time.monotonic()
            try:
                outcome = judge(kind, case())
            except kind.raises as error:
                outcome = said(str(error), report, number)
            except Exception as error:
                report.wrong.append(f"case {number}: {type(error).__name__}: {error}"[:300])
                outcome = "wrong"
            took = time.monotonic() - start
            if took > CASE_SECONDS:
                report.wrong.append(f"case {number} took {took:.0f} s")
            report.slowest = max(report.slowest, took)
            report.outcomes[outcome] += 1
            peaks = [decoder.peak_kb / 1024 for decoder in pool.POOL.all]
            found.decoder_mb = max([found.decoder_mb, *peaks])
            before = before or own_mb()
    found.deaths = len(DEATHS)
    found.grown_mb = own_mb() - before
    found.seconds = time.monotonic() - began
    return found


def judge(kind: Kind, value: Any) -> str:
    refused = kind.told(value)
    for told in refused:
        check(told)
    return "refused" if refused else "read"


def said(text: str, report: Report, number: int) -> str:
    try:
        check(text)
    except AssertionError as error:
        report.wrong.append(f"case {number}: {error}")
    for code in ("memory", "time", "killed"):
        if SENTENCES[code].partition("%(name)s")[2][:40] in text:
            return code
    return "refused"


def check(text: str) -> None:
    """A sentence in one line, for people."""
    assert 4 < len(text) < 1500, f"{len(text)} characters: {text[:200]!r}"
    assert "Traceback" not in text, text
    assert " at 0x" not in text, text
    assert "\n" not in text.strip(), repr(text[:300])


def prepare() -> None:
    """Decoders with limits that a test may reach."""
    from django.conf import settings

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings.DECODER_MEMORY_MB, settings.DECODER_SECONDS = MEMORY_MB, 10
    pool.POOL.close()
    pool.logger.addHandler(NOTES)
