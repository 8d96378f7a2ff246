from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from generation import console, policies
from generation.models import Policy


class Command(console.Command):
    help = (
        "Register the weights of a policy: a base in diffusers' Fill pipeline layout, maybe with "
        "another transformer or a LoRA. The files are checked, not loaded; pickles are refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "location",
            nargs="?",
            default="",
            help="Hub id or directory, for example black-forest-labs/FLUX.1-Fill-dev.",
        )
        parser.add_argument("--name", help="Default: the location's last part and what is added.")
        parser.add_argument("--revision", default="", help="Branch, tag or commit on the hub.")
        parser.add_argument(
            "--transformer", default="", help="Hub id or directory that holds the transformer."
        )
        parser.add_argument("--subfolder", default="", help="The transformer's folder there.")
        parser.add_argument(
            "--adapter",
            default="",
            help="LoRA: a directory, a .safetensors file, or OWNER/REPOSITORY/FOLDER on the hub.",
        )
        parser.add_argument("--kind", choices=Policy.Kind.values, default="")
        parser.add_argument("--parent", help="Name of the policy that this one was trained from.")
        parser.add_argument(
            "--max-pixels", type=int, help="Largest working area, for example 1048576 (default)."
        )
        parser.add_argument(
            "--activate", action="store_true", help="Make the next candidates with it."
        )
        console.add_json(parser, "what was registered")

    def handle(self, *args: Any, **options: Any) -> None:
        location = _place(options["location"])
        try:
            with transaction.atomic():
                policy = policies.register(
                    name=options["name"] or _name(location, options),
                    location=location,
                    kind=options["kind"],
                    parent=policies.named(options["parent"]) if options["parent"] else None,
                    revision=options["revision"],
                    transformer=_place(options["transformer"]),
                    subfolder=options["subfolder"],
                    adapter=_place(options["adapter"]),
                    max_pixels=options["max_pixels"],
                )
                if options["activate"]:
                    policies.activate(policy)
        except policies.PolicyError as error:
            raise CommandError(str(error)) from None
        row = {"id": policy.pk, "name": policy.name, "state": policy.state} | policy.spec()
        self.write_json(options["json"], row | {"card": policy.card})
        if "unchecked" in policy.card:
            self.stderr.write(f"Not checked: {policy.card['unchecked']}.")
        self.stdout.write(f"Registered policy “{policy}” ({policy.kind}, {policy.state}).")


def _place(text: str) -> str:
    """A hub id as it is, a path in full: workers run elsewhere than this shell."""
    path = Path(text).expanduser()
    return str(path.resolve()) if text and path.exists() else text


def _name(location: str, options: dict[str, Any]) -> str:
    parts = [location, options["subfolder"] or options["transformer"], options["adapter"]]
    return " + ".join(part.rstrip("/").split("/")[-1] for part in parts if part)
