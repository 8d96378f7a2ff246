"""Candidate sets back into rows, with their sources, candidates and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from annotation.errors import DatasetError
from annotation.portable import set_uid
from annotation.restore.pictures import Pictures, Shelf
from annotation.restore.taxonomy import Known
from generation.models import Candidate, CandidateSet, Image, Project, Source, Split, Task
from generation.sources import MAX_PROMPT_BYTES

Row = Mapping[str, Any]
DRAWN = ("seed", "num_inference_steps", "strength", "guidance_scale", "true_cfg_scale")
TEXTS = ("negative_prompt", "prompt")


@dataclass(frozen=True)
class SetRows:
    """A set and its candidates as the dataset has them; `uid` is what the set is called here."""

    uid: UUID
    row: Row
    candidates: Sequence[Row]
    imported: bool = False  # others' people alone said something about it

    @property
    def name(self) -> str:
        return f"set {self.row['set']}"


def by_uid(uids: Iterable[UUID]) -> dict[UUID, int]:
    found = CandidateSet.objects.filter(uid__in=uids).values_list("uid", "pk")
    return {uid: pk for uid, pk in found if uid}


def known_sets(
    wanted: Mapping[UUID, Row], installation: UUID
) -> tuple[dict[UUID, int], dict[UUID, int]]:
    """Those that are here already: under their name, and those made here and exported from here."""
    named = by_uid(wanted)
    rest = {uid: row for uid, row in wanted.items() if uid not in named}
    made_here = CandidateSet.objects.filter(
        uid__isnull=True,
        source__image__sha256__in={row["source"] for row in rest.values()},
        source__task__slug__in={row["task"] for row in rest.values()},
    )
    uids = {
        UUID(set_uid(pk, None, of=installation)): pk
        for pk in made_here.values_list("pk", flat=True)
    }
    return named, {uid: pk for uid, pk in uids.items() if uid in rest}


class Chunk:
    """Some sets on their way in: first each is checked, then all that are good are stored."""

    def __init__(self, known: Known, pictures: Pictures, sets: Sequence[SetRows]) -> None:
        self.known = known
        self.good: list[tuple[SetRows, Source, list[Candidate]]] = []
        shown = {row["image"] for one in sets for row in one.candidates if row["image"]}
        shown |= {one.row[column] for one in sets for column in ("source", "mask")}
        self.shelf = Shelf(pictures, shown)

    def check(self, one: SetRows, *, keep: bool) -> None:
        """Raises DatasetError; then nothing of the set stays. `keep` stores its pictures' files."""
        row = one.row
        task = self.known.task(row["task"])
        if row["split"] not in Split.values:
            raise DatasetError(f"“{row['split']}” is no split. There are train and holdout.")
        candidates = [_candidate(self.known, said) for said in one.candidates]
        if sorted(said["index"] for said in one.candidates) != list(range(row["size"])):
            raise DatasetError(
                f"It has {row['size']} candidates, and the indexes in the dataset are "
                f"{', '.join(str(said['index']) for said in one.candidates) or 'none'}."
            )
        if not 1 <= row["size"] <= 8:
            raise DatasetError(f"A set has 1 to 8 candidates, not {row['size']}.")
        source = _source(row, task, self.known.project, imported=one.imported)
        wanted = {said["image"]: "RGB" for said in one.candidates if said["image"]}
        rows = self.shelf.take(wanted | {row["source"]: "RGB", row["mask"]: "L"}, keep=keep)
        _check_size(rows[row["source"]], rows[row["mask"]])
        source.image, source.mask = rows[row["source"]], rows[row["mask"]]
        for candidate, said in zip(candidates, one.candidates, strict=True):
            candidate.image = rows[said["image"]] if said["image"] else None
        self.good.append((one, source, candidates))

    def store(self) -> None:
        self.shelf.save()
        sources = self._sources()
        sets = CandidateSet.objects.bulk_create(
            CandidateSet(
                uid=one.uid,
                source=sources[_key(source)],
                size=one.row["size"],
                state=_state(candidates),
                error="" if _state(candidates) == "ready" else "It came without its pictures.",
            )
            for one, source, candidates in self.good
        )
        for made, (*_, candidates) in zip(sets, self.good, strict=True):
            for candidate in candidates:
                candidate.set = made
        Candidate.objects.bulk_create(
            candidate for *_, candidates in self.good for candidate in candidates
        )

    def _sources(self) -> dict[tuple[Any, ...], Source]:
        for _one, source, _candidates in self.good:
            # The pictures' keys are known only now.
            source.image, source.mask = source.image, source.mask
        made = [source for _one, source, _candidates in self.good]
        # A source that both people here and others judged is one to learn from.
        made.sort(key=lambda source: source.origin == Source.Origin.LIBRARY)
        wanted = {_key(source): source for source in made}
        Source.objects.bulk_create(wanted.values(), ignore_conflicts=True)
        there = Source.objects.filter(
            project=self.known.project,
            image__in={source.image_id for source in wanted.values()},
            task__in={source.task_id for source in wanted.values()},
        )
        found = {_key(source): source for source in there}
        return {key: found[key] for key in wanted}


def _key(source: Source) -> tuple[Any, ...]:
    return source.task_id, source.image_id, source.mask_id, source.prompt


def _state(candidates: Sequence[Candidate]) -> str:
    whole = all(candidate.image is not None for candidate in candidates)
    return CandidateSet.State.READY if whole else CandidateSet.State.FAILED


def _source(row: Row, task: Task, project: Project, *, imported: bool) -> Source:
    prompt = _text(row["prompt"], "prompt")
    if len(prompt.encode()) > MAX_PROMPT_BYTES:
        raise DatasetError(f"Its prompt is longer than {MAX_PROMPT_BYTES} bytes.")
    try:
        tags = json.loads(row["tags"] or "{}")
    except ValueError:
        raise DatasetError("Its tags are not JSON.") from None
    if not isinstance(tags, dict):
        raise DatasetError("Its tags are not an object.")
    return Source(
        project=project,
        task=task,
        # Datasets say what the policy was told; the task says it for all of its sources.
        prompt="" if prompt == task.fixed_prompt else prompt,
        tags=tags,
        split=row["split"],
        origin=Source.Origin.IMPORTED if imported else Source.Origin.LIBRARY,
        external_id=_text(row["external_id"], "external id")[:200],
        licence=_text(row["licence"], "licence")[:120],
        attribution=_text(row["attribution"], "attribution")[:300],
    )


def _candidate(known: Known, row: Row) -> Candidate:
    drawn = {name: row[name] for name in DRAWN}
    if len({value is None for value in drawn.values()}) > 1:
        raise DatasetError(f"Of candidate {row['index']} only some of the drawn values are there.")
    texts = {name: _text(row[name], name) for name in TEXTS}
    return Candidate(
        index=row["index"],
        policy=known.policy(row["policy"]),
        width=row["width"],
        height=row["height"],
        **drawn,
        **texts,
    )


def _text(value: str | None, what: str) -> str:
    if value and "\0" in value:
        raise DatasetError(f"Its {what} holds a null character.")
    return value or ""


def _check_size(image: Image, mask: Image) -> None:
    if (image.width, image.height) != (mask.width, mask.height):
        raise DatasetError(
            f"Its mask has {mask.width} × {mask.height} pixels and its source {image.width} × "
            f"{image.height}."
        )
