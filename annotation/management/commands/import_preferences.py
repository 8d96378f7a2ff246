from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation import importing
from annotation.errors import DatasetError
from annotation.formats import CANONICAL, FORMATS
from annotation.formats.checks import DIMENSION
from annotation.restore import import_canonical
from generation import console, sources
from generation.models import Project, default_project


class Command(console.Command):
    help = (
        "Import other people's preferences as a closed campaign of their own. No reward model "
        "learns from them unless asked to (train_reward --imported). With --format canonical a "
        "dataset of export_dataset comes back as the rows that it was made of."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", help="A file of the format, or a folder of such files.")
        parser.add_argument("--format", required=True, choices=[CANONICAL, *sorted(FORMATS)])
        parser.add_argument(
            "--task", default="", help="The task that the pictures belong to; not for canonical."
        )
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
        if given["format"] == CANONICAL:
            self._restore(given)
            return
        if not given["task"]:
            raise CommandError("Say which task the pictures belong to: --task fill.")
        plain = [one for one in given["dimension"] if "=" not in one]
        if len(plain) > 1:
            raise CommandError(
                "Name one --dimension for rows without one; others read THEIRS=OURS."
            )
        try:
            report = importing.import_preferences(
                given["path"],
                format=given["format"],
                task=sources.task_named(given["task"]),
                project=_project(given["project"]),
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

    def _restore(self, given: dict[str, Any]) -> None:
        if given["task"] or given["dimension"]:
            raise CommandError(
                "A canonical dataset says itself what its rows are about: leave out --task and "
                "--dimension."
            )
        try:
            report = import_canonical(
                given["path"],
                name=given["name"] or None,
                project=_project(given["project"]),
                dry_run=given["dry_run"],
                progress=console.progress,
            )
        except (DatasetError, sources.SourceError) as error:
            raise CommandError(str(error)) from None
        for note in report.notes:
            self.stderr.write(note)
        would = "would be " if given["dry_run"] else ""
        tables = ", ".join(f"{n['created']} {table}" for table, n in report.tables.items())
        said = (
            f"{report.rows} rows: {report.created} {would}new ({tables}), {report.existing} there "
            f"already, {len(report.refused)} refused."
        )
        console.finish(self, report, given["json"], said)


def _project(slug: str | None) -> Project:
    if slug:
        return sources.project_named(slug)
    return Project.objects.get(pk=default_project())
