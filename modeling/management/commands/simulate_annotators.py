import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.models import Campaign, Judgment
from modeling.simulation import NotSimulable, simulate


class Command(BaseCommand):
    help = "Label a campaign of starter scenes with simulated annotators who see the ground truth."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument(
            "--noise", type=float, default=0.05, help="Share of slips (default 0.05)."
        )
        parser.add_argument("--limit", type=int, help="Label at most this many sets.")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--json", metavar="FILE", help="Write the counts to FILE.")

    def handle(self, *args: Any, **options: Any) -> None:
        campaign = find_campaign(options["campaign"])

        def progress(done: int) -> None:
            if done % 20 == 0:
                self.stderr.write(f"{done} sets labelled")

        try:
            labelled = simulate(
                campaign=campaign,
                noise=options["noise"],
                limit=options["limit"],
                seed=options["seed"],
                progress=progress,
            )
        except NotSimulable as error:
            raise CommandError(str(error)) from error
        total = Judgment.objects.current().filter(assignment__item__campaign=campaign).count()
        if options["json"]:
            figures = {"campaign": campaign.name, "sets": labelled, "judgments_in_campaign": total}
            Path(options["json"]).write_text(json.dumps(figures, indent=1))
        self.stdout.write(
            f"Labelled {labelled} sets of '{campaign}'; it holds {total} judgments now."
        )


def find_campaign(name: str) -> Campaign:
    """The campaign with this name, or with this id."""
    found = Campaign.objects.filter(name=name).first()
    if found is None and name.isdigit():
        found = Campaign.objects.filter(pk=int(name)).first()
    if found is None:
        names = ", ".join(f"'{c.name}'" for c in Campaign.objects.all()[:8]) or "none yet"
        raise CommandError(f"There is no campaign '{name}'. Campaigns: {names}.")
    return found
