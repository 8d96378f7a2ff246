"""The media store and the disks."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db.models import Max
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config.doctor import Finding, State, broken, examines, ok
from generation.models import Image

ROOM, LITTLE_ROOM = 5 * 2**30, 2**30
SAMPLE = 50


@examines(name=_("Media store"), is_slow=True, seconds=20)
def media_store() -> Finding:
    """Write a file, read it back, delete it."""
    said = secrets.token_bytes(64)
    try:
        name = default_storage.save(f"doctor/{secrets.token_hex(8)}", ContentFile(said))
        try:
            with default_storage.open(name) as file:
                read = file.read()
        finally:
            default_storage.delete(name)
    except Exception as error:  # each backend has its own
        reason = f"{type(error).__name__}: {error}"[:200]
        return broken(
            format_lazy(_("A file cannot be written and read back: {reason}"), reason=reason),
            _("Look at MEDIA_ROOT, or at MEDIA_BACKEND and MEDIA_OPTIONS: address, rights, room."),
        )
    if read != said:
        return broken(
            _("A file comes back with other bytes than were written."),
            _("Let nobody upload until the store is mended; look at its disks and its caches."),
        )
    return ok(_("A file was written, read back and deleted."))


@examines(name=_("Files of pictures"), needs="database", is_slow=True, seconds=60)
def pictures() -> Finding:
    """Whether the files of some pictures, drawn anew each time, are there."""
    keys = _sample()
    missing = [key for key in keys if not default_storage.exists(f"images/{key}")]
    if missing:
        said = _("{missing} of {n} drawn pictures have no file, e.g. {example}.")
        return broken(
            format_lazy(said, missing=len(missing), n=len(keys), example=missing[0]),
            _("Restore the media store from the backup that belongs to this database."),
        )
    return ok(format_lazy(_("Drawn pictures whose files are there: {n}."), n=len(keys)))


def _sample() -> list[str]:
    """By primary keys drawn between the first and the last: no table is read as a whole."""
    last = Image.objects.aggregate(last=Max("pk"))["last"] or 0
    drawn = {secrets.randbelow(last) + 1 for _ in range(SAMPLE)} if last else set()
    return list(Image.objects.filter(pk__in=drawn).values_list("storage_key", flat=True))


@examines(name=_("Disk"))
def disks() -> list[Finding]:
    folders = {Path(settings.DATA_DIR), Path(settings.MEDIA_ROOT)}
    found, seen = [], set()
    for folder in sorted(folders):
        while not folder.exists():
            folder = folder.parent
        if (device := folder.stat().st_dev) not in seen:
            seen.add(device)
            found.append(_disk(folder))
    return found


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    named = format_lazy("{disk} {folder}", disk=_("Disk"), folder=str(folder))
    said = format_lazy(_("{free} GiB are free."), free=f"{free / 2**30:.1f}")
    if free >= ROOM:
        return Finding(named, State.OK, said)
    state = State.BROKEN if free < LITTLE_ROOM else State.WARNING
    return Finding(
        named, state, said, _("Free some: old runs and exports take most, or add a disk.")
    )
