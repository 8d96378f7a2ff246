"""Datasets: judgments and all they refer to as a directory that anyone can open.

    card.json            schema version, content hash, counts, taxonomy with its wording, policies
    README.md            says the same to people, and to `datasets.load_dataset` which file is which
    sets.parquet         one row per candidate set
    candidates.parquet   one row per candidate, with every value drawn for it
    judgments.parquet    one row per judgment, no-difference and cannot-judge among them
    preferences.parquet  the derived pairs
    ties.parquet         pairs between which somebody found no difference
    images/ab/<sha256>.png

Everything is streamed: memory does not grow with the number of judgments. The content hash is that
of the rows (whatever their order) and the taxonomy; when it was written, and when people judged,
plays no part. `verify` computes it again from the files.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from django.db import connection, transaction
from django.db.models import QuerySet

from annotation import feedback, preferences
from annotation.dataset_files import (
    EXTRA,
    FEEDBACK,
    SCHEMA,
    SCHEMA_VERSION,
    TABLES,
    RowDigest,
    content_hash,
    picture_name,
    read_card,
    rows,
    verify,
)
from annotation.errors import DatasetError
from annotation.models import Aggregation, Campaign, Dimension, Feedback, Judgment
from annotation.pseudonyms import pseudonym
from generation import images
from generation.models import Candidate, CandidateSet, Image, Policy, Source, Split, Task

__all__ = ["DatasetError", "Written", "read_card", "rows", "verify", "write"]

ROW_GROUP = 10_000
CHUNK = 2000
Row = TypeVar("Row")


@dataclass(frozen=True)
class Written:
    content_hash: str
    counts: dict[str, int]


# Writing ----------------------------------------------------------------------------------------


def write(
    directory: Path | str,
    judgments: QuerySet[Judgment],
    *,
    compression: str = "zstd",
    implied: WeightedFeedback | None = None,
    imported_weight: float = 1.0,
) -> Written:
    """Write these judgments, as they are given, to a new or empty directory.

    `implied` adds what production says, in a file of its own; preferences that were imported weigh
    `imported_weight` times a person's. The directory appears whole or not at all.
    """
    target = Path(directory)
    if target.is_dir() and any(target.iterdir()):
        raise DatasetError(f"'{target}' already holds files. Choose a new or empty directory.")
    if target.exists() and not target.is_dir():
        raise DatasetError(f"'{target}' is a file. Choose a new or empty directory.")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with _one_moment():
            written = _write_all(draft, judgments, compression, implied, imported_weight)
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return written


@contextmanager
def _one_moment() -> Iterator[None]:
    """All tables show the database at one moment; inside a caller's transaction, that one's."""
    inside = connection.in_atomic_block
    with transaction.atomic():
        if not inside:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _write_all(
    draft: Path,
    judgments: QuerySet[Judgment],
    compression: str,
    implied: WeightedFeedback | None,
    imported_weight: float,
) -> Written:
    judged = judgments.order_by()
    pictures = _Pictures(draft / "images")
    sets = CandidateSet.objects.filter(pk__in=judged.values("set"))
    schemas = TABLES if implied is None else {**TABLES, **EXTRA}
    with _Tables(draft, compression, schemas) as tables:
        _write_judgments(tables, judged, imported_weight)
        if implied is not None:
            sets = sets | CandidateSet.objects.filter(pk__in=_write_feedback(tables, implied))
        _write_sets(tables, pictures, sets)
        sums, counts = tables.sums(), tables.counts() | {"images": pictures.count}
    taxonomy = _taxonomy(judged, implied)
    digest = content_hash(sums, taxonomy)
    licences = Source.objects.filter(sets__judgments__in=judged).values_list("licence", flat=True)
    card = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "content_hash": digest,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": counts,
        "taxonomy": taxonomy,
        "policies": _policies(judged),
        "licence": sorted({licence or "not stated" for licence in licences.distinct()}),
    }
    if implied is not None:
        card[FEEDBACK] = {
            "weight": implied.weight,
            "events": implied.rows.count(),
            "preferences": counts[FEEDBACK],
            "dimension": feedback.DIMENSION,
        }
    (draft / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    (draft / "README.md").write_text(_readme(card))
    return Written(digest, counts)


def _write_judgments(
    tables: _Tables, judgments: QuerySet[Judgment], imported_weight: float
) -> None:
    judged = preferences.with_context(judgments).select_related(
        "assignment__item__campaign", "wording"
    )
    accuracies = _accuracies(judgments)
    for chunk in _chunks(judged.order_by("pk").iterator(chunk_size=CHUNK)):
        shown = preferences.candidates_of({row.set_id for row in chunk})
        for row in chunk:
            candidates = shown.get(row.set_id, [])
            indexes = {candidate.pk: candidate.index for candidate in candidates}
            tables.add("judgments", _judgment_row(row, indexes))
            turn, campaign = row.assignment, row.assignment.item.campaign
            worth = imported_weight if campaign.origin == Campaign.Origin.IMPORTED else 1.0
            accuracy = accuracies.get((campaign.pk, turn.annotator_id, row.dimension_id))
            common = {
                "annotator": pseudonym(turn.annotator_id),
                "reliability": _reliability(accuracy, len(candidates)),
                "judged_at": row.created_at,
            }
            for preference in preferences.of_judgment(row, candidates):
                said = asdict(preference) | common
                tables.add("preferences", said | {"weight": preference.weight * worth})
            for tie in preferences.ties_of(row, candidates):
                tables.add("ties", asdict(tie) | common | {"weight": tie.weight * worth})


@dataclass(frozen=True)
class WeightedFeedback:
    """Events in production, and what a preference that they imply weighs beside a person's."""

    rows: QuerySet[Feedback]
    weight: float


