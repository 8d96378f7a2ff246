"""Foreign rows checked before anything of them is stored: pictures, prompt, dimensions."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image as Pillow

from annotation.formats.rows import Answer, Comparison
from annotation.models import Dimension
from generation import images, sources
from generation.external import MOST_PER_SET
from generation.models import Project, Task
from generation.readers import Refusal

NAMESPACE = uuid.UUID("8b0f43f5-4f4c-5d0b-9c7e-2b54a1f0a9d6")
DIMENSION = "overall"  # where neither the format nor the command names one


class ImportRefused(ValueError):
    """One readable sentence: why nothing can be imported, and the remedy."""


@dataclass(frozen=True)
class Turn:
    """What one person said about a row's pictures."""

    annotator: str  # empty where nobody is named
    answers: tuple[tuple[Dimension, Answer], ...]


@dataclass(frozen=True)
class Checked:
    """A row whose pictures were decoded, in the order of their hashes: so it names its set."""

    row: Comparison
    prompt: str
    pictures: list[Pillow.Image]
    models: list[str]
    turns: list[Turn]
    source: Pillow.Image | None
    mask: Pillow.Image | None
    uid: uuid.UUID  # of the set


class Checks:
    """What a row must hold to be about this task; `called` maps their dimensions' names to ours."""

    def __init__(
        self, task: Task, project: Project, dimension: str, called: Mapping[str, str]
    ) -> None:
        self.task, self.project = task, project
        self._dimensions = {
            one.slug: one
            for one in Dimension.objects.prefetch_related("wordings")
            if one.wordings.all()
        }
        self._default, self._called = dimension, called
        for slug in [dimension, *called.values()]:
            if slug:
                self._named(slug)

    def check(self, row: Comparison | Refusal) -> Checked:
        if isinstance(row, Refusal):
            raise ImportRefused(row.reason)
        if not 2 <= len(row.pictures) <= MOST_PER_SET:
            raise ImportRefused(
                f"It has {len(row.pictures)} pictures: 2 to {MOST_PER_SET} can be compared."
            )
        if any("\0" in one.model for one in row.pictures):
            raise ImportRefused("The name of a model holds a null character. Remove it.")
        pictures = [images.decode(one.data, name=one.name) for one in row.pictures]
        hashes = [images.sha256_of(picture) for picture in pictures]
        if len(set(hashes)) < len(hashes):
            raise ImportRefused("Two of its pictures are the same: nothing can be learnt of that.")
        models = [one.model.strip()[:120] for one in row.pictures]
        source, mask = self._source(row), self._mask(row)
        picture, area, prompt = sources.checked(
            self.task, source, mask, row.prompt, size=blank_size(pictures[0])
        )
        order = sorted(range(len(hashes)), key=lambda place: hashes[place])
        content = [(hashes[place], models[place]) for place in order]
        about = [images.sha256_of(picture), images.sha256_of(area)]
        to = {place: index for index, place in enumerate(order)}
        answers = [(self._dimension(row, one), _moved(one, to)) for one in row.answers]
        return Checked(
            row=row,
            prompt=prompt,
            pictures=[pictures[place] for place in order],
            models=[models[place] for place in order],
            turns=_turns(answers),
            source=source,
            mask=mask,
            uid=uid_of(self.project.slug, self.task.slug, prompt, *about, content),
        )

    def _source(self, row: Comparison) -> Pillow.Image | None:
        if row.source is None or not self.task.needs_source:
            return None
        return images.decode(row.source.data, name=row.source.name)

    def _mask(self, row: Comparison) -> Pillow.Image | None:
        if row.mask is None or not self.task.needs_source:
            return None
        return images.decode_mask(row.mask.data, name=row.mask.name)

    def _dimension(self, row: Comparison, answer: Answer) -> Dimension:
        if answer.dimension:
            return self._named(self._called.get(answer.dimension, answer.dimension))
        if self._default:
            return self._named(self._default)
        return self._named(row.folder if row.folder in self._dimensions else DIMENSION)

    def _named(self, slug: str) -> Dimension:
        if slug not in self._dimensions:
            known = ", ".join(sorted(self._dimensions)) or "none"
            raise ImportRefused(
                f"No dimension is called “{slug}” here ({known}). Make it in the admin, or say "
                f"which is meant with --dimension {slug}=…"
            )
        return self._dimensions[slug]


def _moved(answer: Answer, to: Mapping[int, int]) -> Answer:
    if answer.best is None or answer.worst is None:
        return answer
    return replace(answer, best=to[answer.best], worst=to[answer.worst])


def _turns(answers: Sequence[tuple[Dimension, Answer]]) -> list[Turn]:
    """By person; of those who are not named the first answers on every dimension are one's."""
    people: dict[str, list[tuple[Dimension, Answer]]] = {}
    nobody: Counter[int] = Counter()
    for dimension, answer in answers:
        key = f"by {answer.annotator}"
        if not answer.annotator:
            nobody[dimension.pk] += 1
            key = f"{nobody[dimension.pk]}"
        people.setdefault(key, []).append((dimension, answer))
    return [Turn(said[0][1].annotator, tuple(said)) for said in people.values()]


def uid_of(*content: object) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, json.dumps(content, ensure_ascii=False))


def blank_size(picture: Pillow.Image) -> tuple[int, int]:
    """Of the picture that stands for none, where a task starts from the prompt alone."""
    width, height = (min(max(side, sources.SHORTEST), sources.LONGEST) for side in picture.size)
    return width, height
