from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console
from generation.readers import ReadError
from modeling import published
from modeling.models import Study


class Command(console.Command):
    help = (
        "Import published figures into a study: a .csv or .jsonl with the columns system, task, "
        "metric (usable, mos, success, reward_accuracy, good, same, bad), value and, where known, "
        "n, dimension, versus and citation. Shares are in per cent. Those of the OneReward paper "
        "lie in modeling/published/onereward.csv."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path")
        parser.add_argument("--study", required=True, metavar="NAME", help="Made if it is new.")
        parser.add_argument("--dry-run", action="store_true", help="Check every row, store none.")
        console.add_json(parser, "the report")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            records = published.from_path(options["path"])
            found = Study.objects.filter(name=options["study"]).first()
            made = found is None
            study = found or Study.objects.create(name=options["study"])
            report = published.import_figures(study, records, dry_run=options["dry_run"])
            if made and (options["dry_run"] or not report.created):
                study.delete()
        except ReadError as error:
            raise CommandError(str(error)) from None
        would = "would be " if options["dry_run"] else ""
        said = (
            f"{report.rows} figures: {report.created} {would}new, {report.changed} changed, "
            f"{report.same} as before, {len(report.refused)} refused."
        )
        console.finish(self, report, options["json"], said, unit="figure")
