from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console
from modeling import export, options


class Command(console.Command):
    help = (
        "Write a policy's weights for diffusers or ComfyUI, with a model card: its LoRA, or the "
        "whole transformer where it has none or with --merged."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("policy", help="Name or number.")
        parser.add_argument("--out", required=True, metavar="DIR", help="A new directory.")
        parser.add_argument("--format", choices=export.FORMATS, default=export.FORMATS[0])
        parser.add_argument(
            "--merged", action="store_true", help="Merge the LoRA into the whole transformer."
        )
        parser.add_argument(
            "--dtype",
            choices=export.DTYPES,
            default="",
            help="Default: a LoRA as it is, a transformer in bfloat16.",
        )
        parser.add_argument(
            "--licence", default="", help="Hub identifier for the card, for example cc-by-nc-4.0."
        )
        parser.add_argument(
            "--no-samples",
            action="store_true",
            help="Leave out the picture of samples, which shows some of your sources.",
        )
        console.add_json(parser, "the files' names")

    def handle(self, *args: Any, **given: Any) -> None:
        policy = options.find_policy(given["policy"])
        out = Path(given["out"]).expanduser()
        try:
            names = export.export_policy(
                policy,
                out,
                form=given["format"],
                merged=given["merged"],
                dtype=given["dtype"],
                licence=given["licence"],
                samples=not given["no_samples"],
            )
        except export.ExportError as error:
            raise CommandError(str(error)) from error
        self.write_json(given["json"], {"out": str(out), "files": list(names)})
        self.stdout.write(self.style.SUCCESS(f"Wrote {', '.join(names)} to {out}."))
