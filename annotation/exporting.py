"""Exports on order: a worker writes the dataset, packs it, and says what changed since the last."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import DatasetError, Refused
from annotation.exports import Selection
from annotation.models import Export
from generation import audit, faults
from generation.models import Project, Verb
from generation.ownership import JobState, LeaseLost

if TYPE_CHECKING:
    from django.contrib.auth.models import User

OPEN_PER_PROJECT = 4
SAID_EVERY = 1.0  # seconds between two notes of how far it is


def root(export: Export) -> Path:
    """Where it is made; empty once it is packed."""
    return Path(settings.DATA_DIR) / "exports" / str(export.pk)


@transaction.atomic
def order(
    *,
    project: Project,
    by: User,
    selection: dict[str, Any],
    format: str = "canonical",
    pictures: str = "files",
    max_side: int | None = None,
) -> Export:
    """Have a dataset written by a worker; Refused says why it cannot be."""
    from annotation.jobs import write_export

    Project.objects.select_for_update().get(pk=project.pk)  # counted by one at a time
    if Export.objects.unfinished().filter(project=project).count() >= OPEN_PER_PROJECT:
        raise Refused(
            _("%(n)d exports of this project are being made. Wait for one, or cancel it.")
            % {"n": OPEN_PER_PROJECT}
        )
    row = Export(
        project=project,
        selection=selection,
        format=format,
        pictures=pictures,
        max_side=max_side,
        requested_by=by,
    )
    try:
        about = chosen(row)
        count = about.judgments().count() + about.ratings().count()
    except DatasetError as error:
        raise Refused(str(error)) from None
    if not count:
        raise Refused(_("Nothing is chosen by that: no judgment fits. Choose more."))
    row.total = count
    row.save()
    audit.record(actor=by, verb=Verb.EXPORTED, thing=row, after=row.options())
    # Where the broker is away, beat rings once it is back.
    transaction.on_commit(lambda: write_export.delay(row.pk), robust=True)
    return row


def chosen(export: Export) -> Selection:
    """Its selection, within its project; Refused names what is not there."""
    said = dict(export.selection)
    names = said.pop("campaigns", [])
    mine = dict(export.project.campaigns.filter(name__in=names).values_list("name", "pk"))
    if missing := [name for name in names if name not in mine]:
        raise Refused(_("There is no campaign “%(name)s” in this project.") % {"name": missing[0]})
    for name in ("since", "until"):
        if said.get(name):
            said[name] = date.fromisoformat(said[name])
    return Selection(
        campaigns=[str(pk) for pk in mine.values()], projects=[export.project.slug], **said
    )


def run(export: Export) -> None:
    """Write and pack it, or what an earlier attempt left of it."""
    if not export.claim():
        return
    try:
        done = Done()
        with export.heartbeat(lambda: {"progress": done.count}, every=SAID_EVERY) as lost:
            _make(export, done, lost)
    except LeaseLost:
        return
    except (DatasetError, Refused, OSError) as error:
        if export.may_pass(error):
            raise
        export.fail(faults.sentence(error) or str(error))
        shutil.rmtree(root(export), ignore_errors=True)
    except Exception as error:
        if export.may_pass(error):
            raise
        said = _("The export broke off: %(error)s. Order it again.")
        export.fail(said % {"error": error})
        shutil.rmtree(root(export), ignore_errors=True)
        raise


@dataclass
class Done:
    count: int = 0


def _make(export: Export, done: Done, lost: Event) -> None:
    def tell(more: int) -> None:
        done.count += more
        if lost.is_set():
            raise LeaseLost(f"{export} was cancelled")

    home = root(export)
    home.mkdir(parents=True, exist_ok=True)
    written = _write(export, home / "dataset", tell)
    done.count = export.total
    found: dict[str, Any] = {"content_hash": written.content_hash, "counts": written.counts}
    found |= _compare(export, home / "dataset")
    made = home / "dataset"
    if export.format != "canonical":
        made = home / export.format
        found["losses"] = _convert(export.format, home / "dataset", made)
    export.renew(message=_("Packing"))
    packed = home / "export.zip"
    _pack(made, packed, f"oneloop-export-{export.pk}", lost)
    key = f"exports/{export.pk}-{written.content_hash[:12]}.zip"
    with packed.open("rb") as file:
        default_storage.delete(key)  # of an attempt whose worker died after this
        try:
            kept = default_storage.save(key, File(file))
        except OSError:
            default_storage.delete(key)  # half of it
            raise
    found |= {"archive": kept, "byte_size": packed.stat().st_size, "message": ""}
    export.finish(progress=export.total, **found)
    shutil.rmtree(home, ignore_errors=True)


def _write(export: Export, directory: Path, tell: Callable[[int], None]) -> Any:
    from annotation import datasets

    if directory.exists():  # whole: an earlier attempt ended after it
        card = datasets.read_card(directory)
        return datasets.Written(card["content_hash"], card["counts"])
    about = chosen(export)
    return datasets.write(
        directory,
        about.judgments(),
        ratings=about.ratings(),
        salt=export.salt,
        pictures=datasets.Pictures(export.pictures, export.max_side),
        resumable=True,
        progress=tell,
    )


def _convert(format: str, dataset: Path, out: Path) -> list[dict[str, Any]]:
    from annotation import formats

    shutil.rmtree(out, ignore_errors=True)
    losses = formats.convert(dataset, out, format).losses
    return [{"aspect": aspect, **said} for aspect, said in losses.items()]


def _pack(directory: Path, archive: Path, name: str, lost: Event) -> None:
    """Everything below one folder. Stored as it is: pictures and Parquet are compressed already."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in _files(directory):
            if lost.is_set():
                raise LeaseLost("cancelled")
            file.write(path, f"{name}/{path.relative_to(directory).as_posix()}")


def _files(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.rglob("*") if path.is_file())


# What changed since the last one --------------------------------------------------------------


def versions(export: Export) -> Any:
    """The finished exports of the same selection, the newest first."""
    done = Export.objects.filter(project=export.project_id, state=JobState.SUCCEEDED)
    return done.filter(selection=export.selection, format=export.format).order_by("-pk")


def _compare(export: Export, dataset: Path) -> dict[str, Any]:
    """Its judgments against those of the version before, whose keys were kept."""
    from annotation import export_keys

    keys = export_keys.of_dataset(dataset)
    export_keys.keep(export.pk, keys)
    before = versions(export).filter(pk__lt=export.pk).first()
    if before is None or (old := export_keys.kept(before.pk)) is None:
        return {"previous": before, "difference": None}
    withdrawn = export_keys.of_withdrawn(export.project)
    return {"previous": before, "difference": export_keys.difference(old, keys, withdrawn)}


# Afterwards -----------------------------------------------------------------------------------


def forget_archive(export: Export, *, by: User | None) -> bool:
    """Delete the file; what the export was, and how it differed, stays to be read."""
    with transaction.atomic():
        done = Export.objects.filter(pk=export.pk).exclude(archive="").update(archive="")
        if done:
            audit.record(actor=by, verb=Verb.EXPORT_DELETED, thing=export)
    if done:
        default_storage.delete(export.archive)
    return done == 1


def again(export: Export, *, by: User) -> Export:
    """The same selection as it is now: the next version."""
    return order(
        project=export.project,
        by=by,
        selection=export.selection,
        format=export.format,
        pictures=export.pictures,
        max_side=export.max_side,
    )


def cancel(export: Export) -> bool:
    done = export.cancel()
    if done:
        shutil.rmtree(root(export), ignore_errors=True)
    return done
