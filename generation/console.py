"""What commands have in common on a terminal and in a pipe: results on stdout, talk on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from tqdm import tqdm

Item = TypeVar("Item")
# Between two lines of progress where stderr is a file or a pipe.
QUIET_SECONDS = 10.0


def add_json(parser: CommandParser, what: str = "the figures") -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        help=f"Write {what} to FILE as JSON; with - to stdout, and everything else to stderr.",
    )


class Command(BaseCommand):
    """A command whose results are also to be had as JSON, by an option that `add_json` adds.

    With `--json -` nothing else goes to stdout, so that another program can read it.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        file = options.get("json")
        if file == "-":
            self._json_out = OutputWrapper(options.get("stdout") or sys.stdout)
            options["stdout"] = options.get("stderr") or sys.stderr
        elif file and not Path(file).expanduser().resolve().parent.is_dir():
            # Said before the work, which may take hours.
            raise CommandError(f"--json {file}: there is no such folder. Make it first.")
        return super().execute(*args, **options)

    def write_json(self, file: str | None, figures: Any) -> None:
        if not file:
            return
        text = json.dumps(figures, indent=1)
        if file == "-":
            self._json_out.write(text)
            return
        try:
            Path(file).expanduser().write_text(text + "\n")
        except OSError as error:
            raise CommandError(f"'{file}' cannot be written: {error.strerror}.") from None


class Meter:
    """How far work is, with its rate: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, unit: str = "rows", total: int | None = None) -> None:
        self.unit, self.total, self.done = f" {unit}", total, 0
        self.began = self.said = time.monotonic()
        self.bar = tqdm(
            total=total, unit=self.unit, dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def __call__(self, done: int, total: int | None = None, message: str = "") -> None:
        self.total = self.bar.total = total or self.total
        self.bar.update(done - self.done)
        self.done, now = done, time.monotonic()
        if self.bar.disable and now - self.said >= QUIET_SECONDS:
            self.said = now
            line = tqdm.format_meter(
                done, self.total, now - self.began, ncols=0, unit=self.unit, postfix=message
            )
            print(line.strip(), file=sys.stderr, flush=True)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def progress(items: Iterable[Item], total: int | None = None, unit: str = "rows") -> Iterator[Item]:
    """The items, and on stderr how many there have been."""
    with Meter(unit, total) as meter:
        for number, item in enumerate(items, 1):
            yield item
            meter(number)


class Progress(Protocol):
    """What a verb that may take long is given, so that whoever waits sees it: `progress`."""

    def __call__(
        self, items: Iterable[Item], total: int | None = None, unit: str = "rows"
    ) -> Iterator[Item]: ...


class Report(Protocol):
    rows: int
    refused: list[tuple[str, str]]

    def as_json(self) -> dict[str, Any]: ...


def finish(
    command: Command, report: Report, json_file: str | None, said: str, *, unit: str = "row"
) -> None:
    """The end of an import: the rows refused, the JSON, and what was done, in a sentence.

    Raises CommandError, and so exits with 1, where nothing could be taken.
    """
    for row, reason in report.refused:
        command.stderr.write(f"{row}: {reason}")
    command.write_json(json_file, report.as_json())
    command.stdout.write(said)
    if report.rows == len(report.refused):
        raise CommandError(f"No {unit} could be taken.")
