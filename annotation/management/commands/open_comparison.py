from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser
from django.db.models import Count

from annotation import comparisons
from annotation.errors import Refused
from annotation.models import Dimension
from generation import console, sources
from generation.models import Policy, Project, Task, default_project

Row = TypeVar("Row", Task, Dimension)


class Command(console.Command):
    help = (
        "Open a blind comparison of two policies or external systems: good, same or bad, source "
        "by source. Running it again under another name uses the same pairs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--a", required=True, metavar="POLICY", help="Name or id of one.")
        parser.add_argument("--b", required=True, metavar="POLICY", help="Name or id of the other.")
        parser.add_argument(
            "--task", action="append", default=[], help="Slug; every active task if left out."
        )
        parser.add_argument(
            "--dimension", action="append", default=[], help="Slug; every active one if left out."
        )
        parser.add_argument("--name", help="The campaign's name (default: A against B).")
        parser.add_argument("--project", default="", metavar="SLUG", help="Default: main.")
        parser.add_argument("--overlap", type=int, default=1, help="People per pair (default 1).")
        parser.add_argument("--dry-run", action="store_true", help="Count the pairs, store none.")
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        a, b = (_policy(options[name]) for name in ("a", "b"))
        tasks = _named(Task.objects.all(), options["task"]) or list(Task.objects.active())
        dimensions = _named(Dimension.objects.all(), options["dimension"])
        try:
            project = (
                sources.project_named(options["project"])
                if options["project"]
                else Project.objects.get(pk=default_project())
            )
            pairs = comparisons.find_pairs(a=a, b=b, tasks=tasks, project=project)
            if not pairs:
                raise Refused(comparisons.nothing_in_common(a, b))
            together = sum(pair.together for pair in pairs)
            figures: dict[str, Any] = {
                "a": a.name,
                "b": b.name,
                "pairs": len(pairs),
                "new_sets": len(pairs) - together,
            }
            if options["dry_run"]:
                said = f"{len(pairs)} pairs of '{a}' and '{b}'"
                said += f": {together} there already, {len(pairs) - together} would be made."
            else:
                made = comparisons.open_comparison(
                    a=a,
                    b=b,
                    name=options["name"] or f"{a} against {b}",
                    tasks=tasks,
                    project=project,
                    dimensions=dimensions,
                    overlap=options["overlap"],
                )
                figures |= {"campaign": made.pk, "name": made.name}
                said = f"'{made}' (campaign {made.pk}) asks about {len(pairs)} pairs"
                said += f", {len(pairs) - together} of them new."
        except (Refused, sources.SourceError) as error:
            raise CommandError(str(error)) from error
        self.write_json(options["json"], figures)
        self.stdout.write(said)


def _policy(name: str) -> Policy:
    found = Policy.objects.filter(name=name).first()
    if found is None and name.isdecimal():
        found = Policy.objects.filter(pk=int(name)).first()
    if found is None:
        most = Policy.objects.annotate(n=Count("candidates")).order_by("-n")[:8]
        names = ", ".join(f"'{policy}'" for policy in most) or "none yet"
        raise CommandError(f"There is no policy or system '{name}'. There are: {names}.")
    return found


def _named(known: Iterable[Row], slugs: list[str]) -> list[Row]:
    rows = {row.slug: row for row in known}
    unknown = [slug for slug in slugs if slug not in rows]
    if unknown:
        raise CommandError(f"There is no '{unknown[0]}'. There are: {', '.join(sorted(rows))}.")
    return [rows[slug] for slug in slugs]
