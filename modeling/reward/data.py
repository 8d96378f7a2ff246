"""Read a snapshot's preferences as pairs of pictures with questions.

A pair shows two candidates of one set and asks every dimension that somebody judged for it;
answers of several annotators are averaged, each with its weight (see `labels`). Where ties are
asked for, a question also knows the share of the answers that found no difference.

A *swap* shows the chosen pictures of two sources of one task, each good for its own prompt, and
asks a prompt-using dimension once with either prompt: the same two pictures, so that only reading
the prompt tells the questions apart. Ordinary pairs do not teach this, since the better drawn
candidate usually is the better match, too.

Shapes: N distinct pictures of a batch, B shown orders (two a pair), D questions.
"""

from __future__ import annotations

import io
import json
import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modeling.reward.query import render_query
from modeling.reward.view import reward_context, reward_view
from modeling.reward.view_config import ViewConfig
from modeling.rundir import RunError, whole_bytes

COLUMNS = [
    "set",
    "task",
    "dimension",
    "prompt",
    "source",
    "mask",
    "chosen",
    "rejected",
    "relation",
    "weight",
    "split",
]
# Of the answer's weight; datasets of version 1 lack them.
LATER_COLUMNS = ["reliability", "judged_at"]
TIE_COLUMNS = [c for c in COLUMNS if c not in ("chosen", "rejected", "relation")]
TIE_COLUMNS += ["first", "second", *LATER_COLUMNS]
CACHE_BYTES = 2**30
Texts = tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A picture (sha256) with the source and mask that its view needs; "" where a task has none."""

    image: str
    source: str
    mask: str


@dataclass(frozen=True)
class Question:
    dimension: str
    query: str
    target: float  # share of the decided answers that call the first picture the better one
    weight: float
    relation: str  # direct, implied, swap or tied
    tie: float = 0.0  # share of all answers that found no difference


@dataclass(frozen=True)
class Pair:
    key: str
    task: str
    source: str
    first: Shown
    second: Shown
    questions: tuple[Question, ...]
    size: tuple[int, int]  # height, width


@dataclass(frozen=True)
class Good:
    """A picture that was chosen for its own prompt on a prompt-using dimension."""

    task: str
    dimension: str
    prompt: str
    shown: Shown
    size: tuple[int, int]


class Snapshot:
    """A dataset directory in the canonical form; see the dataset contract."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        for name in ("card.json", "preferences.parquet"):
            if not (self.directory / name).is_file():
                raise RunError(
                    f"'{self.directory}' is not a snapshot: it has no {name}. Give the directory "
                    "of a snapshot or of an exported dataset."
                )
        self.card: dict[str, Any] = json.loads((self.directory / "card.json").read_text())
        self.tasks: dict[str, Any] = self.card["taxonomy"]["tasks"]
        self.dimensions: dict[str, Any] = self.card["taxonomy"]["dimensions"]
        self.rows = self._read("preferences.parquet", COLUMNS + LATER_COLUMNS)
        if "feedback" in self.card:  # asked for when the snapshot was taken, and weighed then
            self.rows += self._read("feedback.parquet", COLUMNS + LATER_COLUMNS)
        self.ties: list[dict[str, Any]] = []
        if (self.directory / "ties.parquet").is_file():
            self.ties = self._read("ties.parquet", TIE_COLUMNS)
        self._check()

    def _read(self, name: str, columns: list[str]) -> list[dict[str, Any]]:
        file = pq.ParquetFile(self.directory / name)
        there = set(file.schema_arrow.names)
        rows: list[dict[str, Any]] = file.read([c for c in columns if c in there]).to_pylist()
        return rows

    def _check(self) -> None:
        for column, known in (("task", self.tasks), ("dimension", self.dimensions)):
            unknown = {row[column] for row in self.rows + self.ties} - set(known)
            if unknown:
                raise RunError(
                    f"The snapshot's card.json does not describe the {column} "
                    f"'{sorted(unknown)[0]}' that its preferences name."
                )
        splits = defaultdict(set)
        for row in self.rows + self.ties:
            # Where the prompt alone is asked for, all rows share one blank picture.
            blank = not self.tasks[row["task"]].get("needs_source", True)
            begins = f"the prompt “{row['prompt']}”" if blank else row["source"]
            if begins:
                splits[begins].add(row["split"])
        both = sorted(source for source, found in splits.items() if len(found) > 1)
        if both:
            raise RunError(
                f"{len(both)} source pictures are in more than one split (the first is {both[0]}): "
                "held-out figures would be too good. Take the snapshot again."
            )

    @property
    def content_hash(self) -> str:
        return str(self.card.get("content_hash", ""))

    def order(self, before: Texts, number: str, behind: Texts) -> Texts:
        """How what belongs to a set is sorted: by its pictures before its name, so that the same
        labels are learnt in the same order on every installation. Up to version 2 sets had numbers,
        which came first."""
        if self.card.get("schema_version", 1) > 2:
            return (*before, *behind, number)
        return (*before, number, *behind)

    def query(self, task: str, dimension: str, prompt: str | None) -> str:
        wording = self.dimensions[dimension]
        return render_query(
            task=self.tasks[task]["wording"],
            question=wording["query"],
            prompt=prompt if wording["uses_prompt"] else None,
        )

    def path(self, digest: str) -> Path:
        folder = self.directory / "images" / digest[:2]
        path = folder / f"{digest}.png"
        if not path.is_file():
            path = next(iter(folder.glob(f"{digest}.*")), path)
        if not path.is_file():
            raise RunError(f"The snapshot's picture {digest} is missing from '{folder}'.")
        return path

    def size(self, digest: str) -> tuple[int, int]:
        with Image.open(self.path(digest)) as image:
            return image.height, image.width


