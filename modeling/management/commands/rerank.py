from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console, images
from generation.models import Source
from generation.sources import SourceError, task_named
from modeling import judging, options, runs


class Command(console.Command):
    help = "Order pictures of one source from best to worst with the reward model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--task", required=True, help="The task's slug, e.g. fill.")
        parser.add_argument(
            "--source", required=True, help="The source's number or external id in that task."
        )
        parser.add_argument("--reward", help="Name or number (default: the active one).")
        parser.add_argument(
            "--member",
            action="append",
            default=[],
            help="Another reward model, a LoRA on the same base, to judge along; repeatable.",
        )
        parser.add_argument(
            "--caution",
            type=float,
            default=0.0,
            help="Order by the score less so many standard deviations over the members.",
        )
        parser.add_argument("images", nargs="+", metavar="IMAGE", help="Edited pictures.")
        console.add_json(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        source = self._source(given["task"], given["source"])
        model = options.find_reward(given["reward"])
        try:
            others = [options.find_reward(name) for name in given["member"]]
            for judge in (model, *others):
                runs.check_reward(judge)
            pictures = [images.decode(Path(name), name=name) for name in given["images"]]
            ranking = judging.rank(model, source, pictures, others=others, caution=given["caution"])
        except (
            runs.RunFailed,
            images.ImageError,
            judging.JudgeError,
            ValueError,
            FileNotFoundError,
        ) as error:
            raise CommandError(str(error)) from error
        for row in ranking:
            row["image"] = given["images"][row["index"]]
        dimensions = list(ranking[0]["dimensions"])
        options.print_table(
            self.stdout,
            ["image", "score", *dimensions],
            [
                [
                    row["image"],
                    f"{row['score']:+.2f}",
                    *(
                        f"{row['dimensions'][name]:+.2f}"
                        + (f" ± {row['std'][name]:.2f}" if others else "")
                        for name in dimensions
                    ),
                ]
                for row in ranking
            ],
        )
        figures = {"task": given["task"], "source": source.pk, "reward_model": model.name}
        self.write_json(given["json"], {**figures, "ranking": ranking})
        self.stdout.write(
            self.style.SUCCESS(f"Ranked {len(ranking)} pictures; best: {ranking[0]['image']}.")
        )

    def _source(self, slug: str, name: str) -> Source:
        try:
            task = task_named(slug)
        except SourceError as error:
            raise CommandError(str(error)) from None
        sources = Source.objects.filter(task=task).select_related("task", "image", "mask")
        source = sources.filter(external_id=name).first()
        if source is None and name.isdecimal():
            source = sources.filter(pk=int(name)).first()
        if source is None:
            raise CommandError(f"{task} has no source '{name}'.")
        return source
