"""What every format says in its own words: pictures of one prompt, and what people said of them.

A reader yields these from foreign files, `canonical.read` from a dataset directory, and a writer
takes them. Pictures stay undecoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from generation.images import Readable

Outcome = Literal["picked", "no_difference", "cannot_judge"]
Choice = Literal["first", "second", "same", "unknown"]


@dataclass(frozen=True)
class Picture:
    data: Readable
    name: str  # of its file, or where in the row it stands
    sha256: str = ""  # known where it comes from a dataset of ours
    model: str = ""
    seed: int | None = None

    def bytes(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else Path(str(self.data)).read_bytes()


@dataclass(frozen=True)
class Answer:
    """What one person said on one dimension; `best` and `worst` are places among the pictures."""

    outcome: Outcome
    best: int | None = None
    worst: int | None = None
    dimension: str = ""  # empty where the format names none
    annotator: str = ""  # empty where the format names nobody
    at: datetime | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    prompt: str
    pictures: tuple[Picture, ...]
    answers: tuple[Answer, ...]
    name: str = ""  # the row: "line 3"
    folder: str = ""  # that its file is in, where many were read
    source: Picture | None = None
    mask: Picture | None = None
    key: str = ""
    task: str = ""
    split: str = "train"
    external_id: str = ""
    said: dict[str, str] = field(default_factory=dict)  # tags, licence, attribution, as they are

    def dimensions(self) -> list[str]:
        return sorted({answer.dimension for answer in self.answers})

    def on(self, dimension: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.dimension == dimension]


class RowError(ValueError):
    """What is wrong with a row, in a sentence."""


# Pairs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vote:
    answer: Answer
    choice: Choice
    direct: bool  # said so, not only implied by another best or worst


@dataclass(frozen=True)
class Pair:
    """Two pictures, in the order of their hashes: which stands first says nothing."""

    first: Picture
    second: Picture
    votes: tuple[Vote, ...]

    def count(self, choice: Choice) -> int:
        return sum(vote.choice == choice for vote in self.votes)

    def preferred(self) -> tuple[Picture, Picture] | None:
        """The one that more people prefer, and the other."""
        first, second = self.count("first"), self.count("second")
        if first == second:
            return None
        return (self.first, self.second) if first > second else (self.second, self.first)


def pairs(row: Comparison, dimension: str) -> list[Pair]:
    """A best and a worst of N give the pairs that they are part of; the rest has no votes."""
    answers = row.on(dimension)
    found = []
    for i, j in combinations(range(len(row.pictures)), 2):
        if (row.pictures[j].sha256, j) < (row.pictures[i].sha256, i):
            i, j = j, i
        votes = tuple(vote for answer in answers if (vote := _vote(answer, i, j)) is not None)
        if votes and row.pictures[i].sha256 != row.pictures[j].sha256:
            found.append(Pair(row.pictures[i], row.pictures[j], votes))
    return found


def _vote(answer: Answer, i: int, j: int) -> Vote | None:
    if answer.outcome == "no_difference":
        return Vote(answer, "same", direct=True)
    if answer.outcome == "cannot_judge":
        return Vote(answer, "unknown", direct=True)
    direct = {answer.best, answer.worst} == {i, j}
    if answer.best == i or answer.worst == j:
        return Vote(answer, "first", direct)
    if answer.best == j or answer.worst == i:
        return Vote(answer, "second", direct)
    return None


def answer_of(choice: Choice, **of: Any) -> Answer:
    """What somebody said of two pictures."""
    if choice == "same":
        return Answer("no_difference", **of)
    if choice == "unknown":
        return Answer("cannot_judge", **of)
    return Answer("picked", *((0, 1) if choice == "first" else (1, 0)), **of)


def decided(row: Comparison, dimension: str) -> Iterator[tuple[Picture, Picture, Vote]]:
    """Chosen and rejected, vote by vote."""
    for pair in pairs(row, dimension):
        for vote in pair.votes:
            if vote.choice == "first":
                yield pair.first, pair.second, vote
            elif vote.choice == "second":
                yield pair.second, pair.first, vote


# Rankings ---------------------------------------------------------------------------------------


def ranks(answer: Answer, n: int) -> list[int]:
    """1 the best; those between the best and the worst share a rank: nobody told them apart."""
    if answer.outcome != "picked":
        return [1] * n
    between = 2 if n > 2 else 1
    return [
        1 if place == answer.best else between + 1 if place == answer.worst else 2
        for place in range(n)
    ]


def common_ranks(answers: Sequence[Answer], n: int) -> list[int]:
    """The dense ranks of all answers together: by the mean of their ranks."""
    totals = [0] * n
    for answer in answers:
        for place, rank in enumerate(ranks(answer, n)):
            totals[place] += rank
    order = {total: rank for rank, total in enumerate(sorted(set(totals)), 1)}
    return [order[total] for total in totals]


def of_ranking(ranking: Sequence[int], most: int) -> list[tuple[tuple[int, ...], Answer]]:
    """What a ranking says, as answers about all its pictures or about pairs of them.

    One answer where one picture is the best and one the worst and the pictures make a set; else
    every pair that it orders, or leaves equal, by itself.
    """
    low, high = min(ranking), max(ranking)
    everything = tuple(range(len(ranking)))
    if len(ranking) <= most:
        if low == high:
            return [(everything, Answer("no_difference"))]
        if ranking.count(low) == ranking.count(high) == 1:
            best, worst = ranking.index(low), ranking.index(high)
            return [(everything, Answer("picked", best, worst))]
    found: list[tuple[tuple[int, ...], Answer]] = []
    for i, j in combinations(everything, 2):
        if ranking[i] == ranking[j]:
            found.append(((i, j), Answer("no_difference")))
        else:
            better = 0 if ranking[i] < ranking[j] else 1
            found.append(((i, j), Answer("picked", better, 1 - better)))
    return found


# What is lost -----------------------------------------------------------------------------------

# What our data say, in the words of the list of what a format cannot hold.
ASPECTS = {
    "source": "the source picture",
    "mask": "the mask: which part of the source was to be edited",
    "task": "the task",
    "sets": "that pairs belong to one set, and which of them were said and which follow",
    "models": "which model made a picture",
    "seeds": "seeds",
    "sampling": "sampler settings",
    "annotators": "who answered",
    "votes": "how many people said so",
    "no_difference": "answers that found no difference",
    "cannot_judge": "answers that could not judge",
    "undecided": "pairs on which as many people preferred one as the other",
    "no_source": "sets of a task without a source picture, which every row needs",
    "split": "which part is held out",
    "time": "when it was answered",
    "seconds": "how long it took",
    "tags": "tags of sources",
    "licence": "licence and attribution of sources",
    "campaign": "the campaign, the order on the screen, the wording asked, and whether people or "
    "simulated annotators answered, here or elsewhere",
    "ratings": "ratings of single pictures",
}


class Outgoing:
    """Comparisons on their way out, counted as they pass: what is lost is said with its number."""

    def __init__(self, rows: Iterable[Comparison], questions: Mapping[str, str]) -> None:
        self.questions = dict(questions)  # by dimension
        self._rows = rows
        self._seen: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Comparison]:
        for row in self._rows:
            self._seen.update(_aspects(row))
            yield row

    def lose(self, aspect: str, count: int = 1) -> None:
        self._lost[aspect] += count

    def losses(self, holds: frozenset[str]) -> dict[str, dict[str, int | str]]:
        """{aspect: {"count", "what"}} of all that was there and is not held."""
        gone = self._lost + Counter({a: n for a, n in self._seen.items() if a not in holds})
        return {a: {"count": gone[a], "what": ASPECTS[a]} for a in ASPECTS if gone[a] > 0}


def _aspects(row: Comparison) -> dict[str, int]:
    answers = row.answers
    people = Counter(answer.dimension for answer in answers)
    outcomes = Counter(answer.outcome for answer in answers)
    return {
        "source": row.source is not None,
        "mask": row.mask is not None,
        "sets": len(row.pictures) > 2,
        "task": bool(row.task),
        "split": row.split != "train",
        "models": sum(bool(one.model) for one in row.pictures),
        "seeds": (drawn := sum(one.seed is not None for one in row.pictures)),
        "sampling": drawn,
        "annotators": sum(bool(one.annotator) for one in answers),
        "votes": sum(n for n in people.values() if n > 1),
        "no_difference": outcomes["no_difference"],
        "cannot_judge": outcomes["cannot_judge"],
        "time": sum(one.at is not None for one in answers),
        "seconds": sum(one.seconds is not None for one in answers),
        "tags": bool(row.said.get("tags")),
        "licence": bool(row.said.get("licence") or row.said.get("attribution")),
        "campaign": len(answers),
    }
