"""Pictures that a system outside made (Ideogram, Photoshop, …), as candidates of their sources.

A picture finds its source by name: the external id the source was imported under, with or without
ending, or with a number behind it where there are several (`cat_2.png`), or the source's own number
(`source-12.png`). A table says it in its column `source`. Blind campaigns then show the pictures
beside ours. Nothing was drawn for them here, so seed and sampler values stay empty.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils.translation import gettext as _
from PIL import Image as Pillow

from generation import images, readers
from generation.images import ImageError, Readable
from generation.models import Candidate, CandidateSet, Image, Policy, Project, Source, Task
from generation.quoting import one_line
from generation.sources import Report, SourceError

if TYPE_CHECKING:
    from generation.console import Progress

MOST_PER_SET = 8
# Systems round a picture's sides to multiples of their own; more than this is another picture.
SHAPE_TOLERANCE = 0.03
SOURCE_COLUMNS = ("source", "external_id", "source_id", "id")
NUMBERED = re.compile(r"[_-]\d+$")
OWN_NUMBER = re.compile(r"source[_-]?(\d+)$")


@dataclass(frozen=True)
class Output:
    """One picture of the system, and the name by which its source is found."""

    name: str
    picture: Readable
    source: str
    prompt: str = ""
    latency_ms: int | None = None


def import_candidates(
    path: str | Path,
    *,
    system: str,
    project: Project,
    task: Task | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Every good picture becomes a candidate of `system`; the others are reported with a reason.

    Run again it changes nothing: a picture that a source has of this system is not taken twice.
    Raises ReadError where the path is not understood, SourceError where the name is taken.
    """
    policy = _system(system.strip(), make=not dry_run)
    report = Report()
    known = Names(project, task)
    made: dict[int, list[tuple[Output, Image | None, str]]] = defaultdict(list)
    there = _there(policy, project) if policy else set()
    read: Iterable[Output | readers.Refusal] = read_outputs(Path(path).expanduser())
    for found in progress(read, unit="pictures") if progress else read:
        report.rows += 1
        try:
            if isinstance(found, readers.Refusal):
                raise SourceError(found.reason)
            source = known.find(found.source)
            picture = images.decode(found.picture, name=found.name)
            _check_shape(found, picture, source)
            sha256 = images.sha256_of(picture)
            if (source.pk, sha256) in there:
                report.existing += 1
                continue
            image = None if dry_run else images.store(picture)
        except (ImageError, SourceError) as error:
            report.refused.append((found.name, str(error)))
        else:
            there.add((source.pk, sha256))
            made[source.pk].append((found, image, sha256))
            report.created += 1
    if policy is not None and not dry_run:
        for source_id, outputs in made.items():
            for start in range(0, len(outputs), MOST_PER_SET):
                _store(policy, source_id, outputs[start : start + MOST_PER_SET])
    return report


def _system(name: str, *, make: bool) -> Policy | None:
    if not name or len(name) > 120:
        raise SourceError(_("Give the system a name of at most 120 characters."))
    found = Policy.objects.filter(name=name).first()
    if found is not None and found.kind != Policy.Kind.EXTERNAL:
        raise SourceError(
            _("“%(name)s” is a policy with weights here. Give the outside system another name.")
            % {"name": name}
        )
    if found is None and make:
        found, _made = Policy.objects.get_or_create(name=name, kind=Policy.Kind.EXTERNAL)
    return found


def _there(policy: Policy, project: Project) -> set[tuple[int, str]]:
    mine = Candidate.objects.filter(policy=policy, set__source__project=project)
    return set(mine.values_list("set__source_id", "image__sha256"))


def _check_shape(output: Output, picture: Pillow.Image, source: Source) -> None:
    if not source.task.needs_source:
        return
    wanted = source.image.width / source.image.height
    if abs(math.log(picture.width / picture.height / wanted)) > SHAPE_TOLERANCE:
        raise SourceError(
            _(
                "%(name)s has %(size)s pixels and its source %(wanted)s: another shape. Export the "
                "whole picture, uncropped."
            )
            % {
                "name": output.name,
                "size": f"{picture.width} × {picture.height}",
                "wanted": f"{source.image.width} × {source.image.height}",
            }
        )