def _shown(row: dict[str, Any], image: str) -> Shown:
    return Shown(image=image, source=row["source"] or "", mask=row["mask"] or "")


def pairs_of(snapshot: Snapshot, split: str, *, ties: bool = False) -> list[Pair]:
    """All judged pairs of a split, in a fixed order; questions without a majority are left out.

    With `ties` answers that found no difference count, too; without, nobody gave them.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in snapshot.rows:
        if row["split"] == split and row["chosen"] != row["rejected"]:
            low, high = sorted((row["chosen"], row["rejected"]))
            groups[(str(row["set"]), low, high)].append(row)
    for row in snapshot.ties if ties else []:
        if row["split"] == split:
            low, high = sorted((row["first"], row["second"]))
            groups[(str(row["set"]), low, high)].append({**row, "relation": "tied"})
    pairs = []
    sizes: dict[str, tuple[int, int]] = {}
    ordered = sorted(groups, key=lambda group: snapshot.order((), group[0], group[1:]))
    for group, low, high in ordered:
        rows = groups[group, low, high]
        for image in (low, high):
            sizes.setdefault(image, snapshot.size(image))
        if sizes[low] != sizes[high]:
            raise RunError(
                f"The candidates {low} and {high} of one set differ in size; a pair needs one size."
            )
        questions = _questions(snapshot, rows, low)
        if questions:
            row = rows[0]
            pairs.append(
                Pair(
                    key=":".join(snapshot.order((), group, (low[:16], high[:16]))),
                    task=row["task"],
                    source=row["source"] or str(row["set"]),
                    first=_shown(row, low),
                    second=_shown(row, high),
                    questions=questions,
                    size=sizes[low],
                )
            )
    return pairs


def _questions(
    snapshot: Snapshot, rows: Sequence[dict[str, Any]], first: str
) -> tuple[Question, ...]:
    by_dimension: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_dimension[row["dimension"]].append(row)
    questions = []
    for dimension, judged in sorted(by_dimension.items()):
        total = sum(row["weight"] for row in judged)
        decided = [row for row in judged if row["relation"] != "tied"]
        tied = sum(row["weight"] for row in judged if row["relation"] == "tied")
        won = sum(row["weight"] for row in decided if row["chosen"] == first)
        if total <= 0 or (not tied and won * 2 == total):
            continue
        relations = {row["relation"] for row in judged}
        questions.append(
            Question(
                dimension=dimension,
                query=snapshot.query(judged[0]["task"], dimension, judged[0]["prompt"]),
                target=won / (total - tied) if decided else 0.5,
                weight=total / len(judged),
                relation=next(r for r in ("direct", "implied", "tied") if r in relations),
                tie=tied / total,
            )
        )
    return tuple(questions)


def tied_pairs(snapshot: Snapshot, split: str) -> list[Pair]:
    """Pairs of a split between which everybody who answered found no difference."""
    found = []
    for pair in pairs_of(snapshot, split, ties=True):
        questions = tuple(question for question in pair.questions if question.tie == 1)
        if questions:
            found.append(replace(pair, key=f"tied:{pair.key}", questions=questions))
    return found


def good_pictures(snapshot: Snapshot, split: str) -> list[Good]:
    """Pictures named the best of their set, never the worse of a pair, on a prompt dimension."""
    chosen: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    rejected = set()
    for row in snapshot.rows:
        if row["split"] != split or not snapshot.dimensions[row["dimension"]]["uses_prompt"]:
            continue
        place = (row["task"], row["dimension"], str(row["set"]))
        rejected.add((*place, row["rejected"]))
        if row["relation"] == "direct":
            chosen[(*place, row["chosen"])] = row
    return [
        Good(
            task=task,
            dimension=dimension,
            prompt=row["prompt"] or "",
            shown=_shown(row, image),
            size=snapshot.size(image),
        )
        for task, dimension, group, image in sorted(
            chosen, key=lambda one: snapshot.order(one[:2], one[2], one[3:])
        )
        for row in [chosen[task, dimension, group, image]]
        if (task, dimension, group, image) not in rejected
    ]


def swap_pair(snapshot: Snapshot, one: Good, other: Good) -> Pair:
    """Both prompts over the chosen pictures of two sources."""
    questions = tuple(
        Question(
            dimension=one.dimension,
            query=snapshot.query(one.task, one.dimension, prompt),
            target=target,
            weight=1.0,
            relation="swap",
        )
        for prompt, target in ((one.prompt, 1.0), (other.prompt, 0.0))
    )
    key = f"swap:{one.dimension}:{one.shown.image[:16]}:{other.shown.image[:16]}"
    return Pair(key, one.task, one.shown.source, one.shown, other.shown, questions, one.size)


class Swaps:
    """Draws swap pairs among the good pictures of a split."""

    def __init__(self, snapshot: Snapshot, goods: Iterable[Good]) -> None:
        self.snapshot = snapshot
        groups: dict[tuple[str, str, tuple[int, int]], list[Good]] = defaultdict(list)
        for good in goods:
            if good.prompt:
                groups[(good.task, good.dimension, good.size)].append(good)
        self.groups = {
            key: group
            for key, group in sorted(groups.items())
            if len({good.prompt for good in group}) > 1
        }

    def __bool__(self) -> bool:
        return bool(self.groups)

    def draw(
        self, rng: np.random.Generator, count: int, size: tuple[int, int] | None = None
    ) -> list[Pair]:
        """`count` swaps (fewer where `size` has none), tasks and dimensions equally often."""
        keys = [key for key in self.groups if size is None or key[2] == size]
        return [
            self._one(rng, keys[int(rng.integers(len(keys)))]) for _ in range(count if keys else 0)
        ]

    def spread(self, rng: np.random.Generator, each: int) -> list[Pair]:
        """Up to `each` distinct swaps for every task and dimension, for evaluation."""
        found: dict[str, Pair] = {}
        for key, group in self.groups.items():
            wanted = min(each, len(group) * (len(group) - 1) // 2)
            drawn: dict[str, Pair] = {}
            for _ in range(20 * wanted):
                if len(drawn) == wanted:
                    break
                pair = self._one(rng, key)
                drawn[pair.key] = pair
            found |= drawn
        return list(found.values())

    def _one(self, rng: np.random.Generator, key: tuple[str, str, tuple[int, int]]) -> Pair:
        group = self.groups[key]
        one = group[int(rng.integers(len(group)))]
        others = [good for good in group if good.prompt != one.prompt]
        return swap_pair(self.snapshot, one, others[int(rng.integers(len(others)))])


def calibration_split(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(train, calibration): a share of the sources, none of them in both."""
    sources = sorted({pair.source for pair in pairs})
    count = round(share * len(sources))
    if len(sources) - count < 1:
        count = 0
    kept = set(np.random.default_rng([seed, 1]).permutation(sources)[:count].tolist())
    train = [pair for pair in pairs if pair.source not in kept]
    return train, [pair for pair in pairs if pair.source in kept]


