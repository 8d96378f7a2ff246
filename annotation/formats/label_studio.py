"""Label Studio's JSON: a task per pair, an annotation per person, a Pairwise result per dimension.

What Pairwise cannot say, no difference and can't judge, stands in a Choices result beside it.
`label_config.xml` is the configuration that both belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from annotation.formats import files
from annotation.formats.files import Row
from annotation.formats.rows import (
    Answer,
    Choice,
    Comparison,
    Outgoing,
    Pair,
    RowError,
    Vote,
    answer_of,
    pairs,
)
from generation.readers import Refusal

HOLDS = frozenset(
    {"source", "mask", "task", "models", "annotators", "votes", "no_difference", "cannot_judge"}
    | {"split", "time", "seconds"}
)
SIDES = (("left", "right"), ("image1", "image2"), ("image_a", "image_b"), ("img1", "img2"))
PROMPTS = ("prompt", "instruction", "caption", "text")
SELECTED: dict[str, Choice] = {"left": "first", "right": "second"}
CHOICES: dict[str, Choice] = {"no difference": "same", "can't judge": "unknown"}
BESIDE = "-same"  # the ending of the Choices' name


def write(data: Outgoing, out: Path) -> None:
    (out / "label_config.xml").write_text(_config(data.questions))
    with files.Shelf(out, files.JsonArray) as shelf:
        for row in data:
            found: dict[tuple[int, int], dict[str, Pair]] = {}
            for dimension in row.dimensions():
                for pair in pairs(row, dimension):
                    places = (row.pictures.index(pair.first), row.pictures.index(pair.second))
                    found.setdefault(places, {})[dimension] = pair
            for said in found.values():
                shelf.add("tasks.json", _task(out, row, said))


def _task(out: Path, row: Comparison, said: Mapping[str, Pair]) -> Row:
    pair = next(iter(said.values()))
    key = f"{row.key} {pair.first.sha256} {pair.second.sha256}"
    data = {
        "prompt": row.prompt,
        "left": files.keep(pair.first, out),
        "right": files.keep(pair.second, out),
        "left_model": pair.first.model,
        "right_model": pair.second.model,
        "task": row.task,
        "split": row.split,
        "set": row.key,
    }
    if row.source is not None:
        data["source"] = files.keep(row.source, out)
    if row.mask is not None:
        data["mask"] = files.keep(row.mask, out)
    people: dict[str, list[tuple[str, Vote]]] = {}
    for dimension, one in said.items():
        for vote in one.votes:
            people.setdefault(vote.answer.annotator, []).append((dimension, vote))
    return {
        "id": files.number_of(key),
        "data": data,
        "annotations": [_annotation(key, who, votes) for who, votes in people.items()],
    }


def _annotation(key: str, who: str, votes: list[tuple[str, Vote]]) -> Row:
    answer = votes[0][1].answer
    return {
        "id": files.number_of(f"{key} {who}"),
        "completed_by": files.number_of(who),
        "result": [_result(dimension, vote.choice) for dimension, vote in votes],
        "lead_time": answer.seconds,
        "created_at": answer.at,
        "was_cancelled": False,
    }


def _result(dimension: str, choice: Choice) -> Row:
    selected = next((side for side, found in SELECTED.items() if found == choice), None)
    if selected is not None:
        return {
            "from_name": dimension,
            "to_name": "left,right",
            "type": "pairwise",
            "value": {"selected": selected},
        }
    said = next(text for text, found in CHOICES.items() if found == choice)
    return {
        "from_name": f"{dimension}{BESIDE}",
        "to_name": "left",
        "type": "choices",
        "value": {"choices": [said]},
    }


def _config(questions: Mapping[str, str]) -> str:
    choices = "".join(f"    <Choice value={quoteattr(text)}/>\n" for text in CHOICES)
    asked = "".join(
        f"  <Header value={quoteattr(question)}/>\n"
        f'  <Pairwise name={quoteattr(dimension)} toName="left,right"/>\n'
        f'  <Choices name={quoteattr(dimension + BESIDE)} toName="left">\n{choices}  </Choices>\n'
        for dimension, question in sorted(questions.items())
    )
    return (
        '<View>\n  <Text name="prompt" value="$prompt"/>\n'
        '  <Image name="left" value="$left"/>\n  <Image name="right" value="$right"/>\n'
        f"{asked}</View>\n"
    )


def read(path: Path) -> Iterator[Comparison | Refusal]:
    return files.read(path, [".json"], _comparison)


def _comparison(row: Row, base: Path) -> Comparison:
    data, annotations = row.get("data"), row.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise RowError("It has no “data” with “annotations”, as a task has.")
    answers = [answer for one in annotations for answer in _answers(one)]
    if not answers:
        raise RowError("Nobody annotated it.")
    left, right = next(
        (sides for sides in (*_named(annotations), *SIDES) if set(sides) <= set(data)), ("", "")
    )
    if not left:
        raise RowError("Its “data” names no two pictures, such as left and right.")
    name = next((name for name in PROMPTS if data.get(name)), "prompt")
    return Comparison(
        prompt=files.words(data, name, optional=True),
        pictures=tuple(
            files.picture(
                data[side], side, base, model=files.words(data, f"{side}_model", optional=True)
            )
            for side in (left, right)
        ),
        answers=tuple(answers),
        source=files.picture(data["source"], "source", base) if data.get("source") else None,
        mask=files.picture(data["mask"], "mask", base) if data.get("mask") else None,
    )


def _results(annotation: Any) -> list[Row]:
    results = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise RowError("An annotation has no list of results.")
    return results


def _named(annotations: list[Any]) -> Iterator[tuple[str, str]]:
    """The two pictures by the names that Pairwise results refer to."""
    for annotation in annotations:
        for result in _results(annotation):
            names = str(result.get("to_name", "")).split(",")
            if result.get("type") == "pairwise" and len(names) == 2:
                yield names[0].strip(), names[1].strip()


def _answers(annotation: Any) -> Iterator[Answer]:
    results = _results(annotation)
    if annotation.get("was_cancelled"):
        return
    who = annotation.get("completed_by")
    who = who.get("id") if isinstance(who, dict) else who
    for result in results:
        value = result.get("value")
        value = value if isinstance(value, dict) else {}
        choice: Choice | None = None
        if result.get("type") == "pairwise":
            choice = SELECTED.get(str(value.get("selected")))
            if choice is None:
                raise RowError(f"A result selects “{value.get('selected')}”, not left or right.")
        elif result.get("type") == "choices" and str(result.get("from_name")).endswith(BESIDE):
            said = value.get("choices")
            choice = CHOICES.get(str(said[0])) if isinstance(said, list) and said else None
        if choice is not None:
            yield answer_of(
                choice,
                dimension=str(result.get("from_name", "")).removesuffix(BESIDE),
                annotator="" if who is None else str(who),
                at=files.moment(annotation.get("created_at")),
                seconds=files.number(annotation, "lead_time"),
            )
