import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation import datasets
from annotation.models import Campaign, Judgment, JudgmentQuerySet

FORMATS = ("canonical",)


class Command(BaseCommand):
    help = "Write judgments and everything they refer to as a dataset directory."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=FORMATS, default="canonical")
        parser.add_argument("--out", required=True, metavar="DIR", help="A new or empty directory.")
        parser.add_argument(
            "--campaign",
            action="append",
            default=[],
            help="Name or id of a campaign; may be repeated. Default: all.",
        )
        parser.add_argument(
            "--exclude-simulated",
            action="store_true",
            help="Leave out what simulated annotators said.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Count, and write nothing.")
        parser.add_argument("--json", metavar="FILE", help="Write the counts to FILE.")

    def handle(self, *args: Any, **options: Any) -> None:
        judgments = chosen(options["campaign"], without_simulated=options["exclude_simulated"])
        count = judgments.count()
        if not count:
            raise CommandError("There is no judgment to export. Label some sets first.")
        if options["dry_run"]:
            self.stdout.write(f"{count} judgments would be written to {options['out']}.")
            return
        self.stderr.write(f"Writing {count} judgments …")
        try:
            written = datasets.write(options["out"], judgments)
        except datasets.DatasetError as error:
            raise CommandError(str(error)) from error
        figures = {"content_hash": written.content_hash, "counts": written.counts}
        if options["json"]:
            Path(options["json"]).write_text(json.dumps(figures, indent=1) + "\n")
        counts = ", ".join(f"{number} {name}" for name, number in written.counts.items())
        self.stdout.write(f"Wrote {counts} to {options['out']} ({written.content_hash}).")


def chosen(campaigns: list[str], *, without_simulated: bool = False) -> JudgmentQuerySet:
    """The current judgments of these campaigns, or of all."""
    judgments = Judgment.objects.counted(imported=True)
    if campaigns:
        found = [find_campaign(name) for name in campaigns]
        judgments = judgments.filter(assignment__item__campaign__in=found)
    if without_simulated:
        judgments = judgments.filter(assignment__item__campaign__simulated=False)
    return judgments


def find_campaign(name: str) -> Campaign:
    campaign = Campaign.objects.filter(name=name).first()
    if campaign is None and name.isdecimal():
        campaign = Campaign.objects.filter(pk=int(name)).first()
    if campaign is None:
        names = ", ".join(f"“{c}”" for c in Campaign.objects.all()[:8]) or "none yet"
        raise CommandError(f"There is no campaign “{name}”. There are: {names}.")
    return campaign
