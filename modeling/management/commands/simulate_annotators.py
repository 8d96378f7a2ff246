from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation.models import Judgment
from generation import console
from modeling.options import find_campaign
from modeling.simulation import NotSimulable, simulate


class Command(console.Command):
    help = "Label a campaign of starter scenes with simulated annotators who see the ground truth."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument(
            "--noise", type=float, default=0.05, help="Share of slips (default 0.05)."
        )
        parser.add_argument("--limit", type=int, help="Label at most this many sets.")
        parser.add_argument("--seed", type=int, default=0, help="Of the slips (default 0).")
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        campaign = find_campaign(options["campaign"])

        try:
            with console.Meter("sets", options["limit"]) as meter:
                labelled = simulate(
                    campaign=campaign,
                    noise=options["noise"],
                    limit=options["limit"],
                    seed=options["seed"],
                    progress=meter,
                )
        except NotSimulable as error:
            raise CommandError(str(error)) from error
        total = Judgment.objects.current().filter(assignment__item__campaign=campaign).count()
        figures = {"campaign": campaign.name, "sets": labelled, "judgments_in_campaign": total}
        self.write_json(options["json"], figures)
        self.stdout.write(
            f"Labelled {labelled} sets of '{campaign}'; it holds {total} judgments now."
        )
