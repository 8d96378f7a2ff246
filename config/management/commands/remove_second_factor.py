from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import second_factor


class Command(BaseCommand):
    help = "Let somebody log in without their second factor, whose phone and codes are lost."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="Who it is, by username.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["name"]).first()
        if user is None:
            raise CommandError(f"Nobody is called {options['name']!r}.")
        if second_factor.of(user) is None:
            raise CommandError(f"{user} has no second factor.")
        second_factor.turn_off(user, actor=None)
        self.stdout.write(f"{user} logs in with the password alone until they set a new one up.")