def _store(policy: Policy, source_id: int, outputs: list[tuple[Output, Image | None, str]]) -> None:
    with transaction.atomic():
        # Two imports of one system at one moment take each picture once.
        Policy.objects.select_for_update(no_key=True).get(pk=policy.pk)
        has = Candidate.objects.filter(policy=policy, set__source=source_id)
        there = set(has.values_list("image__sha256", flat=True))
        new = [(output, image) for output, image, sha256 in outputs if sha256 not in there]
        if not new:
            return
        one = CandidateSet.objects.create(
            source_id=source_id, size=len(new), state=CandidateSet.State.READY
        )
        Candidate.objects.bulk_create(
            Candidate(
                set=one,
                index=index,
                policy=policy,
                image=image,
                prompt=output.prompt,
                width=image.width if image else 0,
                height=image.height if image else 0,
                latency_ms=output.latency_ms,
                versions={"imported_from": output.name},
            )
            for index, (output, image) in enumerate(new)
        )


class Names:
    """The sources of a project that may be used, by what files may call them."""

    def __init__(self, project: Project, task: Task | None) -> None:
        rows = Source.objects.usable().filter(project=project).select_related("task", "image")
        if task is not None:
            rows = rows.filter(task=task)
        self.by_number: dict[int, Source] = {}
        self.by_name: dict[str, list[Source]] = defaultdict(list)
        for source in rows.order_by("pk"):
            self.by_number[source.pk] = source
            if source.external_id:
                for name in {source.external_id, _stem(source.external_id)}:
                    self.by_name[name].append(source)

    def find(self, name: str) -> Source:
        for wished in (name, _stem(name), NUMBERED.sub("", _stem(name))):
            found = self.by_name.get(wished, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise SourceError(
                    _(
                        "“%(name)s” names %(n)s sources (%(tasks)s). Choose one task with --task, "
                        "or give the source's number."
                    )
                    % {
                        "name": wished,
                        "n": len(found),
                        "tasks": ", ".join(sorted({source.task.slug for source in found})),
                    }
                )
        number = OWN_NUMBER.match(NUMBERED.sub("", _stem(name))) or OWN_NUMBER.match(_stem(name))
        source = self.by_number.get(int(number[1])) if number else None
        if source is None:
            raise SourceError(
                _(
                    "No source is called “%(name)s”. Name the file after the source's external id "
                    "(cat.png), or after its number (source-12.png)."
                )
                % {"name": _stem(name)}
            )
        return source


def _stem(name: str) -> str:
    file = Path(name)
    return file.stem if file.suffix.lower() in readers.PICTURES else file.name


# Reading ----------------------------------------------------------------------------------------


def read_outputs(path: Path) -> Iterator[Output | readers.Refusal]:
    """The pictures of a folder (with its metadata.jsonl or .csv, if any) or those a table names."""
    if path.is_dir():
        for name in ("metadata.jsonl", "metadata.csv"):
            if (path / name).is_file():
                return _table(path / name, path)
        return _folder(path)
    return _table(path, path.parent)


def _folder(path: Path) -> Iterator[Output | readers.Refusal]:
    known = readers.PICTURES | readers.OTHER_PICTURES
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in known]
    if not files:
        raise readers.ReadError(
            f"There are no pictures in {path}. Put the system's pictures there, each named after "
            "its source, or a metadata.jsonl with file_name and source."
        )
    return (Output(name=file.name, picture=file, source=file.name) for file in files)


def _table(path: Path, base: Path) -> Iterator[Output | readers.Refusal]:
    for name, record in readers.read_records(path):
        if isinstance(record, str):
            yield readers.Refusal(name, f"This {record}.")
            continue
        try:
            yield _output(name, record, base)
        except readers.ReadError as error:
            yield readers.Refusal(name, str(error))


def _output(name: str, record: dict[str, Any], base: Path) -> Output:
    picture, file = readers.picture_of(record, base)
    if picture is None:
        raise readers.ReadError("It names no picture. Give one in the column file_name.")
    said = next((record[column] for column in SOURCE_COLUMNS if record.get(column)), "")
    latency = record.get("latency_ms")
    try:
        latency_ms = None if latency in (None, "") else max(0, round(float(latency)))
    except (TypeError, ValueError):
        raise readers.ReadError(
            f"Its latency_ms “{one_line(str(latency))}” is not a number."
        ) from None
    return Output(
        name=f"{name} ({file})" if file else name,
        picture=picture,
        source=f"source-{said}" if isinstance(said, int) else str(said or file),
        prompt=str(record.get("prompt") or ""),
        latency_ms=latency_ms,
    )
