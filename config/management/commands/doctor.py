"""Examines this installation and says, part by part, what is wrong and what to do about it."""

import sys
from typing import Any

from django.core.management.base import CommandParser
from django.utils import translation

from config.doctor import MEND_FIRST, Finding, State, examinations, examine, worst
from generation import console

SIGNS = {State.OK: "ok", State.WARNING: "warning", State.BROKEN: "BROKEN"}


class Command(console.Command):
    help = __doc__ or ""
    # It runs the checks itself, and where they fail it has the more to say.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        console.add_json(parser, "the findings")
        parser.add_argument("--fast", action="store_true", help="Leave out what takes seconds.")

    def handle(self, *args: Any, fast: bool, json: str | None, **options: Any) -> None:
        chosen = [one for one in examinations() if not (fast and one.is_slow)]
        found: list[Finding] = []
        with translation.override("en-gb"):
            for _examination, findings in examine(chosen):
                for finding in findings:
                    # What depends on one broken part needs no mending of its own.
                    self._say(finding, with_remedy=finding.remedy is not MEND_FIRST)
                found += findings
            self.write_json(json, [one.as_json() for one in found])
        counts = {state: sum(one.state == state for one in found) for state in State}
        self.stdout.write("")
        self.stdout.write(", ".join(f"{count} {state}" for state, count in counts.items()))
        if worst(found) == State.BROKEN:
            sys.exit(1)

    def _say(self, finding: Finding, *, with_remedy: bool) -> None:
        state = State(finding.state)
        style = {State.OK: self.style.SUCCESS, State.WARNING: self.style.WARNING}
        sign = style.get(state, self.style.ERROR)(f"{SIGNS[state]:8}")
        self.stdout.write(f"{sign} {finding.name}: {finding.what}")
        if finding.remedy and with_remedy:
            self.stdout.write(f"         → {finding.remedy}")
