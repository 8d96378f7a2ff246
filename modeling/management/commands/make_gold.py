from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation import gold
from annotation.errors import Refused
from annotation.models import Dimension, Gold
from generation import console
from modeling.known_answers import from_truth
from modeling.options import find_campaign
from modeling.simulation import NotSimulable


class Command(console.Command):
    help = "Make known answers from what people agree on, or from the starter world's ground truth."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument("--from", dest="origin", required=True, choices=["consensus", "truth"])
        parser.add_argument(
            "--min-annotators",
            type=int,
            default=3,
            help="People who must have given the same answer, for consensus (default 3).",
        )
        parser.add_argument("--limit", type=int, help="Take at most this many sets.")
        parser.add_argument("--practice", action="store_true", help="For practice, not checking.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be made.")
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        campaign = find_campaign(options["campaign"])
        try:
            if options["origin"] == "truth":
                found = from_truth(campaign, limit=options["limit"])
            else:
                found = gold.unanimous(
                    campaign, min_annotators=options["min_annotators"], limit=options["limit"]
                )
        except (Refused, NotSimulable) as error:
            raise CommandError(str(error)) from error
        made = len(found)
        if not options["dry_run"]:
            made = gold.keep(
                found, origin=Gold.Origin(options["origin"]), practice=options["practice"]
            )
        slugs = dict(Dimension.objects.values_list("pk", "slug"))
        by_dimension = Counter(slugs[known.dimension] for known in found)
        for slug, n in sorted(by_dimension.items()):
            self.stdout.write(f"{slug:24} {n}")
        figures = {
            "campaign": campaign.name,
            "from": options["origin"],
            "sets": len({known.set for known in found}),
            "answers": made,
            "attention": sum(known.attention for known in found),
            "dimensions": dict(by_dimension),
            "dry_run": options["dry_run"],
        }
        self.write_json(options["json"], figures)
        verb = "Would make" if options["dry_run"] else "Made"
        self.stdout.write(
            f"{verb} {made} known answers on {figures['sets']} sets of '{campaign}', "
            f"{figures['attention']} of them attention checks."
        )
