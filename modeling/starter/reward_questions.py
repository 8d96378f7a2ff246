"""Which pairs are compared, what is asked about them, and where on the way an answer is due.

A question's tokens are exactly `modeling.reward.scoring`'s: the rendered query behind the two
pictures. Every question brings its final answer and answers due earlier: at an attribute of the
prompt ("does the first picture, not the second, show this?") and from the word on that names the
quality asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling.reward.query import render_query
from modeling.starter.reward_data import (
    COLOUR_NAMES,
    DIMENSIONS,
    PROMPTED,
    TIE,
    Groups,
    Rng,
)
from modeling.starter.taxonomy import DIMENSIONS as WORDING
from modeling.starter.taxonomy import TASKS
from modeling.starter.world import SHAPES

# From this word on the query has said what it asks for.
KEY_WORDS = {
    "consistency": " surroundings",
    "structure": " contours",
    "aesthetics": " cleaner",
    "removal_quality": " removed",
}
# How many questions share one pair of pictures.
MOST = 4
SWAP_SHARE = 0.35
FINAL_WEIGHT, WORD_WEIGHT, TAIL_WEIGHT = 1.0, 1.5, 0.3


def query(task: str, dimension: str, prompt: str) -> str:
    wording = WORDING[dimension]
    return render_query(
        task=TASKS[task]["wording"],
        question=wording["query"],
        prompt=prompt if wording["uses_prompt"] else None,
    )


@dataclass(frozen=True)
class Question:
    dimension: str
    prompt: str
    first_wins: bool


@dataclass
class Pair:
    group: int
    first: int
    second: int
    questions: list[Question] = field(default_factory=list)


class Speller:
    """Token lists of queries, and the places of attribute and key words in them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.cache: dict[tuple[str, str, str], tuple[list[int], list[tuple[int, int, int]], int]]
        self.cache = {}
        empty = self._text("")
        image = tokenizer.convert_tokens_to_ids("<|vision_end|>")
        ids = tokenizer.encode(empty, add_special_tokens=False)
        end = len(ids) - ids[::-1].index(image)
        self.prefix: list[int] = ids[:end]
        self.length = end
        self.attributes = {
            **{self._one(f" {c}"): (0, i) for i, c in enumerate(COLOUR_NAMES)},
            **{self._one(f" {s}"): (1, i) for i, s in enumerate(SHAPES)},
        }
        self.digits = {self._one(str(d)): d for d in range(10)}
        self.keys = {name: self._one(word) for name, word in KEY_WORDS.items()}

    def _text(self, text: str) -> str:
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]
        rendered: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return rendered

    def _one(self, word: str) -> int:
        ids: list[int] = self.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"the tokenizer splits {word!r}; the corpus must hold it as one token")
        return ids[0]

    def spell(
        self, task: str, dimension: str, prompt: str
    ) -> tuple[list[int], list[tuple[int, int, int]], int]:
        """(tokens, attribute places as (place, attribute, class), first place of the tail)."""
        key = (task, dimension, prompt if dimension in PROMPTED else "")
        if key not in self.cache:
            text = self._text(query(task, dimension, prompt))
            ids = self.tokenizer.encode(text, add_special_tokens=False)[self.length :]
            places: list[tuple[int, int, int]] = []
            if dimension in PROMPTED:
                digits = 0
                for place, token in enumerate(ids):
                    if token in self.attributes:
                        places.append((place, *self.attributes[token]))
                    elif token in self.digits and digits < 2:
                        places.append((place, 2 + digits, self.digits[token]))
                        digits += 1
                tail = places[-1][0] + 1
            else:
                tail = ids.index(self.keys[dimension])
            self.cache[key] = (ids, places, tail)
        return self.cache[key]


def _asked(
    groups: Groups, index: int, first: int, second: int, dimensions: Sequence[int], tie: float
) -> list[Question]:
    found = []
    for scores, prompt in (
        (groups.scores, groups.prompts[index]),
        (groups.other_scores, groups.others[index]),
    ):
        if not prompt:
            continue
        for d in dimensions:
            name = DIMENSIONS[d]
            if scores is groups.other_scores and name not in PROMPTED:
                continue
            gap = float(scores[index, first, d] - scores[index, second, d])
            if abs(gap) > tie:
                found.append(Question(name, prompt, gap > 0))
    return found


def draw_pairs(groups: Groups, rng: Rng, count: int, swap_share: float = SWAP_SHARE) -> list[Pair]:
    """`count` pairs of up to `MOST` untied questions; `swap_share` of them ask both prompts."""
    everything = range(len(DIMENSIONS))
    pairs: list[Pair] = []
    while len(pairs) < count:
        index = int(rng.integers(len(groups)))
        variants = groups.images.shape[1]
        swap = bool(groups.others[index]) and rng.random() < swap_share
        if swap:
            first, second = (0, 1) if rng.random() < 0.5 else (int(rng.integers(2, 8)), 1)
            if rng.random() < 0.5 and first:
                first, second = 0, int(rng.choice([1, 5]))
            if rng.random() < 0.5:
                first, second = second, first
        else:
            first, second = (int(v) for v in rng.choice(variants, 2, replace=False))
        questions = _asked(groups, index, first, second, everything, TIE)
        if not questions:
            continue
        if len(questions) > MOST:
            kept = sorted(rng.choice(len(questions), MOST, replace=False))
            questions = [questions[k] for k in kept]
        pairs.append(Pair(index, first, second, questions))
    return pairs


@dataclass
class Due:
    """Answers due at tokens of packed sequences."""

    row: Tensor
    place: Tensor  # in the row
    yes: Tensor  # 1 = Yes, 0 = No
    weight: Tensor
    kind: Tensor  # 0 final, 1 attribute word, 2 tail


def spelt(
    speller: Speller, groups: Groups, pairs: Sequence[Pair], start: int
) -> tuple[list[list[list[int]]], Due]:
    """Token lists per pair and question, and every answer due; `start` is the prefix's length."""
    rows: list[list[list[int]]] = []
    due: list[tuple[int, int, float, float, int]] = []
    for b, pair in enumerate(pairs):
        row: list[list[int]] = []
        at = start
        one = groups.drawn[pair.group, pair.first]
        two = groups.drawn[pair.group, pair.second]
        for question in pair.questions:
            ids, places, tail = speller.spell(
                groups.tasks[pair.group], question.dimension, question.prompt
            )
            for place, attribute, value in places:
                if one[attribute] < 0 or two[attribute] < 0:
                    continue
                shows = one[attribute] == value, two[attribute] == value
                if shows[0] != shows[1]:
                    due.append((b, at + place, float(shows[0]), WORD_WEIGHT / len(places), 1))
            yes = float(question.first_wins)
            last = len(ids) - 1
            for place in range(tail, last):
                due.append((b, at + place, yes, TAIL_WEIGHT / (last - tail), 2))
            due.append((b, at + last, yes, FINAL_WEIGHT, 0))
            row.append(ids)
            at += len(ids)
        rows.append(row)
    columns = np.array(due, np.float64)
    return rows, Due(
        row=torch.from_numpy(columns[:, 0].astype(np.int64)),
        place=torch.from_numpy(columns[:, 1].astype(np.int64)),
        yes=torch.from_numpy(columns[:, 2].astype(np.float32)),
        weight=torch.from_numpy(columns[:, 3].astype(np.float32)),
        kind=torch.from_numpy(columns[:, 4].astype(np.int64)),
    )
