"""Sources in: one by one (the page, the starter project) or many from a path (the command)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _
from PIL import Image as Pillow

from generation import images
from generation.areas import Area
from generation.images import ImageError
from generation.models import Project, Source, Split, Task, default_project
from generation.readers import ReadError, Refusal, Row, read_rows

if TYPE_CHECKING:
    from generation.console import Progress

HOLDOUT_SHARE = 0.2
# A prompt is part of the row's unique index, whose entries PostgreSQL limits to 2.7 kB.
MAX_PROMPT_BYTES = 2400
# What a task without a source picture starts from; the policy scales it to its own size.
BLANK_SIZE = (1024, 1024)
SHORTEST, LONGEST = 64, 4096

__all__ = ["ReadError", "Report", "SourceError", "add_source", "import_sources", "task_named"]


class SourceError(ValueError):
    """A source that cannot be taken; the message says what to do."""


@dataclass
class Report:
    """What an import did, row by row."""

    rows: int = 0
    created: int = 0
    existing: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "created": self.created,
            "existing": self.existing,
            "refused": [{"row": row, "reason": reason} for row, reason in self.refused],
        }


def task_named(slug: str) -> Task:
    task = Task.objects.filter(slug=slug).first()
    if task is None:
        known = ", ".join(Task.objects.values_list("slug", flat=True)) or _("none yet")
        raise SourceError(
            _(
                "There is no task “%(slug)s”. Known tasks: %(known)s. New ones are made in "
                "the admin."
            )
            % {"slug": slug, "known": known}
        )
    return task


def project_named(slug: str) -> Project:
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or _("none yet")
        raise SourceError(
            _(
                "There is no project “%(slug)s”. Known projects: %(known)s. New ones are "
                "made on the page Projects."
            )
            % {"slug": slug, "known": known}
        )
    return project


def split_of(sha256: str) -> Split:
    """Train or held out, drawn from a picture's hash: no picture is ever in both."""
    return Split.HOLDOUT if int(sha256[:8], 16) < HOLDOUT_SHARE * 2**32 else Split.TRAIN


def add_source(
    *,
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    prompt: str = "",
    tags: dict[str, Any] | None = None,
    external_id: str = "",
    licence: str = "",
    attribution: str = "",
    scene: dict[str, Any] | None = None,
    user: User | None = None,
    project: Project | None = None,
    image_name: str = "",
    mask_name: str = "",
    size: tuple[int, int] | None = None,
    origin: str = Source.Origin.LIBRARY,
) -> tuple[Source, bool]:
    """Store a source, or find the one that is already there.

    The picture and the mask come from `images.decode` and `images.decode_mask`, or are made by a
    program in the same modes. A task that starts from the prompt alone gets a blank picture of
    `size` (width, height) with everything to be edited: what a Fill model is conditioned on is then
    the same for every prompt. Raises ImageError or SourceError; nothing is stored then.
    """
    picture, area = _pictures(task, image, mask, image_name, mask_name, size)
    prompt = _checked_prompt(task, prompt)
    stored = images.store(picture)
    # A blank picture is the same for every row; there the prompt is what must not be in both.
    drawn_from = stored.sha256 if task.needs_source else _sha256(prompt)
    return Source.objects.get_or_create(
        project_id=project.pk if project else default_project(),
        task=task,
        image=stored,
        mask=images.store(area),
        prompt=prompt,
        defaults={
            "tags": tags or {},
            "split": split_of(drawn_from),
            "origin": origin,
            "external_id": external_id[:200],
            "licence": licence[:120],
            "attribution": attribution[:300],
            "scene": scene,
            "created_by": user,
        },
    )


def checked(
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    prompt: str,
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Pillow.Image, Pillow.Image, str]:
    """The picture, the area and the prompt that a source of these would have. Stores nothing."""
    picture, area = _pictures(task, image, mask, "", "", size)
    return picture, area, _checked_prompt(task, prompt)


