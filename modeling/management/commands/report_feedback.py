from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console
from generation.models import Project
from generation.sources import SourceError, project_named
from modeling import options
from modeling.feedback_report import report
from modeling.statistics import Interval


class Command(console.Command):
    help = "What production says of the policies, and how far it agrees with people's judgments."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", metavar="SLUG", help="Of this project (default: of all).")
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        projects = Project.objects.all()
        if given["project"]:
            try:
                projects = projects.filter(pk=project_named(given["project"]).pk)
            except SourceError as error:
                raise CommandError(str(error)) from error
        found = report(projects)
        options.print_table(
            self.stdout,
            ["policy", "events", "accepted", "median seconds", "value"],
            [
                [
                    row.policy,
                    str(row.events),
                    _share(row.accepted),
                    "–" if row.completion is None else f"{row.completion.value:.0f}",
                    f"{row.value:g}",
                ]
                for row in found.policies
            ],
        )
        options.print_table(
            self.stdout,
            ["dimension", "agrees with people"],
            [[row.dimension, _share(row.agreed)] for row in found.agreement],
        )
        self.write_json(given["json"], found.as_json())
        self.stdout.write(
            self.style.SUCCESS(f"{found.events} events imply {found.preferences} preferences.")
        )


def _share(found: Interval) -> str:
    return f"{found.value:.0%} ({found.low:.0%} … {found.high:.0%}, n = {found.n})"
