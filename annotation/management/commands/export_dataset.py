from datetime import date, datetime
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from annotation import datasets, formats
from annotation.dataset_files import FILES, NO_PICTURES, PARQUET, WEBDATASET
from annotation.exports import Origin, Selection
from annotation.formats import CANONICAL
from generation import console
from generation.models import Split

FORMATS = (CANONICAL, *formats.FORMATS)
MIN_SIDE = 8


class Command(console.Command):
    help = (
        "Write judgments, ratings and all they refer to as a dataset directory. Where it was "
        "interrupted the same command goes on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=FORMATS, default=CANONICAL)
        parser.add_argument("--out", required=True, metavar="DIR", help="A new or empty directory.")
        self._add_selection(parser)
        parser.add_argument(
            "--salt",
            default=datasets.FRESH,
            metavar="TEXT",
            help="Gives people the same pseudonyms in every dataset with it. Default: a new one.",
        )
        parser.add_argument(
            "--images", choices=[FILES, NO_PICTURES, PARQUET, WEBDATASET], default=FILES
        )
        parser.add_argument(
            "--max-side", type=int, metavar="PIXELS", help="Make larger pictures smaller."
        )
        parser.add_argument("--dry-run", action="store_true", help="Count, and write nothing.")
        console.add_json(parser, "content hash and counts")

    def _add_selection(self, parser: CommandParser) -> None:
        for name, says in (
            ("campaign", "Name or id of a campaign"),
            ("task", "Slug of a task"),
            ("dimension", "Slug of a dimension, or “usable” for ratings of that"),
            ("project", "Slug of a project"),
        ):
            parser.add_argument(
                f"--{name}",
                action="append",
                default=[],
                metavar="NAME" if name == "campaign" else "SLUG",
                help=f"{says}; may be repeated.",
            )
        parser.add_argument("--split", action="append", default=[], choices=Split.values)
        parser.add_argument("--origin", action="append", default=[], choices=list(Origin))
        for name, says in (("since", "From"), ("until", "To")):
            parser.add_argument(
                f"--{name}", type=_when, metavar="DATE", help=f"{says} this day or moment (ISO)."
            )
        parser.add_argument(
            "--min-agreement",
            type=float,
            metavar="SHARE",
            help="Of the people asked the same, this share named the same best.",
        )
        parser.add_argument(
            "--exclude-simulated",
            action="store_true",
            help="Leave out what simulated annotators said.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._export(options)
        except datasets.DatasetError as error:
            raise CommandError(str(error)) from error

    def _export(self, options: dict[str, Any]) -> None:
        chosen = selection(options)
        judgments, ratings = chosen.judgments(), chosen.ratings()
        if options["max_side"] is not None and options["max_side"] < MIN_SIDE:
            raise CommandError(f"--max-side takes at least {MIN_SIDE} pixels.")
        if not (judgments.exists() or ratings.exists()):
            raise CommandError("There is no judgment to export. Label some sets first.")
        if options["dry_run"]:
            count = judgments.count() + ratings.count()
            self.stdout.write(f"{count} judgments and ratings would be written.")
            return
        foreign = options["format"] != CANONICAL
        if foreign and options["images"] != FILES:
            raise CommandError(f"{options['format']} says itself where pictures are: no --images.")
        with console.Meter("answers") as meter:
            write = partial(
                datasets.write,
                judgments=judgments,
                ratings=ratings,
                salt=options["salt"],
                pictures=datasets.Pictures(options["images"], options["max_side"]),
                resumable=not foreign,
                progress=lambda count: meter(meter.done + count),
            )
            if foreign:
                made = formats.export(write, options["out"], options["format"])
            else:
                written = write(options["out"])
        if foreign:
            self._say_losses(made, options)
        else:
            self._say(written, options)

    def _say_losses(self, made: formats.Converted, options: dict[str, Any]) -> None:
        self.write_json(options["json"], {"files": made.files, "losses": made.losses})
        self.stdout.write(f"Wrote {made.files} files to {options['out']}.")
        for line in made.said():
            self.stdout.write(line)

    def _say(self, written: datasets.Written, options: dict[str, Any]) -> None:
        if written.began_anew:
            self.stderr.write(
                "What an earlier attempt had written has changed since, so it began anew."
            )
        elif written.resumed:
            self.stderr.write(f"{written.resumed} were there from an earlier attempt.")
        figures = {"content_hash": written.content_hash, "counts": written.counts}
        self.write_json(options["json"], figures)
        counts = ", ".join(f"{number} {name}" for name, number in written.counts.items())
        self.stdout.write(f"Wrote {counts} to {options['out']} ({written.content_hash}).")


def selection(options: dict[str, Any]) -> Selection:
    origins = options["origin"]
    if options["exclude_simulated"]:
        if origins:
            raise CommandError("Say --origin or --exclude-simulated, not both.")
        origins = [one for one in Origin if one != Origin.SIMULATED]
    return Selection(
        campaigns=options["campaign"],
        tasks=options["task"],
        dimensions=options["dimension"],
        splits=options["split"],
        since=options["since"],
        until=options["until"],
        min_agreement=options["min_agreement"],
        origins=origins,
        projects=options["project"],
    )


def _when(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text)