def batches_of_epoch(
    pairs: Sequence[Pair], *, batch_size: int, seed: int, epoch: int
) -> list[list[Pair]]:
    """The epoch's batches: random order, one picture size in each batch."""
    rng = np.random.default_rng([seed, 2, epoch])
    by_size: dict[tuple[int, int], list[Pair]] = defaultdict(list)
    for index in rng.permutation(len(pairs)):
        by_size[pairs[int(index)].size].append(pairs[int(index)])
    batches = [
        group[start : start + batch_size]
        for _, group in sorted(by_size.items())
        for start in range(0, len(group), batch_size)
    ]
    return [batches[int(i)] for i in rng.permutation(len(batches))]


class Pictures:
    """Decoded pictures and their views, the most recently used kept within a memory limit."""

    def __init__(self, snapshot: Snapshot, view: ViewConfig) -> None:
        self.snapshot, self.view = snapshot, view
        self.cache: OrderedDict[tuple[str, str, int, int], NDArray[np.uint8]] = OrderedDict()
        self.bytes = 0

    def _decoded(self, digest: str, mode: str, height: int, width: int) -> NDArray[np.uint8]:
        key = (digest, mode, height, width)
        if key not in self.cache:
            content = whole_bytes(self.snapshot.path(digest))
            with Image.open(io.BytesIO(content)) as image:
                picture = image.convert(mode)
            if picture.size != (width, height):
                method = Image.Resampling.NEAREST if mode == "L" else Image.Resampling.BICUBIC
                picture = picture.resize((width, height), method)
            self.cache[key] = np.array(picture)
            self.bytes += self.cache[key].nbytes
            while self.bytes > CACHE_BYTES and len(self.cache) > 1:
                self.bytes -= self.cache.popitem(last=False)[1].nbytes
        self.cache.move_to_end(key)
        return self.cache[key]

    def views(self, shown: Sequence[Shown], size: tuple[int, int]) -> Tensor:
        """(N, 3, H, W) reward views in [0, 1]."""
        height, width = size
        images, sources, masks = [], [], []
        for one in shown:
            image = self._decoded(one.image, "RGB", height, width)
            images.append(image)
            # A task without a source edits everything.
            sources.append(self._decoded(one.source, "RGB", height, width) if one.source else image)
            mask = self._decoded(one.mask, "L", height, width) if one.mask else None
            masks.append(np.full(size, 255, np.uint8) if mask is None else mask)
        pictures, originals = (
            torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2).float() / 255
            for stack in (images, sources)
        )
        areas = torch.from_numpy((np.stack(masks) > 127).astype(np.float32))[:, None]
        return reward_view(pictures, originals, areas, self.view)

    def contexts(self, pairs: Sequence[Pair], size: tuple[int, int]) -> Tensor | None:
        """(pairs, 3, H, W), what both pictures of each pair were made from; None without."""
        if not self.view.context:
            return None
        sources, masks = [], []
        for pair in pairs:
            one, other = pair.first, pair.second
            # Two sources share nothing, and all is edited where there is none: a grey picture.
            known = one.source and one.mask and (one.source, one.mask) == (other.source, other.mask)
            white = np.full((*size, 3), 255, np.uint8)
            sources.append(self._decoded(one.source, "RGB", *size) if known else white)
            masks.append(self._decoded(one.mask, "L", *size) if known else white[..., 0])
        originals = torch.from_numpy(np.stack(sources)).permute(0, 3, 1, 2).float() / 255
        areas = torch.from_numpy((np.stack(masks) > 127).astype(np.float32))[:, None]
        return reward_context(originals, areas, self.view)


