from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser

from config import erasure
from generation import console


class Command(console.Command):
    help = "Erase a person: name, address and sign-ins go, what they judged stays under a number."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="Who it is, by username.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what it would do.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        console.add_json(parser, "the numbers")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["name"]).first()
        if user is None:
            raise CommandError(f"Nobody is called {options['name']!r}.")
        plan = erasure.plan(user)
        for name, count in plan.items():
            self.stdout.write(f"{count:8,}  {name}")
        if options["dry_run"]:
            self.stdout.write("Nothing was changed.")
        elif options["yes"] or input(f"Write {user}, to erase for good: ") == str(user):
            name = str(user)
            try:
                plan = erasure.erase(user, actor=None)
            except erasure.ErasureError as error:
                raise CommandError(str(error)) from None
            self.stdout.write(f"{name} is {erasure.name_of(user)} now.")
        else:
            raise CommandError("That is another name. Nothing was changed.")
        self.write_json(options["json"], plan)
