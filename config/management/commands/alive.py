"""Says by its exit status whether the worker or the clock of this machine is alive."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from config.alive import KINDS, SECONDS, complaint
from generation import console


class Command(console.Command):
    help = __doc__ or ""
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kind", choices=KINDS)
        parser.add_argument("--name", default="", help="Of one worker, e.g. gpu@machine.")
        parser.add_argument(
            "--seconds", type=float, default=SECONDS, help="How long it may be silent."
        )
        console.add_json(parser, "the answer")

    def handle(self, *args: Any, kind: str, name: str, seconds: float, **options: Any) -> None:
        said = complaint(Path(settings.DATA_DIR), kind, name, seconds)
        self.write_json(options["json"], {"alive": not said, "complaint": said})
        if said:
            raise CommandError(said)
        self.stdout.write(f"The {kind} is alive.")