@dataclass
class Batch:
    """The orders in which pairs are shown, and what is right about them.

    In both orders 2i shows pair i as it is, 2i + 1 the other way round; otherwise i shows pair i.
    """

    images: Tensor  # (N, 3, H, W)
    # B rows (first, second) of indices into `images`, with the context before them if shown.
    orders: list[tuple[int, ...]]
    queries: list[list[str]]  # B rows of D
    target: Tensor  # (B, D), 0 where a row is shorter
    weight: Tensor  # (B, D), 0 where a row is shorter
    tie: Tensor  # (B, D), the share of answers that found no difference
    judged: Tensor  # (B, D), whether people answered, who could find none


def make_batch(pairs: Sequence[Pair], pictures: Pictures, *, both: bool = True) -> Batch:
    places: dict[Shown, int] = {}
    for pair in pairs:
        for picture in (pair.first, pair.second):
            places.setdefault(picture, len(places))
    width = max(len(pair.questions) for pair in pairs)
    each = 2 if both else 1
    target, weight, tie = (torch.zeros(each * len(pairs), width) for _ in range(3))
    judged = torch.zeros(each * len(pairs), width, dtype=torch.bool)
    orders: list[tuple[int, ...]] = []
    queries = []
    for i, pair in enumerate(pairs):
        a, b = places[pair.first], places[pair.second]
        orders += [(a, b), (b, a)][:each]
        queries += [[question.query for question in pair.questions]] * each
        rows = slice(each * i, each * (i + 1))
        for d, question in enumerate(pair.questions):
            target[rows, d] = torch.tensor([question.target, 1 - question.target])[:each]
            weight[rows, d] = question.weight / each
            tie[rows, d] = question.tie
            judged[rows, d] = question.relation != "swap"
    images = pictures.views(list(places), pairs[0].size)
    contexts = pictures.contexts(pairs, pairs[0].size)
    if contexts is not None:
        orders = [(len(places) + row // each, *order) for row, order in enumerate(orders)]
        images = torch.cat([images, contexts])
    return Batch(images, orders, queries, target, weight, tie, judged)


def turned(pair: Pair) -> Pair:
    """The same pair and answers with the pictures the other way round."""
    questions = tuple(replace(q, target=1 - q.target) for q in pair.questions)
    return replace(pair, first=pair.second, second=pair.first, questions=questions)


def shard(pairs: list[Pair], index: int, count: int) -> list[Pair]:
    """Process `index`'s part of a batch; a part is never empty, a repeated pair weighs nothing."""
    mine = pairs[index::count]
    if mine:
        return mine
    questions = tuple(replace(question, weight=0.0) for question in pairs[0].questions)
    return [replace(pairs[0], questions=questions)]


def count_questions(pairs: Iterable[Pair]) -> int:
    return sum(len(pair.questions) for pair in pairs)


def steps_for(pairs: Sequence[Pair], *, steps: int, epochs: float, batch_size: int) -> int:
    sizes: dict[tuple[int, int], int] = defaultdict(int)
    for pair in pairs:
        sizes[pair.size] += 1
    per_epoch = sum(math.ceil(n / batch_size) for n in sizes.values())
    return steps or max(1, round(epochs * per_epoch))
