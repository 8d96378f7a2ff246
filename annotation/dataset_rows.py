"""A batch's rows of a dataset's tables, made in columns from what the database said.

What a judgment says about pairs is what `annotation.preferences` says, for thousands at once: the
best beats the worst (direct) and the others, and those beat the worst (implied).

S sets   C candidates   J judgments   W places, as many as the largest set has candidates
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, cast
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotation.dataset_batches import CODED, TEXT, Said
from annotation.dataset_files import TABLES
from annotation.exports import Origin, origin_of
from annotation.models import Aggregation, Campaign, Dimension, Judgment, Wording
from annotation.portable import set_uid, turn_uid
from annotation.preferences import DIRECT_WEIGHT, IMPLIED_WEIGHT, TIED_WEIGHT
from generation.installation import installation
from generation.models import Policy, Task

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
PICKED, SAME = Judgment.Outcome.PICKED.value, Judgment.Outcome.NO_DIFFERENCE.value


@dataclass(frozen=True)
class Names:
    """What is looked up once: by what the rows that others refer to are called outside."""

    installation: UUID
    pseudonym: Callable[[int], str]
    tasks: Mapping[int, Task]
    dimensions: Mapping[int, str]
    wordings: Mapping[int, int]
    campaigns: Mapping[int, str]
    origins: Mapping[int, str]  # by campaign
    policies: Mapping[int, str]
    accuracy: Mapping[tuple[int, int, int], float]  # by campaign, person and dimension
    imported_weight: float  # of an imported preference, beside that of a person asked here


def names(pseudonym: Callable[[int], str], imported_weight: float = 1.0) -> Names:
    campaigns = list(Campaign.objects.all())
    return Names(
        installation=installation(),
        pseudonym=pseudonym,
        tasks=Task.objects.in_bulk(),
        dimensions=dict(Dimension.objects.values_list("pk", "slug")),
        wordings=dict(Wording.objects.values_list("pk", "version")),
        campaigns={campaign.pk: campaign.name for campaign in campaigns},
        origins={campaign.pk: origin_of(campaign) for campaign in campaigns},
        policies=dict(Policy.objects.values_list("pk", "name")),
        accuracy={
            (found.campaign_id, entry["user"], entry["dimension"]): entry["accuracy"]
            for found in Aggregation.objects.all()
            for entry in found.reliability
        },
        imported_weight=imported_weight,
    )


def written(table: str) -> pa.Schema:
    """The table's schema with its texts coded, as they are made here."""
    schema = TABLES[table]
    return pa.schema([(f.name, CODED if f.type == TEXT else f.type) for f in schema])


