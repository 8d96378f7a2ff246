from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console, external, sources
from generation.models import Project, default_project


class Command(console.Command):
    help = (
        "Import what a system outside (Ideogram, Photoshop, …) made of your sources as its "
        "candidates: a folder whose files are named after the sources' external ids, or a .jsonl, "
        ".csv or .parquet table with the columns file_name and source. Comparisons and ratings "
        "then show them blind beside others. Running it again changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", help="cat.png is an edit of the source imported as cat.jpg.")
        parser.add_argument("--system", required=True, metavar="NAME", help="Who made them.")
        parser.add_argument("--task", default="", help="Slug, where sources of several share ids.")
        parser.add_argument("--project", default="", metavar="SLUG", help="Default: main.")
        parser.add_argument("--dry-run", action="store_true", help="Check every row, store none.")
        console.add_json(parser, "the report")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = external.import_candidates(
                options["path"],
                system=options["system"],
                task=sources.task_named(options["task"]) if options["task"] else None,
                project=(
                    sources.project_named(options["project"])
                    if options["project"]
                    else Project.objects.get(pk=default_project())
                ),
                dry_run=options["dry_run"],
                progress=console.progress,
            )
        except (sources.SourceError, sources.ReadError) as error:
            raise CommandError(str(error)) from None
        would = "would be " if options["dry_run"] else ""
        said = (
            f"{report.rows} pictures of {options['system']}: {report.created} {would}new, "
            f"{report.existing} there already, {len(report.refused)} refused."
        )
        console.finish(self, report, options["json"], said, unit="picture")
