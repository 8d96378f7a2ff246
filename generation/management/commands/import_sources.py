from typing import Any

from django.core.management.base import CommandError, CommandParser

from generation import console, sources


class Command(console.Command):
    help = (
        "Import sources (image, mask, prompt, tags) of one task from a folder, a .jsonl, .csv or "
        ".parquet file, a saved Hugging Face dataset, or WebDataset tars (also BrushData's: each "
        "mask of a segmentation becomes a source); prompts alone (text to image) also from a .txt "
        "file, one a line, or with the columns width and height. A mask is a picture, white where "
        "it is to be edited, or in numbers: COCO run lengths (column mask or segmentation), "
        "polygons, or boxes [x, y, width, height] (column bbox). The folders of Flow-Factory "
        "(train.jsonl) and Edit-R1 (train_metadata.jsonl) are read as they are. Good rows land, "
        "the others are listed with their reason; running it again changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "path",
            help="In a folder, cat.jpg has its mask in cat_mask.png; of tars, one, a folder of "
            "them, or a pattern: 'shard-{000..012}.tar'.",
        )
        parser.add_argument("--task", required=True, help="Slug of the task, for example fill.")
        parser.add_argument(
            "--project", default="", metavar="SLUG", help="Whose sources they are; default: main."
        )
        parser.add_argument("--prompt", default="", help="For rows that have none of their own.")
        parser.add_argument(
            "--tag",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="Mark every row, for example album=garden; may be given more than once.",
        )
        parser.add_argument(
            "--mask-from",
            choices=["mask", "alpha"],
            default="mask",
            help="alpha: each picture's own alpha channel is its mask; what is transparent is to "
            "be edited, as for OpenAI and in Photoshop. Default: mask.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Check every row, store none.")
        console.add_json(parser, "the report")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = sources.import_sources(
                options["path"],
                sources.task_named(options["task"]),
                prompt=options["prompt"],
                tags=sources.tags_from(options["tag"]),
                mask_from=options["mask_from"],
                dry_run=options["dry_run"],
                project=sources.project_named(options["project"]) if options["project"] else None,
                progress=console.progress,
            )
        except (sources.SourceError, sources.ReadError) as error:
            raise CommandError(str(error)) from None
        would = "would be " if options["dry_run"] else ""
        said = (
            f"{report.rows} rows: {report.created} {would}new, {report.existing} there already, "
            f"{len(report.refused)} refused."
        )
        console.finish(self, report, options["json"], said)
