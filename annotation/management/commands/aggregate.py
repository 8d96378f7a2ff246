import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation import aggregation
from annotation.models import Campaign, Consensus


class Command(BaseCommand):
    help = "Work out a campaign's consensus with people weighted by their estimated reliability."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument("--json", metavar="FILE", help="Write the figures to FILE.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["campaign"]
        campaign = Campaign.objects.filter(name=name).first()
        if campaign is None and name.isdecimal():
            campaign = Campaign.objects.filter(pk=int(name)).first()
        if campaign is None:
            raise CommandError(f"There is no campaign '{name}'. /campaigns/ lists them.")
        made = aggregation.aggregate(campaign)
        for user, accuracy in sorted(aggregation.reliability_by_person(made).items()):
            self.stdout.write(f"annotator {user:<8} {accuracy:.2f}")
        answers = Consensus.objects.filter(item__campaign=campaign).count()
        if options["json"]:
            figures = {
                "campaign": campaign.name,
                "judgments": made.judgments,
                "answers": answers,
                "reliability": made.reliability,
            }
            Path(options["json"]).write_text(json.dumps(figures, indent=1))
        self.stdout.write(
            f"{made.judgments} judgments of '{campaign}' add up to {answers} answers "
            f"({made.seconds} s)."
        )
