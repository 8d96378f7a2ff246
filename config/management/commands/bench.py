import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.bench import figures

# What would lead a process to the user's own data.
OTHERS = {
    *("DATABASE_URL", "CELERY_BROKER_URL", "MEDIA_ROOT", "MEDIA_BACKEND", "S3_BUCKET", "PORT"),
    "ONELOOP_ENV",  # a production site answers over TLS alone
}


class Command(BaseCommand):
    help = (
        "Measure what labelling and training cost, on a site, databases and runs of its own that "
        "are thrown away afterwards. Takes some minutes; other work on the machine makes the "
        "figures worse."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--json", metavar="FILE", default="bench.json", help="Default bench.json."
        )
        parser.add_argument("--only", nargs="*", default=[], metavar="KEY", help="These keys.")
        parser.add_argument("--seconds", type=float, default=8.0, help="Of each load (default 8).")
        parser.add_argument("--items", type=int, default=20_000, help="Judged over HTTP.")
        parser.add_argument("--small", type=int, default=1_000, help="Items of the small campaign.")
        parser.add_argument("--large", type=int, default=1_000_000, help="… of the large one.")
        parser.add_argument("--rounds", type=int, default=100, help="Claims per stage and side.")
        parser.add_argument("--answers", type=int, default=1_000_000, help="Of the large export.")
        parser.add_argument("--repeats", type=int, default=3, help="Of each training step.")

    def handle(self, *args: Any, **options: Any) -> None:
        unknown = [key for key in options["only"] if key not in figures.FIGURES]
        if unknown:
            raise CommandError(
                f"There is no figure {', '.join(unknown)}. There are: {', '.join(figures.FIGURES)}."
            )
        sizes = ("seconds", "items", "small", "large", "rounds", "repeats", "answers")
        orders = {name: options[name] for name in sizes}
        found = self._measure(orders | {"groups": figures.groups(options["only"])})
        if options["only"]:
            found = {key: value for key, value in found.items() if key in options["only"]}
        figures.write(found, Path(options["json"]))
        for line in figures.table(found):
            self.stdout.write(line)
        self.stdout.write(f"{len(found)} figures, written to {options['json']}")

    def _measure(self, orders: dict[str, Any]) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="oneloop-bench-") as folder:
            into = Path(folder) / "found.json"
            environment = {k: v for k, v in os.environ.items() if k not in OTHERS}
            environment["ONELOOP_DATA"] = str(Path(folder) / "data")
            command = [sys.executable, "-m", "config.bench", json.dumps(orders), str(into)]
            if subprocess.run(command, cwd=settings.BASE_DIR, env=environment).returncode != 0:
                raise CommandError("The measurement failed; what went wrong stands above.")
            found: dict[str, float] = json.loads(into.read_text())
        return found
