from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console
from modeling import export, options


class Command(console.Command):
    help = "Write a reward model's weights and its model card to a new directory."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="Name or number.")
        parser.add_argument("--out", required=True, metavar="DIR", help="A new directory.")
        parser.add_argument(
            "--licence", default="", help="Hub identifier for the card, for example apache-2.0."
        )
        console.add_json(parser, "the files' names")

    def handle(self, *args: Any, **given: Any) -> None:
        model = options.find_reward(given["model"])
        out = Path(given["out"]).expanduser()
        try:
            names = export.export_reward(model, out, licence=given["licence"])
        except export.ExportError as error:
            raise CommandError(str(error)) from error
        self.write_json(given["json"], {"out": str(out), "files": list(names)})
        self.stdout.write(self.style.SUCCESS(f"Wrote {', '.join(names)} to {out}."))
