from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation.models import Judgment
from generation import console
from modeling import evaluation, options, snapshots


class Command(console.Command):
    help = (
        "Measure a reward model on held-out labels: accuracy, prompt swap, position, calibration."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reward", help="Name or number (default: the active one).")
        parser.add_argument(
            "--snapshot", metavar="HASH", help="On this snapshot (default: all labels there are)."
        )
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        model = options.find_reward(given["reward"])
        try:
            snapshot = (
                options.find_snapshot(given["snapshot"])
                if given["snapshot"]
                else snapshots.take(Judgment.objects.counted())
            )
            self.stderr.write(f"Measuring '{model}' on {snapshot}")
            found = evaluation.evaluate_reward(model, snapshot)
        except (snapshots.SnapshotError, evaluation.EvaluationError) as error:
            raise CommandError(str(error)) from error
        options.reward_tables(self.stdout, found.figures)
        self.write_json(
            given["json"],
            {
                "reward_model": model.name,
                "snapshot": snapshot.content_hash,
                "figures": found.figures,
            },
        )
        self.stdout.write(self.style.SUCCESS(f"Stored evaluation {found.pk} of '{model}'."))
