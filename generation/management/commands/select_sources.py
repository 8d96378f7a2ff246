from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console, embeddings, sources
from generation.models import Source, Split


class Command(console.Command):
    help = (
        "Choose sources that stand for all: CLIP embeddings, K-means, the one nearest each centre. "
        "With --mark they get a tag that generate_candidates --tag takes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--count", type=int, required=True, help="How many to choose.")
        parser.add_argument("--task", help="Slug of a task; all active tasks together by default.")
        parser.add_argument("--project", metavar="SLUG", help="Of this project (default: of all).")
        parser.add_argument(
            "--split",
            choices=[*Split.values, "any"],
            default=Split.TRAIN,
            help="Which sources to choose from (default train).",
        )
        parser.add_argument(
            "--tag",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Choose only from sources that carry this tag.",
        )
        parser.add_argument(
            "--model",
            default=embeddings.CLIP,
            help=f"CLIP model: hub id or directory (default {embeddings.CLIP}).",
        )
        parser.add_argument("--seed", type=int, default=0, help="Of K-means' first centres.")
        parser.add_argument(
            "--mark",
            metavar="NAME=VALUE",
            help="Give the chosen ones this tag, and take it from the others that could be chosen.",
        )
        console.add_json(parser, "what was chosen")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["count"] < 1:
            raise CommandError("--count must be at least 1.")
        try:
            rows = _rows(options)
            mark = sources.tags_from([options["mark"]]) if options["mark"] else {}
            if not rows:
                raise CommandError("No usable source fits. Import some with import_sources.")
            with console.Meter("pictures") as meter:
                vectors = embeddings.embed(
                    [row.image for row in rows], options["model"], progress=meter
                )
        except (sources.SourceError, embeddings.EmbeddingError) as error:
            raise CommandError(str(error)) from None
        chosen = [
            rows[place]
            for place in embeddings.representatives(vectors, options["count"], seed=options["seed"])
        ]
        if mark:
            sources.mark(chosen, mark, among=rows)
        said = [{"id": row.pk, "task": row.task.slug, "image": row.image.sha256} for row in chosen]
        self.write_json(
            options["json"], {"of": len(rows), "model": options["model"], "sources": said}
        )
        for row in said:
            self.stdout.write(f"{row['id']}  {row['task']}")
        self.stdout.write(f"Chose {len(chosen)} of {len(rows)} sources.")


def _rows(options: dict[str, Any]) -> list[Source]:
    found = Source.objects.usable().filter(
        task__active=True, task__needs_source=True, tags__contains=sources.tags_from(options["tag"])
    )
    if options["task"]:
        found = found.filter(task=sources.task_named(options["task"]))
    if options["project"]:
        found = found.filter(project=sources.project_named(options["project"]))
    if options["split"] != "any":
        found = found.filter(split=options["split"])
    return list(found.select_related("task", "image").order_by("pk"))
