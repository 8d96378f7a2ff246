import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from generation import sources


class Command(BaseCommand):
    help = (
        "Import sources (image, mask, prompt, tags) of one task from a folder, a .jsonl, .csv or "
        ".parquet file, or a saved Hugging Face dataset; prompts alone (text to image) also from a "
        ".txt file, one a line, or with the columns width and height. Good rows land, the others "
        "are listed with their reason; running it again changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", help="In a folder, cat.jpg has its mask in cat_mask.png.")
        parser.add_argument("--task", required=True, help="Slug of the task, for example fill.")
        parser.add_argument(
            "--project", default="", metavar="SLUG", help="Whose sources they are; default: main."
        )
        parser.add_argument("--prompt", default="", help="For rows that have none of their own.")
        parser.add_argument(
            "--tag",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Mark every row, for example album=garden; may be given more than once.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Check every row, store none.")
        parser.add_argument("--json", metavar="FILE", help="Write the report to FILE.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = sources.import_sources(
                options["path"],
                sources.task_named(options["task"]),
                prompt=options["prompt"],
                tags=sources.tags_from(options["tag"]),
                dry_run=options["dry_run"],
                project=sources.project_named(options["project"]) if options["project"] else None,
                progress=self._progress,
            )
        except (sources.SourceError, sources.ReadError) as error:
            raise CommandError(str(error)) from None
        for row, reason in report.refused:
            self.stderr.write(f"{row}: {reason}")
        if options["json"]:
            Path(options["json"]).write_text(json.dumps(report.as_json(), indent=1))
        would = "would be " if options["dry_run"] else ""
        self.stdout.write(
            f"{report.rows} rows: {report.created} {would}new, {report.existing} there already, "
            f"{len(report.refused)} refused."
        )
        if report.rows == len(report.refused):
            raise CommandError("No row could be taken.")

    def _progress(self, report: sources.Report) -> None:
        if report.rows % 100 == 0:
            self.stderr.write(f"{report.rows} rows read")
