from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from generation import console, sources
from generation.models import Task
from modeling import judging, options, runs, sampling


class Command(console.Command):
    help = (
        "Make sampling plans draw more often what led to informative labels: a best and a worst "
        "picked, and close under the reward model."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--task", help="Slug of a task; all active ones by default.")
        parser.add_argument("--reward", help="Name or number (default: the active one).")
        parser.add_argument(
            "--picked-only", action="store_true", help="Ask no reward model what is close."
        )
        parser.add_argument(
            "--simulated", action="store_true", help="Learn from simulated annotators' labels."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say what would change.")
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        simulated = given["simulated"]
        model = None if given["picked_only"] else options.find_reward(given["reward"])
        try:
            tasks = list(Task.objects.active())
            if given["task"]:
                tasks = [sources.task_named(given["task"])]
            if model is not None:
                with console.Meter("sets") as meter:
                    sampling.measure(tasks, model, simulated=simulated, progress=meter)
        except (sources.SourceError, runs.RunFailed, FileNotFoundError) as error:
            raise CommandError(str(error)) from error
        finally:
            judging.release()
        with transaction.atomic():
            made = sampling.adapt(tasks, simulated=simulated, model=model)
            if given["dry_run"]:
                transaction.set_rollback(True)
        rows = [
            {"task": plan.task.slug, "version": plan.version, "made_by": plan.made_by}
            | {"weights": plan.weights}
            for plan in made
        ]
        for plan in made:
            self.stdout.write(f"{plan}: {plan.made_by}")
            for name, weights in plan.weights.items():
                drawn = zip(getattr(plan, name), weights, strict=True)
                said = ", ".join(f"{value or 'none'} {weight:.0%}" for value, weight in drawn)
                self.stdout.write(f"  {name}: {said}")
        self.write_json(given["json"], {"plans": rows, "dry_run": given["dry_run"]})
        verb = "would change" if given["dry_run"] else "changed"
        self.stdout.write(f"{len(made)} of {len(tasks)} plans {verb}.")