def loose_source(
    *,
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    prompt: str = "",
    project: Project,
) -> Source:
    """A source without a row, for work that needs its pictures once. Raises as `add_source`."""
    picture, area = _pictures(task, image, mask, "", "")
    return Source(
        project=project,
        task=task,
        image=images.store(picture),
        mask=images.store(area),
        prompt=_checked_prompt(task, prompt),
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pictures(
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    image_name: str,
    mask_name: str,
    size: tuple[int, int] | None = None,
) -> tuple[Pillow.Image, Pillow.Image]:
    if task.needs_source and image is None:
        raise SourceError(_("%(name)s starts from a picture. Give one.") % {"name": task.name})
    if not task.needs_source and image is not None:
        raise SourceError(
            _("%(name)s starts from the prompt alone. Leave the picture out.") % {"name": task.name}
        )
    picture = image.convert("RGB") if image else Pillow.new("RGB", _blank_size(size), "white")
    if task.needs_mask and mask is None:
        raise SourceError(
            _(
                "%(image_name)s has no mask, which %(name)s needs: a picture of the same "
                "size, white where it is to be edited."
            )
            % {"image_name": image_name or _("the picture"), "name": task.name}
        )
    area = Pillow.new("L", picture.size, 255) if mask is None else mask
    images.check_mask(area, picture.size, mask_name=mask_name, image_name=image_name)
    return picture, area


def _blank_size(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return BLANK_SIZE
    if not SHORTEST <= min(size) <= max(size) <= LONGEST:
        raise SourceError(
            _("A picture of %(width)s × %(height)s is not made: each side has %(low)s to %(high)s.")
            % {"width": size[0], "height": size[1], "low": SHORTEST, "high": LONGEST}
        )
    return size


def _checked_prompt(task: Task, prompt: str) -> str:
    prompt = prompt.strip()
    if "\0" in prompt:
        raise SourceError(_("The prompt holds a null character. Remove it."))
    if len(prompt.encode()) > MAX_PROMPT_BYTES:
        raise SourceError(
            _(
                "The prompt is longer than %(max_prompt_bytes)s bytes, more than a policy "
                "reads. Shorten it."
            )
            % {"max_prompt_bytes": MAX_PROMPT_BYTES}
        )
    if not prompt and not task.fixed_prompt:
        raise SourceError(
            _("%(name)s needs a prompt. Say what the edit should show.") % {"name": task.name}
        )
    return prompt


def tags_from(pairs: Sequence[str]) -> dict[str, str]:
    """{"album": "garden"} from ["album=garden"]; raises SourceError."""
    tags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise SourceError(
                _("A tag reads name=value, for example album=garden, not “%(pair)s”.")
                % {"pair": pair}
            )
        tags[key.strip()] = value.strip()
    return tags


@transaction.atomic
def mark(chosen: Sequence[Source], tag: Mapping[str, str], *, among: Sequence[Source]) -> None:
    """Give the chosen sources a tag, and take it from the others `among` which they were chosen."""
    keys, pairs = {source.pk for source in chosen}, set(tag.items())
    for source in Source.objects.select_for_update().filter(pk__in=[one.pk for one in among]):
        kept = {name: value for name, value in source.tags.items() if (name, value) not in pairs}
        tags = {**kept, **tag} if source.pk in keys else kept
        if tags != source.tags:
            source.tags = tags
            source.save(update_fields=["tags"])


# Many at once -----------------------------------------------------------------------------------


def import_sources(
    path: str | Path,
    task: Task,
    *,
    prompt: str = "",
    tags: Mapping[str, str] | None = None,
    mask_from: str = "mask",
    dry_run: bool = False,
    user: User | None = None,
    project: Project | None = None,
    progress: Progress | None = None,
) -> Report:
    """Every row of `path` that is good becomes a source; the others are reported with a reason.

    Run again it changes nothing. `prompt` serves rows that have none, `tags` are added to all;
    `mask_from` is "mask", or "alpha" where what is transparent in a picture is to be edited. Raises
    ReadError where the path itself is not understood.
    """
    report = Report()
    rows: Iterable[Row | Refusal] = read_rows(Path(path).expanduser())
    for row in progress(rows) if progress else rows:
        report.rows += 1
        try:
            created = _import_row(row, task, prompt, tags or {}, mask_from, dry_run, user, project)
        except (ImageError, SourceError) as error:
            report.refused.append((row.name, str(error)))
        else:
            report.created += created
            report.existing += not created
    return report


def _import_row(
    row: Row | Refusal,
    task: Task,
    prompt: str,
    tags: Mapping[str, str],
    mask_from: str,
    dry_run: bool,
    user: User | None,
    project: Project | None,
) -> bool:
    """True when the row is a new source."""
    if isinstance(row, Refusal):
        raise SourceError(row.reason)
    image = mask = None
    # A picture that the task has no use for is left alone, so that one file serves several tasks.
    if row.image is not None and task.needs_source:
        image = images.decode(row.image, name=row.image_name)
    if image is not None and task.needs_mask:
        mask = _mask(row, image.size, mask_from)
    if dry_run:
        return _would_be_new(row, task, image, mask, prompt, project)
    _, created = add_source(
        task=task,
        image=image,
        mask=mask,
        prompt=row.prompt or prompt,
        tags={**row.tags, **tags},
        external_id=row.external_id,
        licence=row.licence,
        attribution=row.attribution,
        user=user,
        project=project,
        image_name=row.image_name,
        mask_name=row.mask_name,
        size=row.size,
    )
    return created


def _mask(row: Row, size: tuple[int, int], mask_from: str) -> Pillow.Image | None:
    if mask_from == "alpha":
        return None if row.image is None else images.decode_alpha(row.image, name=row.image_name)
    if isinstance(row.mask, Area):
        return row.mask.draw(size, name=row.mask_name)
    return None if row.mask is None else images.decode_mask(row.mask, name=row.mask_name)


def _would_be_new(
    row: Row,
    task: Task,
    image: Pillow.Image | None,
    mask: Pillow.Image | None,
    prompt: str,
    project: Project | None,
) -> bool:
    picture, area = _pictures(task, image, mask, row.image_name, row.mask_name, row.size)
    return not Source.objects.filter(
        project=project or default_project(),
        task=task,
        image__sha256=images.sha256_of(picture),
        mask__sha256=images.sha256_of(area),
        prompt=_checked_prompt(task, row.prompt or prompt),
    ).exists()
