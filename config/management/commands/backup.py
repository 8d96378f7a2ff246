from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from config.backup import taking
from config.backup.errors import BackupError
from generation import console


class Command(console.Command):
    help = (
        "Back up the whole installation into a folder: database, pictures, runs and weights. The "
        "site may go on working. What an earlier backup in the folder holds is not copied again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="Where; the same folder each time.")
        parser.add_argument("--keep", type=int, metavar="N", help="Forget all but the newest N.")
        console.add_json(parser, "the counts")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            taken = taking.take(options["folder"].expanduser().resolve(), keep=options["keep"])
        except BackupError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"The backup broke off: {error}. Earlier ones are whole.") from None
        figures = {
            "directory": str(taken.directory),
            "files": taken.files,
            "bytes": taken.byte_size,
            "new_files": taken.new_files,
            "new_bytes": taken.new_bytes,
            "forgotten": taken.forgotten,
            "missing": len(taken.missing),
        }
        self.write_json(options["json"], figures)
        for path in taken.outside:
            self.stderr.write(f"{path} lies outside the data directory and is not in the backup.")
        self.stdout.write(
            f"{taken.directory}: {taken.files} files, {taken.byte_size / 2**20:.1f} MiB, of which "
            f"{taken.new_files} files, {taken.new_bytes / 2**20:.1f} MiB are new; "
            f"{taken.forgotten} old backups forgotten."
        )
        if taken.missing:
            raise CommandError(
                f"{len(taken.missing)} files that rows name are gone or damaged, such as "
                f"{taken.missing[0]}. The backup holds everything else; its manifest names them."
            )
