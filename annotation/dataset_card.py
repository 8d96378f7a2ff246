"""What a dataset says about itself: card.json's taxonomy, and README.md for people and hubs."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.utils.text import get_text_list

from annotation.dataset_files import FEEDBACK, FILES, NO_PICTURES, PARQUET, TABLES
from annotation.dataset_tally import SEP, Tally
from annotation.exports import Origin, origin_of
from annotation.models import Campaign, Dimension, Judgment
from annotation.portable import CAME_AS
from generation.models import Policy, Task

Outcome = Judgment.Outcome
# Licences that hubs know by the same name, in small letters.
LICENCES = {
    "apache-2.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "mit", "odbl",
}  # fmt: skip
SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
UNSTATED = "not stated"
SHOWN_FIRST = "preferences"

# Taxonomy ---------------------------------------------------------------------------------------


def taxonomy(tally: Tally, also: Iterable[str] = ()) -> dict[str, Any]:
    """Whatever the rows name, enough to make it again; `also` are more dimensions."""
    versions: dict[str, set[int]] = defaultdict(set)
    for key in tally.counters["wordings"]:
        slug, version = key.split(SEP)
        if slug:
            versions[slug].add(int(version))
    for slug in also:
        versions.setdefault(slug, set())
    slugs = set(versions)
    return {
        "tasks": _tasks(tally, slugs),
        "dimensions": _dimensions(versions),
        "campaigns": _campaigns(tally, slugs),
        "policies": _policies(tally),
    }


def _tasks(tally: Tally, dimensions: set[str]) -> dict[str, Any]:
    found = Task.objects.filter(slug__in=tally.counters["tasks"]).order_by("pk")
    return {
        task.slug: {
            "name": task.name,
            "wording": task.wording,
            "instruction": task.instruction,
            "fixed_prompt": task.fixed_prompt,
            "needs_source": task.needs_source,
            "needs_mask": task.needs_mask,
            "weight": task.weight,
            "active": task.active,
            "criteria": {
                row.dimension.slug: {
                    "weight": row.weight,
                    "order": row.order,
                    "required": row.required,
                }
                for row in task.criteria.all()
                if row.dimension.slug in dimensions
            },
        }
        for task in found.prefetch_related("criteria__dimension")
    }


def _dimensions(versions: Mapping[str, set[int]]) -> dict[str, Any]:
    """Each with its newest wording, and every one that answers were given to."""
    found = Dimension.objects.filter(slug__in=versions).order_by("pk").prefetch_related("wordings")
    return {
        dimension.slug: {
            "name": dimension.name,
            "question": dimension.wording.question,
            "query": dimension.wording.query,
            "guideline": dimension.wording.guideline,
            "version": dimension.wording.version,
            "uses_prompt": dimension.uses_prompt,
            "active": dimension.active,
            "wordings": [
                {
                    "version": row.version,
                    "question": row.question,
                    "query": row.query,
                    "guideline": row.guideline,
                }
                for row in sorted(dimension.wordings.all(), key=lambda row: row.version)
                if row.version in versions[dimension.slug] | {dimension.wording.version}
            ],
        }
        for dimension in found
    }


def _campaigns(tally: Tally, dimensions: set[str]) -> dict[str, Any]:
    found = Campaign.objects.filter(name__in=tally.counters["campaigns"]).order_by("pk")
    tasks = tally.counters["tasks"]
    return {
        campaign.name: {
            "purpose": campaign.purpose,
            "origin": origin_of(campaign),
            "overlap": campaign.overlap,
            "guideline": campaign.guideline,
            # Empty: all of them; those that no row names are left out.
            "tasks": [row.slug for row in campaign.tasks.all() if row.slug in tasks],
            "dimensions": [d.slug for d in campaign.dimensions.all() if d.slug in dimensions],
        }
        for campaign in found.prefetch_related("tasks", "dimensions")
    }


def _policies(tally: Tally) -> dict[str, Any]:
    """Those that made candidates, and what they descend from."""
    known = {policy.pk: policy for policy in Policy.objects.order_by("pk")}
    kept: set[int] = set()
    for policy in known.values():
        one: Policy | None = policy if policy.name in tally.counters["policies"] else None
        while one is not None and one.pk not in kept:
            kept.add(one.pk)
            one = known.get(one.parent_id or 0)
    return {
        policy.name: {
            "kind": policy.kind,
            # A path says nothing outside the machine it is on.
            "location": "" if os.path.isabs(policy.location) else policy.location,
            "revision": policy.revision,
            "parent": known[policy.parent_id].name if policy.parent_id else None,
        }
        | policy.card.get(CAME_AS, {})
        for policy in known.values()
        if policy.pk in kept
    }


def licences(tally: Tally) -> list[str]:
    return sorted({name or UNSTATED for name in tally.counters["licences"]})


# README -----------------------------------------------------------------------------------------


def readme(card: Mapping[str, Any], tally: Tally) -> str:
    sections = {
        "What is in it": _counts(card, tally),
        "What people were asked": _asked(card),
        "How far people agree": _agreement(tally),
        "Policies": _shares(tally),
        "Licences": _licences(tally),
        "How it was made": _made(card, tally),
        "Known limits": "".join(f"- {limit}\n" for limit in _limits(card, tally)),
    }
    body = "".join(f"\n## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"---\n{_front(card, tally)}---\n\n# {_title(card)}\n{body}"


def _title(card: Mapping[str, Any]) -> str:
    tasks = [row["name"] for row in card["taxonomy"]["tasks"].values()]
    return f"Judgments of images: {', '.join(tasks)}" if tasks else "Judgments of images"


def _front(card: Mapping[str, Any], tally: Tally) -> str:
    """What `datasets` and the hub read. JSON's texts are YAML's, too."""
    files = {name: f"{name}.parquet" for name in (*TABLES, FEEDBACK) if card["counts"].get(name)}
    if card["images"]["form"] == PARQUET:
        files["images"] = "images-*.parquet"
    first = SHOWN_FIRST if SHOWN_FIRST in files else next(iter(files), "")
    configs = "".join(
        f"- config_name: {name}\n  data_files: {pattern}\n"
        + ("  default: true\n" if name == first else "")
        for name, pattern in files.items()
    )
    found = {name.lower() for name in licences(tally)}
    licence = found.pop() if len(found) == 1 and found <= LICENCES else "other"
    rows = max(card["counts"]["judgments"], card["counts"]["ratings"])
    size = SIZES[min(len(SIZES) - 1, max(0, int(math.log10(max(rows, 1))) - 2))]
    needs_source = any(row["needs_source"] for row in card["taxonomy"]["tasks"].values())
    category = "image-to-image" if needs_source else "text-to-image"
    return (
        f"pretty_name: {json.dumps(_title(card), ensure_ascii=False)}\n"
        f"license: {licence}\n"
        f"language:\n- {settings.LANGUAGE_CODE.partition('-')[0]}\n"
        f"task_categories:\n- {category}\n"
        f"size_categories:\n- {size}\n"
        "tags:\n- human-feedback\n- preference\n- reward-modeling\n- image-editing\n- oneloop\n"
        f"configs:\n{configs}"
    )


def _counts(card: Mapping[str, Any], tally: Tally) -> str:
    counts = {name: n for name, n in card["counts"].items() if n}
    lines = "".join(f"| `{name}` | {n:,} |\n" for name, n in counts.items())
    splits = _listed(tally, "splits")
    origins = _listed(tally, "origins")
    return (
        f"| table | rows |\n|---|---:|\n{lines}\n"
        f"Sets by split: {splits}. Answers by origin: {origins}.\n\n"
        f"Content hash: `{card['content_hash']}`\n"
    )


def _listed(tally: Tally, counter: str) -> str:
    found = tally.counters[counter]
    return ", ".join(f"{n:,} {name}" for name, n in sorted(found.items())) or "none"


def _asked(card: Mapping[str, Any]) -> str:
    parts = []
    for slug, row in card["taxonomy"]["dimensions"].items():
        wordings = "".join(
            f"- Version {one['version']}: {_line(one['question'])} "
            f"(asked of the reward model: “{_line(one['query'])}”)\n"
            for one in row["wordings"]
        )
        guideline = f"\n> {_line(row['guideline'])}\n" if row["guideline"] else ""
        parts.append(f"**{row['name']}** (`{slug}`)\n\n{wordings}{guideline}")
    return "\n".join(parts)


def _line(text: str) -> str:
    return " ".join(text.split())


def _agreement(tally: Tally) -> str:
    rows = "".join(
        f"| `{slug}` | {'not known' if math.isnan(alpha) else f'{alpha:.2f}'} | {units:,} |\n"
        for slug, (alpha, units) in tally.alphas().items()
    )
    if not rows:
        return ""
    return (
        "Krippendorff's alpha of the best picks (nominal; “no difference” is a value of its own, "
        "“can't judge” none); 1 is full agreement, 0 what chance gives. Of what two people or more "
        f"answered.\n\n| dimension | alpha | items |\n|---|---:|---:|\n{rows}"
    )


def _shares(tally: Tally) -> str:
    picks: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, n in tally.picks.items():
        policy, _, said = key.rpartition(SEP)
        picks[policy][said] = n
    rows = ""
    for policy, made in sorted(tally.counters["policies"].items()):
        found = picks[policy]
        shares = [
            f"{100 * found[said] / found['shown']:.1f} %" if found["shown"] else "–"
            for said in ("best", "worst")
        ]
        rows += f"| {_line(policy)} | {made:,} | {found['shown']:,} | {' | '.join(shares)} |\n"
    if not rows:
        return ""
    return (
        "How often its candidates were shown where a best and a worst were picked, and were it.\n\n"
        f"| policy | candidates | shown | best | worst |\n|---|---:|---:|---:|---:|\n{rows}"
    )


def _licences(tally: Tally) -> str:
    found = sorted(tally.counters["licences"].items())
    rows = "".join(f"| {_line(name) or UNSTATED} | {n:,} |\n" for name, n in found)
    return f"Of the source pictures.\n\n| licence | sets |\n|---|---:|\n{rows}" if rows else ""


def _made(card: Mapping[str, Any], tally: Tally) -> str:
    decided = tally.counters["kinds"].get("review", 0)
    return (
        "Candidates of one source were shown side by side, in an order drawn for each person, who "
        "named the best and the worst, dimension by dimension; no difference and can't judge are "
        "answers, too. "
        f"{f'{decided:,} answers are decisions of reviewers. ' if decided else ''}"
        "`preferences.parquet` is derived from `judgments.parquet`: best over worst (direct, "
        "weight 1) and best over the others, the others over worst (implied, weight 0.5); "
        "`ties.parquet` holds every pair of which no difference was found (weight 0.5). "
        f"{_feedback(card)}{_pictures(card)} Annotators are pseudonyms that mean nothing "
        "elsewhere; rows with the same one are of the same person.\n"
    )


def _feedback(card: Mapping[str, Any]) -> str:
    if FEEDBACK not in card:
        return ""
    said = card[FEEDBACK]
    return (
        "`feedback.parquet` holds preferences that nobody was asked for: what became of pictures "
        f"in production ({said['events']} events), as answers about `{said['dimension']}`, weighed "
        f"{said['weight']:g} times a person's. "
    )


def _pictures(card: Mapping[str, Any]) -> str:
    form, max_side = card["images"]["form"], card["images"]["max_side"]
    if form == NO_PICTURES:
        return "Pictures are named by the sha256 of their file; they are not included."
    places = {
        FILES: "in `images/ab/<sha256>.png`",
        PARQUET: "in `images-*.parquet`",
    }
    place = places.get(form, "in the WebDataset shards `images-*.tar`")
    smaller = (
        f" Those with a side above {max_side} pixels were made smaller and keep the name of the "
        "original."
        if max_side
        else ""
    )
    return f"Pictures are named by the sha256 of their file and lie {place}.{smaller}"


def _limits(card: Mapping[str, Any], tally: Tally) -> Iterable[str]:
    origins, total = tally.counters["origins"], tally.counters["origins"].total()
    for origin, says in (
        (Origin.SIMULATED, "come from simulated annotators, who saw a known ground truth"),
        (Origin.IMPORTED, "were imported: other people were asked, elsewhere, by other rules"),
    ):
        if origins[origin]:
            yield f"{origins[origin]:,} of {total:,} answers {says}."
    alone = [slug for slug, (_alpha, units) in tally.alphas().items() if not units]
    if alone:
        yield (
            f"Nothing is known of the agreement on {get_text_list(alone, 'and')}: nobody was asked "
            "what somebody else had been asked."
        )
    unsure: int = sum(
        n for key, n in tally.counters["answers"].items() if key.endswith(Outcome.CANNOT_JUDGE)
    )
    if unsure:
        yield f"{unsure:,} answers say that it can't be judged; they make no preference."
    unstated = tally.counters["licences"].get("", 0)
    if unstated:
        yield f"The licence of the source of {unstated:,} sets is not stated: ask before you share."
    if len(tally.counters["splits"]) == 1:
        yield f"All sets are of the split {next(iter(tally.counters['splits']))}."
    if not card["counts"]["annotators"]:
        yield "How reliable its annotators are was not estimated."
    if card["images"]["max_side"]:
        yield "Pictures were made smaller than they were judged."
    yield (
        "Best and worst are relative: a preferred picture need not be a good one, and the weights "
        "of implied pairs are a convention."
    )
