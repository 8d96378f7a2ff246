"""What a policy training reads: sources, their pictures on disk, the questions asked of each, and
the labelled pairs for an algorithm that learns from those."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from annotation import preferences
from annotation.models import Criterion
from generation import images, shared
from generation.models import CandidateSet, Image, Source, Split, Task
from modeling import snapshots
from modeling.models import RewardModel, Snapshot

FILE = "sources.jsonl"
PAIRS = "pairs.jsonl"
PICTURES = "inputs"
WATCHED = 8  # held-out sources a task


class InputError(Exception):
    """One readable sentence: what is missing, and the remedy."""


@dataclass
class PolicyInputs:
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[dict[str, Any], str, Image]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    pairs: list[dict[str, Any]] = field(default_factory=list)  # rows of pairs.jsonl


def questions(task: Task, reward: RewardModel) -> tuple[list[Criterion], list[str]]:
    """The task's criteria that `reward` may judge, and a sentence for each one it may not."""
    excluded = {(t, d): reason for t, d, reason in reward.excluded}
    kept, notes = [], []
    criteria = Criterion.objects.filter(task=task, dimension__active=True, weight__gt=0)
    for criterion in criteria.select_related("dimension").prefetch_related("dimension__wordings"):
        reason = excluded.get((task.slug, criterion.dimension.slug))
        if reason is None:
            kept.append(criterion)
        else:
            notes.append(f"{task} × {criterion.dimension} is left out: {reason}.")
    return kept, notes


def collect(
    *, reward: RewardModel, sources: list[Source] | None = None, text_alone: bool = False
) -> PolicyInputs:
    """Rows of sources.jsonl for `sources`, or for every training source of the active tasks.

    A few held-out sources go along: the training watches on them for reward hacking. `text_alone`
    leaves out tasks that edit a picture, for a policy that reads none.
    """
    if sources is None:
        found = Source.objects.usable().filter(task__active=True, task__weight__gt=0)
        found = found.select_related("task", "image", "mask").order_by("pk")
        watched = [
            list(found.filter(task=task, split=Split.HOLDOUT)[:WATCHED])
            for task in Task.objects.active()
        ]
        sources = [*found.filter(split=Split.TRAIN), *chain.from_iterable(watched)]
    if text_alone:
        sources = [source for source in sources if not source.task.needs_source]
    by_task: dict[Task, list[Source]] = defaultdict(list)
    for source in sources:
        by_task[source.task].append(source)
    if not any(source.split == Split.TRAIN for source in sources):
        raise InputError(
            "There is no training source for an active task with a weight above 0"
            f"{' that starts from the prompt alone, as this policy does' if text_alone else ''}. "
            "Import sources, or activate a task in the admin."
        )
    inputs = PolicyInputs()
    for task, group in by_task.items():
        criteria, notes = questions(task, reward)
        inputs.notes += notes
        if criteria:
            _add_task(inputs, task, group, criteria)
        else:
            inputs.notes.append(
                f"The task {task} is left out: the reward model judges none of its dimensions."
            )
    if not inputs.rows:
        raise InputError(
            "There is nothing to train on: the reward model judges no dimension of any task that "
            f"has sources. {' '.join(inputs.notes)} Label more sets and train the reward model "
            "again."
        )
    return inputs


def _add_task(
    inputs: PolicyInputs, task: Task, group: list[Source], criteria: list[Criterion]
) -> None:
    for source in group:
        asked = ask(source, criteria)
        if not asked:
            continue
        row = {
            "id": str(source.pk),
            "task": task.slug,
            "weight": task.weight,
            "image": "",
            "mask": "",
            "prompt": source.effective_prompt,
            "split": source.split,
            "queries": asked,
        }
        inputs.rows.append(row)
        inputs.pictures += [(row, "image", source.image), (row, "mask", source.mask)]


def labelled_pairs(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Rows of pairs.jsonl: every preference in the snapshot's judgments, on the pictures that the
    snapshot keeps. Raises InputError when no training picture is among them."""
    # It brings pyarrow, which is large; the web imports this module and reads no dataset.
    from annotation.dataset_files import picture_name

    snapshots.check(snapshot)
    judged = snapshot.judgments.all()
    sets = CandidateSet.objects.filter(judgments__in=judged).distinct()
    source_of = dict(sets.values_list("pk", "source_id"))
    pictures = Path(snapshot.directory) / "images"
    if snapshot.directory.startswith(shared.SCHEME):  # on every machine beside the runs
        pictures = Path("..", "..", snapshot.directory.removeprefix(shared.SCHEME), "images")
    rows = [
        {
            "source": str(source_of[one.set]),
            "task": one.task,
            "dimension": one.dimension,
            "chosen": str(pictures / picture_name(one.chosen)),
            "rejected": str(pictures / picture_name(one.rejected)),
            "weight": one.weight,
            "relation": one.relation,
            "split": one.split,
        }
        for one in preferences.derive(judged)
    ]
    if not any(row["split"] == Split.TRAIN for row in rows):
        raise InputError(
            f"{snapshot} holds no judgment with a best and a worst on a training picture, and this "
            "algorithm learns from nothing else. Label more sets."
        )
    return rows


def ask(source: Source, criteria: list[Criterion]) -> dict[str, str]:
    """The rendered query of each dimension; a prompt's dimension is not asked without a prompt."""
    from modeling.reward.query import render_query

    rendered = {}
    for criterion in criteria:
        dimension = criterion.dimension
        prompt = source.effective_prompt if dimension.uses_prompt else None
        if prompt == "":
            continue
        rendered[dimension.slug] = render_query(
            task=source.task.wording, question=dimension.wording.query, prompt=prompt
        )
    return rendered


def write(directory: Path, inputs: PolicyInputs) -> None:
    """Write sources.jsonl, and pairs.jsonl where there are any; pictures of a store that is not on
    this disk are copied beside them."""
    for row, key, image in inputs.pictures:
        row[key] = str(_path(directory, image))
    for name, rows in ((FILE, inputs.rows), (PAIRS, inputs.pairs)):
        if rows:
            with (directory / name).open("w") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def _path(directory: Path, image: Image) -> Path:
    try:
        path = images.local_path(image)
    except NotImplementedError:
        path = directory / PICTURES / f"{image.sha256}.png"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(images.read_bytes(image))
        return path.relative_to(directory)
    if not path.is_file():
        raise InputError(
            f"The file '{path}' of a source is gone. Restore it from a backup or import the source "
            "again."
        )
    return path
