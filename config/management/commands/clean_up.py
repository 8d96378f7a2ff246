from typing import Any

from django.core.management.base import CommandParser

from config import retention
from generation import console


class Command(console.Command):
    help = "Take away what is kept no longer, by the RETAIN_ settings; a job does so once a day."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what it would do.")
        console.add_json(parser, "the numbers")

    def handle(self, *args: Any, **options: Any) -> None:
        found = retention.clean_up(dry_run=options["dry_run"])
        for name, count in found.items():
            self.stdout.write(f"{count:8,}  {name}")
        self.stdout.write("Nothing was changed." if options["dry_run"] else "Taken away.")
        self.write_json(options["json"], found)
