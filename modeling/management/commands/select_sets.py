from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console, embeddings
from generation.models import CandidateSet
from modeling import information, judging, options, runs

REFUSALS = (runs.RunFailed, judging.JudgeError, embeddings.EmbeddingError)


class Command(console.Command):
    help = (
        "Hand out first those sets of a campaign whose labels are expected to say most: the reward "
        "model's margins are small, change with the order, or differ among its siblings."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="Name or id of the campaign.")
        parser.add_argument("--count", type=int, required=True, help="How many come first.")
        parser.add_argument("--reward", help="Name or number (default: the active one).")
        parser.add_argument(
            "--member",
            action="append",
            default=[],
            metavar="NAME",
            help="Another reward model that judges with it, a LoRA on the same base; may repeat.",
        )
        parser.add_argument(
            "--diverse",
            action="store_true",
            help="Of the most informative sets take such whose source pictures differ.",
        )
        parser.add_argument(
            "--clip",
            default=embeddings.CLIP,
            help=f"CLIP model for --diverse: hub id or directory (default {embeddings.CLIP}).",
        )
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        if given["count"] < 1:
            raise CommandError("--count must be at least 1.")
        campaign = options.find_campaign(given["campaign"])
        model = options.find_reward(given["reward"])
        others = [options.find_reward(name) for name in given["member"]]
        clusters = information.by_picture(given["clip"]) if given["diverse"] else None
        waiting = CandidateSet.objects.ready().filter(
            pk__in=campaign.items.filter(full=False).values("set")
        )
        try:
            sets = waiting.select_related("source__task").order_by("pk")
            with console.Meter("sets") as meter:
                information.measure(model, sets, progress=meter, others=others)
            chosen = information.prioritise(
                campaign, model, count=given["count"], clusters=clusters
            )
        except (*REFUSALS, FileNotFoundError) as error:
            raise CommandError(str(error)) from error
        finally:
            judging.release()
        rows = [{"set": pk, "bits": round(bits, 4)} for pk, bits in chosen]
        options.print_table(
            self.stdout, ["set", "bits"], [[str(row["set"]), f"{row['bits']:.3f}"] for row in rows]
        )
        self.write_json(given["json"], {"campaign": campaign.name, "sets": rows})
        self.stdout.write(f"{len(rows)} sets of “{campaign}” come first.")
