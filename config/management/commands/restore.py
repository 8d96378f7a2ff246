from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.backup import restoring
from config.backup.errors import BackupError
from generation import console


class Command(console.Command):
    help = (
        "Restore an installation from a folder that `backup` wrote, into an empty place. Every "
        "file is checked first. A backup of an older version is migrated."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="What `backup` was given.")
        parser.add_argument("--name", default="", help="Which; the newest unless given.")
        parser.add_argument(
            "--replace", action="store_true", help="Delete what is in the database there."
        )
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            restored = restoring.restore(
                options["folder"].expanduser().resolve(),
                name=options["name"],
                replace=options["replace"],
            )
        except BackupError as error:
            raise CommandError(str(error)) from None
        figures = {
            "backup": restored.backup.name,
            "files": restored.files,
            "bytes": restored.byte_size,
            "migrated": restored.migrated,
        }
        self.write_json(options["json"], figures)
        self.stdout.write(
            f"{restored.backup.name} is restored: the database, {restored.files} files, "
            f"{restored.byte_size / 2**20:.1f} MiB; {restored.migrated} migrations were added."
        )
