from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from generation.models import CandidateSet
from modeling import information, judging, options, runs
from modeling.management.commands.simulate_annotators import find_campaign


class Command(BaseCommand):
    help = (
        "Hand out first those sets of a campaign whose labels are expected to say most: the reward "
        "model's margins are small, change with the order, or differ among its siblings."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument("--count", type=int, required=True, help="How many come first.")
        parser.add_argument("--reward", help="Name or number (default: the active one).")
        options.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        if given["count"] < 1:
            raise CommandError("--count must be at least 1.")
        campaign = find_campaign(given["campaign"])
        model = options.find_reward(given["reward"])
        waiting = CandidateSet.objects.ready().filter(
            pk__in=campaign.items.filter(full=False).values("set")
        )
        try:
            sets = waiting.select_related("source__task").order_by("pk")
            information.measure(model, sets, progress=self._tell)
        except (runs.RunFailed, FileNotFoundError) as error:
            raise CommandError(str(error)) from error
        finally:
            judging.release()
        chosen = information.prioritise(campaign, model, count=given["count"])
        rows = [{"set": pk, "bits": round(bits, 4)} for pk, bits in chosen]
        options.print_table(
            self.stdout, ["set", "bits"], [[str(row["set"]), f"{row['bits']:.3f}"] for row in rows]
        )
        options.write_figures(given, {"campaign": campaign.name, "sets": rows})
        self.stdout.write(f"{len(rows)} sets of “{campaign}” come first.")

    def _tell(self, done: int, total: int) -> None:
        if done % 40 == 0 or done == total:
            self.stderr.write(f"{done} of {total} sets scored")
