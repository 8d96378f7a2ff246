from typing import Any

from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand, CommandError

from config.storage import ObjectStore
from generation.faults import StoreUnavailable


class Command(BaseCommand):
    help = "Make the bucket that S3_BUCKET names, where there is none yet."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if not isinstance(default_storage, ObjectStore):
            self.stdout.write("Media lie in a folder: S3_BUCKET names no bucket.")
            return
        try:
            made = default_storage.make_bucket()
        except StoreUnavailable as error:
            raise CommandError(str(error)) from None
        name = default_storage.bucket_name
        self.stdout.write(f"The bucket {name} {'was made' if made else 'is there'}.")