def _write_feedback(tables: _Tables, implied: WeightedFeedback) -> set[int]:
    """The sets it is about. Held-out pictures are left out: what is measured there people said."""
    sets = set()
    for one in feedback.derive(implied.rows):
        if one.preference.split != Split.TRAIN:
            continue
        sets.add(one.preference.set)
        row = asdict(one.preference) | {
            "weight": one.preference.weight * implied.weight,
            "annotator": one.user,
            "reliability": None,
            "judged_at": one.happened_at,
        }
        tables.add(FEEDBACK, row)
    return sets


def _accuracies(judgments: QuerySet[Judgment]) -> dict[tuple[int, int, int], float]:
    """By campaign, person and dimension, where the campaign was aggregated."""
    campaigns = judgments.values("assignment__item__campaign")
    return {
        (found.campaign_id, entry["user"], entry["dimension"]): entry["accuracy"]
        for found in Aggregation.objects.filter(campaign__in=campaigns)
        for entry in found.reliability
    }


def _reliability(accuracy: float | None, candidates: int) -> float | None:
    """How much better than guessing answers of that accuracy are, 0 to 1."""
    if accuracy is None:
        return None
    chance = 1 / (candidates + 1)  # one of the candidates, or no difference
    return round(max(0.0, (accuracy - chance) / (1 - chance)), 4)


def _judgment_row(row: Judgment, indexes: Mapping[int, int]) -> dict[str, Any]:
    turn, campaign = row.assignment, row.assignment.item.campaign
    return {
        "assignment": turn.pk,
        "set": row.set_id,
        "task": row.set.source.task.slug,
        "campaign": campaign.name,
        "dimension": row.dimension.slug,
        "wording": row.wording.version,
        "outcome": row.outcome,
        "best": indexes.get(row.best_id or 0),
        "worst": indexes.get(row.worst_id or 0),
        "order": turn.order,
        "annotator": pseudonym(turn.annotator_id),
        "simulated": campaign.simulated,
        "revision": row.revision,
        "seconds_spent": turn.seconds_spent,
        "split": row.set.source.split,
        "judged_at": row.created_at,
    }


def _write_sets(tables: _Tables, pictures: _Pictures, sets: QuerySet[CandidateSet]) -> None:
    sets = sets.select_related("source__task", "source__image", "source__mask").order_by("pk")
    for chunk in _chunks(sets.iterator(chunk_size=CHUNK)):
        for row in chunk:
            pictures.keep(row.source.image)
            pictures.keep(row.source.mask)
            tables.add("sets", _set_row(row))
        candidates = (
            Candidate.objects.filter(set__in=chunk)
            .select_related("policy", "image")
            .order_by("set_id", "index")
        )
        for candidate in candidates:
            if candidate.image is not None:
                pictures.keep(candidate.image)
            tables.add("candidates", _candidate_row(candidate))


def _set_row(row: CandidateSet) -> dict[str, Any]:
    source = row.source
    return {
        "set": row.pk,
        "task": source.task.slug,
        "prompt": source.effective_prompt,
        "source": source.image.sha256,
        "mask": source.mask.sha256,
        "split": source.split,
        "size": row.size,
        "width": source.image.width,
        "height": source.image.height,
        "tags": json.dumps(source.tags, sort_keys=True, ensure_ascii=False),
        "external_id": source.external_id,
        "licence": source.licence,
        "attribution": source.attribution,
    }


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "set": candidate.set_id,
        "index": candidate.index,
        "image": candidate.image.sha256 if candidate.image else None,
        "policy": candidate.policy.name,
        "seed": candidate.seed,
        "num_inference_steps": candidate.num_inference_steps,
        "strength": candidate.strength,
        "guidance_scale": candidate.guidance_scale,
        "true_cfg_scale": candidate.true_cfg_scale,
        "negative_prompt": candidate.negative_prompt,
        "prompt": candidate.prompt,
        "width": candidate.width,
        "height": candidate.height,
    }


