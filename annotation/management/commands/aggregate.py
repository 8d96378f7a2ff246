from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation import aggregation, campaigns
from annotation.errors import Refused
from annotation.models import Consensus
from generation import console


class Command(console.Command):
    help = "Work out a campaign's consensus with people weighted by their estimated reliability."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        console.add_json(parser, "the figures")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            campaign = campaigns.named(options["campaign"])
        except Refused as error:
            raise CommandError(error.message) from None
        made = aggregation.aggregate(campaign)
        for user, accuracy in sorted(aggregation.reliability_by_person(made).items()):
            self.stdout.write(f"annotator {user:<8} {accuracy:.2f}")
        answers = Consensus.objects.filter(item__campaign=campaign).count()
        figures = {
            "campaign": campaign.name,
            "judgments": made.judgments,
            "answers": answers,
            "reliability": made.reliability,
        }
        self.write_json(options["json"], figures)
        self.stdout.write(
            f"{made.judgments} judgments of '{campaign}' add up to {answers} answers "
            f"({made.seconds} s)."
        )
