from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation import importing
from annotation.formats import FORMATS
from annotation.formats.checks import DIMENSION
from generation import console, sources
from generation.models import Project, default_project


class Command(console.Command):
    help = (
        "Import other people's preferences as a closed campaign of their own. No reward model "
        "learns from them unless asked to (train_reward --imported)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", help="A file of the format, or a folder of such files.")
        parser.add_argument("--format", required=True, choices=sorted(FORMATS))
        parser.add_argument("--task", required=True, help="The task that the pictures belong to.")
        parser.add_argument(
            "--dimension",
            action="append",
            default=[],
            metavar="D",
            help="What rows are about that name no dimension (default: their folder's name, or "
            f"{DIMENSION}); THEIRS=OURS says what a name of theirs means. Repeatable.",
        )
        parser.add_argument(
            "--name", default="", help="Of the campaign (default: format and file)."
        )
        parser.add_argument(
            "--project", metavar="SLUG", help="Project that they go into (default: the first)."
        )
        parser.add_argument("--dry-run", action="store_true", help="Check all, store nothing.")
        console.add_json(parser, "the report")

    def handle(self, *args: Any, **given: Any) -> None:
        plain = [one for one in given["dimension"] if "=" not in one]
        if len(plain) > 1:
            raise CommandError(
                "Name one --dimension for rows without one; others read THEIRS=OURS."
            )
        try:
            slug = given["project"]
            report = importing.import_preferences(
                given["path"],
                format=given["format"],
                task=sources.task_named(given["task"]),
                project=sources.project_named(slug)
                if slug
                else Project.objects.get(pk=default_project()),
                name=given["name"],
                dimension=plain[0] if plain else "",
                called=dict(one.split("=", 1) for one in given["dimension"] if "=" in one),
                dry_run=given["dry_run"],
                progress=console.progress,
            )
        except (sources.ReadError, sources.SourceError, importing.ImportRefused) as error:
            raise CommandError(str(error)) from error
        would = "would be " if given["dry_run"] else ""
        said = (
            f"{report.rows} rows of “{report.campaign}”: {report.created} {would}imported "
            f"({report.judgments} judgments), {report.existing} known already, "
            f"{len(report.refused)} refused."
        )
        console.finish(self, report, given["json"], said)