def _taxonomy(judgments: QuerySet[Judgment], implied: WeightedFeedback | None) -> dict[str, Any]:
    tasks = Task.objects.filter(sources__sets__judgments__in=judgments).distinct()
    dimensions = Dimension.objects.filter(judgments__in=judgments).distinct()
    if implied is not None:
        sets = implied.rows.values("candidate__set")
        tasks |= Task.objects.filter(sources__sets__in=sets).distinct()
        dimensions |= Dimension.objects.filter(slug=feedback.DIMENSION).distinct()
    return {
        "tasks": {
            task.slug: {"name": task.name, "wording": task.wording}
            # Said only where it is so: a snapshot's hash counts what stands here.
            | ({} if task.needs_source else {"needs_source": False})
            for task in tasks.order_by("pk")
        },
        "dimensions": {
            dimension.slug: {
                "name": dimension.name,
                "question": dimension.wording.question,
                "query": dimension.wording.query,
                "guideline": dimension.wording.guideline,
                "version": dimension.wording.version,
                "uses_prompt": dimension.uses_prompt,
            }
            for dimension in dimensions.order_by("pk").prefetch_related("wordings")
        },
    }


def _policies(judgments: QuerySet[Judgment]) -> dict[str, Any]:
    policies = Policy.objects.filter(candidates__set__judgments__in=judgments).distinct()
    return {
        policy.name: {
            "kind": policy.kind,
            # A path says nothing outside the machine it is on.
            "location": "" if os.path.isabs(policy.location) else policy.location,
            "revision": policy.revision,
            "parent": policy.parent.name if policy.parent else None,
        }
        for policy in policies.select_related("parent").order_by("pk")
    }


def _readme(card: Mapping[str, Any]) -> str:
    configs = "".join(
        f"- config_name: {name}\n  data_files: {name}.parquet\n"
        + ("  default: true\n" if name == "preferences" else "")
        for name in ["preferences", "ties", "judgments", "candidates", "sets", FEEDBACK]
        if name != FEEDBACK or FEEDBACK in card
    )
    counts = ", ".join(f"{count} {name}" for name, count in card["counts"].items())
    asked = "".join(
        f"- **{row['name']}** (`{slug}`): {row['question']}\n"
        for slug, row in card["taxonomy"]["dimensions"].items()
    )
    return (
        f"---\nconfigs:\n{configs}---\n\n# Judgments of image edits\n\n{counts}.\n\n"
        f"People were asked, dimension by dimension:\n\n{asked}\n"
        "`preferences.parquet` is derived from `judgments.parquet`: best over worst (direct, "
        "weight 1) and best over the others, the others over worst (implied, weight 0.5); "
        "`ties.parquet` holds every pair of a set in which no difference was found (weight 0.5). "
        f"{_about_feedback(card)}"
        "Pictures are named by the sha256 of their file: `images/ab/<sha256>.png`.\n\n"
        f"Content hash: `{card['content_hash']}`\n"
    )


def _about_feedback(card: Mapping[str, Any]) -> str:
    if FEEDBACK not in card:
        return ""
    said = card[FEEDBACK]
    return (
        "`feedback.parquet` holds preferences that nobody was asked for: what became of pictures "
        f"in production ({said['events']} events), as answers about `{said['dimension']}`, weighed "
        f"{said['weight']:g} times a person's. "
    )


class _Tables:
    """The parquet files while they are written: rows go out in groups, their digests are summed."""

    def __init__(self, directory: Path, compression: str, schemas: Mapping[str, pa.Schema]) -> None:
        self._schemas = schemas
        self._writers = {
            name: pq.ParquetWriter(directory / f"{name}.parquet", schema, compression=compression)
            for name, schema in schemas.items()
        }
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in schemas}
        self._digests = {name: RowDigest() for name in schemas}

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        for name, writer in self._writers.items():
            if kind is None:
                self._flush(name)
            writer.close()

    def add(self, name: str, row: dict[str, Any]) -> None:
        self._digests[name].add(row)
        self._waiting[name].append(row)
        if len(self._waiting[name]) == ROW_GROUP:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if rows := self._waiting[name]:
            table = pa.Table.from_pylist(rows, schema=self._schemas[name])
            self._writers[name].write_table(table, row_group_size=ROW_GROUP)
            rows.clear()

    def counts(self) -> dict[str, int]:
        return {name: digest.count for name, digest in self._digests.items()}

    def sums(self) -> dict[str, str]:
        return {name: digest.hex() for name, digest in self._digests.items()}


class _Pictures:
    """The image files: hard links where the store is on the same disk, copies elsewhere."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.count = 0

    def keep(self, image: Image) -> None:
        path = self._directory / picture_name(image.sha256)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(images.local_path(image), path)
        except (OSError, NotImplementedError):
            try:
                path.write_bytes(images.read_bytes(image))
            except images.ImageError as error:
                raise DatasetError(str(error)) from error
        self.count += 1


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
