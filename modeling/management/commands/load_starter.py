from typing import Any

from django.core.management.base import CommandParser

from generation import candidates, console
from modeling import starter_project


class Command(console.Command):
    help = "Load the starter project: sources, policy, reward model, a campaign, demo users."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--sets", type=int, default=8, help="Candidate sets per task to begin with (default 8)."
        )
        parser.add_argument(
            "--queue", action="store_true", help="Let the gpu worker make the candidates."
        )
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        loaded = starter_project.load(
            sets_per_task=options["sets"], progress=lambda line: self.stderr.write(line)
        )
        if loaded.run is not None:
            if options["queue"]:
                candidates.ring(loaded.run)
            else:
                candidates.make(loaded.run)
        ready = loaded.campaign.sets.ready().count()
        figures = {
            "sources": loaded.sources,
            "new_sources": loaded.new_sources,
            "policy": loaded.policy.name,
            "reward_model": loaded.reward_model.name,
            "campaign": loaded.campaign.name,
            "sets_ready": ready,
        }
        self.write_json(options["json"], figures)
        self.stdout.write(
            f"Starter project: {loaded.sources} sources ({loaded.new_sources} new), policy "
            f"'{loaded.policy}', reward model '{loaded.reward_model}', campaign "
            f"'{loaded.campaign}' with {loaded.campaign.items.count()} sets, {ready} ready. "
            f"Users {', '.join(starter_project.PEOPLE)} log in with "
            f"'{starter_project.PASSWORD}'."
        )
