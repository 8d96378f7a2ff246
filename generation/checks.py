import os
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.files.storage import FileSystemStorage, default_storage


@register()
def pictures_can_be_stored(**kwargs: Any) -> list[CheckMessage]:
    """A store on this disk must be writable, or its nearest existing folder."""
    if not isinstance(default_storage, FileSystemStorage):
        return []
    root = Path(default_storage.location)
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return []
    return [
        Error(
            f"Pictures cannot be stored in {root}.",
            hint=f"Let this user write to {existing}, or set MEDIA_ROOT to another folder.",
            id="generation.E001",
        )
    ]
