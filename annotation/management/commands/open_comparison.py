import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count

from annotation import comparisons
from annotation.errors import Refused
from annotation.models import Dimension
from generation.models import Policy, Project, Task, default_project

Row = TypeVar("Row", Task, Dimension)


class Command(BaseCommand):
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
        parser.add_argument("--project", help="Slug; the project Main if left out.")
        parser.add_argument("--overlap", type=int, default=1, help="People per pair (default 1).")
        parser.add_argument("--dry-run", action="store_true", help="Count the pairs, store none.")
        parser.add_argument("--json", metavar="FILE", help="Write the counts to FILE.")

    def handle(self, *args: Any, **options: Any) -> None:
        a, b = (_policy(options[name]) for name in ("a", "b"))
        tasks = _named(Task.objects.all(), options["task"]) or list(Task.objects.active())
        dimensions = _named(Dimension.objects.all(), options["dimension"])
        project = Project.objects.filter(slug=options["project"]).first()
        if options["project"] and project is None:
            raise CommandError(f"There is no project '{options['project']}'.")
        project = project or Project.objects.get(pk=default_project())
        try:
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
        except Refused as error:
            raise CommandError(error.message) from error
        if options["json"]:
            Path(options["json"]).write_text(json.dumps(figures, indent=1))
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
