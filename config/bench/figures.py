"""The keys, what they must keep to, and the table of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

POTATO_CYCLES, LABEL_STUDIO_CYCLES = 47, 13  # per second at 8 clients, on a like machine


@dataclass(frozen=True)
class Figure:
    """`group` is measured as one; without a limit the number is for information."""

    group: str
    says: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    def kept(self, value: float) -> bool:
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is None or value >= self.at_least


FIGURES = {
    "cold_start_s": Figure(
        "site", "seconds of `manage.py up` on existing data until /readyz answers"
    ),
    "cycle_sql": Figure("sql", "SQL statements per cycle (submit → next set)", at_most=8),
    "cycle_sql_with_transactions": Figure(
        "sql", "… counting BEGIN, COMMIT and savepoints, too", at_most=14
    ),
    "cycle_server_ms": Figure("site", "CPU milliseconds of the web server per cycle", at_most=8),
    "cycle_database_ms": Figure("site", "CPU milliseconds of PostgreSQL per cycle"),
    "cycles_per_second_1": Figure("site", "cycles per second, 2 web workers, 1 client"),
    "cycles_per_second_8": Figure(
        "site",
        "… 8 clients",
        at_least=max(3 * POTATO_CYCLES, 10 * LABEL_STUDIO_CYCLES),
    ),
    "cycles_per_second_32": Figure("site", "… 32 clients"),
    "cycle_p95_ms_8": Figure("site", "95 % of cycles with 8 clients take at most, ms", at_most=80),
    "web_worker_mb": Figure("site", "resident memory of a web worker after that, MB", at_most=150),
    "claim_ratio_1m_vs_1k": Figure(
        "claims",
        "a claim in the large campaign against one in the small, worst stage",
        at_most=2,
    ),
    "claim_ms_1k": Figure("claims", "median claim at 1,000 items, fresh, ms"),
    "claim_ms_1m": Figure("claims", "median claim at 1,000,000 items, fresh, ms"),
    "claim_ratio_fresh": Figure("claims", "ratio: nobody has judged yet"),
    "claim_ratio_done_40": Figure("claims", "ratio: the first 40 % judged, by many"),
    "claim_ratio_veteran": Figure("claims", "ratio: a person who has judged 10,000 items"),
    "claim_ratio_priority": Figure("claims", "ratio: … where those items have priority"),
    "export_first_byte_s": Figure(
        "export",
        "seconds until the first rows of an export of 20,000 judgments are on disk",
        at_most=0.5,
    ),
    "export_first_byte_1m_s": Figure("export", "… of 1,000,000", at_most=0.5),
    "export_seconds_20k": Figure("export", "seconds for 20,000 judgments", at_most=2),
    "export_seconds_1m": Figure("export", "… for 1,000,000", at_most=60),
    "export_memory_mb_1m": Figure("export", "peak memory of the process that exports them, MB"),
    "export_memory_ratio_1m_vs_100k": Figure("export", "… over that for 100,000", at_most=1.2),
    "prefix_speedup_d4": Figure(
        "prefix", "four questions in one reading against four readings, ratio", at_least=2.5
    ),
    "prefix_speedup_d4_backward": Figure(
        "prefix", "… with the gradient to the pixels", at_least=2.5
    ),
    **{
        f"prefix_speedup_d{count}{end}": Figure("prefix", f"… {count} question(s){says}")
        for end, says in (("", ""), ("_backward", ", with the gradient"))
        for count in (1, 2, 8)
    },
    "rl_step_speedup": Figure(
        "step",
        "the paper's Algorithm 1 over ours, time for one gradient a source; ours rolls out in half "
        "the steps, of second order",
        at_least=3,
    ),
    "rl_step_speedup_same_steps": Figure("step", "… with 28 steps of Euler's on both sides"),
    "rl_step_speedup_whole_run": Figure("step", "… with ours making its share of the references"),
    "rl_memory_ratio": Figure("step", "… peak memory, ours over theirs", at_most=0.5),
    "two_half_memory_ratio": Figure(
        "halves", "peak beside the weights: gradient in two halves over one graph", at_most=1
    ),
    "recompute_memory_ratio": Figure(
        "halves", "… the endpoint computed again, so that the halves never coexist", at_most=1
    ),
    "rl_same_seconds": Figure("step", "CPU seconds of ours with 28 steps of Euler's"),
    "rl_literal_seconds": Figure("step", "CPU seconds of their step"),
    "rl_ours_seconds": Figure("step", "CPU seconds of ours, references there"),
    "rl_fresh_seconds": Figure("step", "CPU seconds of ours, references to be made"),
    "loader_share": Figure(
        "step", "share of a policy step that reads and encodes sources", at_most=0.05
    ),
}


def groups(only: list[str]) -> list[str]:
    """What is to be measured so that these keys have a number; all where none is named."""
    wanted = only or list(FIGURES)
    return list(dict.fromkeys(FIGURES[key].group for key in wanted))


def table(found: Mapping[str, float]) -> Iterator[str]:
    for key, figure in FIGURES.items():
        if key in found:
            verdict = "" if not figure.limit else "pass" if figure.kept(found[key]) else "FAIL"
            yield f"{key:29}{found[key]:>10.4g}  {figure.limit:>6}  {verdict:4}  {figure.says}"


def write(found: Mapping[str, float], path: Path) -> None:
    """Numbers of keys that were not measured this time stay as they were."""
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | dict(found), indent=2) + "\n")