class Batch:
    """The rows of a batch, by table."""

    def __init__(self, said: Said, names: Names) -> None:
        self.said = said
        self.names = names

    def tables(self) -> dict[str, pa.RecordBatch]:
        made = {
            "sets": self._sets(),
            "candidates": self._candidates(),
            "judgments": self._judgments(),
            "preferences": self._preferences(),
            "ties": self._ties(),
            "ratings": self._ratings(),
        }
        return {
            name: pa.RecordBatch.from_arrays(
                [columns[column] for column in TABLES[name].names], schema=written(name)
            )
            for name, columns in made.items()
        }

    @cached_property
    def pictures(self) -> Ints:
        """Numbers of the images that the rows show."""
        sets, candidates = self.said.sets, self.said.candidates
        shown = candidates.column("image_id").drop_null()
        columns = (sets.column("source__image_id"), sets.column("source__mask_id"), shown)
        return np.unique(np.concatenate([numbers(column) for column in columns]))

    # Sets and candidates ------------------------------------------------------------------------

    @cached_property
    def set_columns(self) -> dict[str, pa.Array]:
        """What every table says about its set, (S,)"""
        sets = self.said.sets
        tasks = [self.names.tasks[pk] for pk in sets.column("source__task_id").to_pylist()]
        own = sets.column("source__prompt").to_pylist()
        rows = zip(sets.column("pk").to_pylist(), sets.column("uid").to_pylist(), strict=True)
        return {
            "set": coded(set_uid(pk, uid, of=self.names.installation) for pk, uid in rows),
            "task": coded(task.slug for task in tasks),
            "prompt": coded(t.fixed_prompt or p for t, p in zip(tasks, own, strict=True)),
            "source": sets.column("source__image__sha256"),
            "mask": sets.column("source__mask__sha256"),
            "split": sets.column("source__split"),
        }

    def _sets(self) -> dict[str, pa.Array]:
        sets = self.said.sets
        tags = sets.column("tags")
        sorted_tags = [
            json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
            for text in tags.dictionary.to_pylist()
        ]
        return self.set_columns | {
            "size": sets.column("size"),
            "width": sets.column("source__image__width"),
            "height": sets.column("source__image__height"),
            "tags": pa.DictionaryArray.from_arrays(tags.indices, pa.array(sorted_tags, TEXT)),
            "external_id": sets.column("source__external_id"),
            "licence": sets.column("source__licence"),
            "attribution": sets.column("source__attribution"),
        }

    def _candidates(self) -> dict[str, pa.Array]:
        rows = self.said.candidates
        plain = [name for name in TABLES["candidates"].names if name in rows.schema.names]
        return {name: rows.column(name) for name in plain} | {
            "set": self.set_columns["set"].take(pa.array(self.set_of(rows))),
            "image": rows.column("image__sha256"),
            "policy": named(rows.column("policy_id"), self.names.policies),
        }

    def set_of(self, rows: pa.RecordBatch) -> Ints:
        """The place of each row's set among the sets, which lie in the order of their numbers."""
        sets = numbers(self.said.sets.column("pk"))
        return np.searchsorted(sets, numbers(rows.column("set_id")))

    @cached_property
    def images(self) -> Ints:
        """(S, W) which picture the candidate is, -1 where there is none."""
        rows = self.said.candidates
        index = numbers(rows.column("index"))
        found = np.full((len(self.said.sets), int(index.max(initial=0)) + 1), -1)
        found[self.set_of(rows), index] = indices(rows.column("image__sha256"))
        return found

    # Judgments ----------------------------------------------------------------------------------

    @cached_property
    def judged_set(self) -> Ints:
        return self.set_of(self.said.judgments)

    @cached_property
    def best(self) -> Ints:
        """(J,) its index, -1 where none was picked."""
        return self._index_of("best_id")

    @cached_property
    def worst(self) -> Ints:
        return self._index_of("worst_id")

    def _index_of(self, column: str) -> Ints:
        rows = self.said.candidates
        pks, index = numbers(rows.column("pk")), numbers(rows.column("index"))
        order = np.argsort(pks)
        wanted = numbers(self.said.judgments.column(column))  # 0 where there is none
        place = np.searchsorted(pks[order], wanted)
        return np.where(wanted > 0, index[order][np.minimum(place, len(order) - 1)], -1)

    @cached_property
    def shown(self) -> Bools:
        """(J, W) which candidates the person saw, and have a picture."""
        orders = self.said.judgments.column("order")
        lists = [json.loads(text) for text in orders.dictionary.to_pylist()]
        width = self.images.shape[1]
        seen = np.array([[k in order for k in range(width)] for order in lists], bool)
        return seen.reshape(-1, width)[indices(orders)] & (self.images[self.judged_set] >= 0)

    @cached_property
    def outcome(self) -> NDArray[np.str_]:
        column = self.said.judgments.column("outcome")
        return np.array(column.dictionary.to_pylist(), str)[indices(column)]

    def _judgments(self) -> dict[str, pa.Array]:
        rows = self.said.judgments
        return self._turns(rows) | {
            "outcome": rows.column("outcome"),
            "best": pa.array(self.best, mask=self.best < 0),
            "worst": pa.array(self.worst, mask=self.worst < 0),
        }

    def _ratings(self) -> dict[str, pa.Array]:
        rows = self.said.ratings
        return self._turns(rows) | {
            "candidate": rows.column("candidate__index"),
            "value": rows.column("value"),
        }

    def _turns(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """What judgments and ratings have in common."""
        places = pa.array(self.set_of(rows))
        orders = rows.column("order")
        lists = pa.array(
            [json.loads(v) for v in orders.dictionary.to_pylist()], pa.list_(pa.int64())
        )
        campaigns = rows.column("assignment__item__campaign_id")
        wordings = rows.column("wording_id")
        return {
            "set": self.set_columns["set"].take(places),
            "task": self.set_columns["task"].take(places),
            "split": self.set_columns["split"].take(places),
            "assignment": self._turn_uids(rows),
            "campaign": named(campaigns, self.names.campaigns),
            "origin": named(campaigns, self.names.origins),
            "dimension": named(rows.column("dimension_id"), self.names.dimensions),
            "wording": pa.array(
                [self.names.wordings[pk] if pk else None for pk in wordings.to_pylist()], pa.int64()
            ),
            "order": pa.array(lists, pa.list_(pa.int64())).take(orders.indices),
            "annotator": self._annotators(rows),
            "kind": rows.column("assignment__kind"),
            "revision": rows.column("revision"),
            "seconds_spent": rows.column("assignment__seconds_spent"),
            "judged_at": rows.column("created_at"),
        }

    def _annotators(self, rows: pa.RecordBatch) -> pa.DictionaryArray:
        return _by_number(rows.column("assignment__annotator_id"), self.names.pseudonym)

    def _turn_uids(self, rows: pa.RecordBatch) -> pa.DictionaryArray:
        pks, first, codes = np.unique(
            numbers(rows.column("assignment_id")), return_index=True, return_inverse=True
        )
        uids = rows.column("assignment__uid").take(pa.array(first)).to_pylist()
        made = [
            turn_uid(pk, uid, of=self.names.installation)
            for pk, uid in zip(pks.tolist(), uids, strict=True)
        ]
        return _dictionary(codes, made)

    # Pairs --------------------------------------------------------------------------------------

    def _preferences(self) -> dict[str, pa.Array]:
        """Of each judgment with a best and a worst: (best, worst), then for each other candidate
        (best, it) and (it, worst)."""
        best, worst, shown = self.best, self.worst, self.shown
        rows = np.arange(len(best))
        picked = (self.outcome == PICKED) & (best >= 0) & (worst >= 0)
        picked[picked] &= shown[rows[picked], best[picked]] & shown[rows[picked], worst[picked]]
        rows, best, worst, shown = rows[picked], best[picked], worst[picked], shown[picked]
        width = shown.shape[1]
        chosen = np.empty((len(rows), 1 + 2 * width), np.int64)
        rejected, valid = np.empty_like(chosen), np.ones(chosen.shape, bool)
        chosen[:, 0], rejected[:, 0] = best, worst
        for k in range(width):
            place = 1 + 2 * k
            chosen[:, place], rejected[:, place] = best, k
            chosen[:, place + 1], rejected[:, place + 1] = k, worst
            valid[:, place] = valid[:, place + 1] = shown[:, k] & (best != k) & (worst != k)
        pair, columns = self._pairs(rows, chosen, rejected, valid, ("chosen", "rejected"))
        direct = pair == 0
        weight = columns["weight"] * np.where(direct, DIRECT_WEIGHT, IMPLIED_WEIGHT)
        return columns | {
            "relation": _dictionary(np.where(direct, 0, 1), ["direct", "implied"]),
            "weight": pa.array(weight),
        }

    def _ties(self) -> dict[str, pa.Array]:
        """Every pair that was shown, of each judgment that found no difference."""
        rows = np.flatnonzero(self.outcome == SAME)
        shown = self.shown[rows]
        pairs = np.array(list(combinations(range(shown.shape[1]), 2)), np.int64).reshape(-1, 2)
        first = np.broadcast_to(pairs[:, 0], (len(rows), len(pairs)))
        second = np.broadcast_to(pairs[:, 1], (len(rows), len(pairs)))
        valid = shown[:, pairs[:, 0]] & shown[:, pairs[:, 1]]
        _, columns = self._pairs(rows, first, second, valid, ("first", "second"))
        return columns | {"weight": pa.array(columns["weight"] * TIED_WEIGHT)}

    def _pairs(
        self, rows: Ints, one: Ints, other: Ints, valid: Bools, called: tuple[str, str]
    ) -> tuple[Ints, dict[str, Any]]:
        """Of (judgments, pairs) of candidate indexes those that are valid and differ: which pair of
        their judgment each is, and as columns; the weight is that of the answer.

        Two draws may come out pixel for pixel the same; nothing can be learned from that pair.
        """
        sets = self.judged_set[rows][:, None]
        one, other = self.images[sets, one], self.images[sets, other]
        row, pair = np.nonzero(valid & (one != other))
        said, of = self.said.judgments, pa.array(rows[row])
        of_set = pa.array(self.judged_set[rows[row]])
        names = self.said.candidates.column("image__sha256").dictionary
        return pair, {name: column.take(of_set) for name, column in self.set_columns.items()} | {
            "dimension": named(said.column("dimension_id"), self.names.dimensions).take(of),
            called[0]: _dictionary(one[row, pair], names),
            called[1]: _dictionary(other[row, pair], names),
            "annotator": self._annotators(said).take(of),
            "reliability": self._reliability.take(of),
            "weight": self._worth[rows[row]],
            "judged_at": said.column("created_at").take(of),
        }

    @cached_property
    def _worth(self) -> Floats:
        """(J,) what an answer weighs beside that of a person who was asked here."""
        campaigns = self.said.judgments.column("assignment__item__campaign_id").to_pylist()
        imported = [self.names.origins[pk] == Origin.IMPORTED for pk in campaigns]
        return np.where(imported, self.names.imported_weight, 1.0)

    @cached_property
    def _reliability(self) -> pa.Array:
        """(J,) how much better than guessing that person's answers are, 0 to 1."""
        said = self.said.judgments
        if not self.names.accuracy:
            return pa.nulls(len(said), pa.float64())
        keys = ("assignment__item__campaign_id", "assignment__annotator_id", "dimension_id")
        found, codes = np.unique(
            np.stack([numbers(said.column(key)) for key in keys], 1), axis=0, return_inverse=True
        )
        known = [self.names.accuracy.get(tuple(key), np.nan) for key in found.tolist()]
        accuracy = np.array(known, np.float64)[codes.reshape(-1)]
        chance = 1 / (self.shown.sum(1) + 1)  # one of the candidates, or no difference
        sure = np.maximum(0.0, (accuracy - chance) / (1 - chance)).round(4)
        return pa.array(sure, mask=np.isnan(accuracy))


# Columns ----------------------------------------------------------------------------------------


def numbers(column: pa.Array) -> Ints:
    """Whole numbers, 0 where there is none: no row of the database has that number."""
    return cast(Ints, column.fill_null(0).to_numpy(zero_copy_only=False))


def coded(texts: Iterable[str]) -> pa.DictionaryArray:
    return pa.array(list(texts), TEXT).dictionary_encode()


def named(column: pa.Array, known: Mapping[int, str]) -> pa.DictionaryArray:
    return _by_number(column, known.__getitem__)


def _by_number(column: pa.Array, name: Callable[[int], str]) -> pa.DictionaryArray:
    pks, codes = np.unique(numbers(column), return_inverse=True)
    texts = [name(pk) if pk else "" for pk in pks.tolist()]
    return _dictionary(codes, texts, missing=numbers(column) == 0)


def _dictionary(codes: Ints, values: Any, missing: Bools | None = None) -> pa.DictionaryArray:
    texts = values if isinstance(values, pa.Array) else pa.array(values, TEXT)
    indices = pa.array(codes.astype(np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, texts)


def indices(column: pa.DictionaryArray) -> Ints:
    """The codes of texts, -1 where there is none."""
    return cast(Ints, column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
