"""The page of a set: whole, or the part of it that the script puts in the place of the one before.

Every judgment is answered with the page of a set that is to come. Such pages are alike but for
pictures and addresses, so each kind is rendered once with blanks that are filled in each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from annotation import counts, guides, judgments, ratings
from annotation.addresses import address
from annotation.answers import (
    SKIP_REASONS,
    posted_answers,
    read_submission,
    show_answers,
    show_scores,
)
from annotation.errors import Refused
from annotation.models import Assignment, Campaign
from annotation.turns import Asked, Turn
from annotation.words import words
from generation.access import user_of

State = Assignment.State
FINISHED = {State.SUBMITTED, State.LATE}
Purpose = Campaign.Purpose
WHOLE, FRAGMENT = "base.html", "annotation/fragment.html"
TEMPLATE = "annotation/label.html"
# Named in the page's head, so that the browser fetches all of them at once.
MODULES = [
    f"annotation/label/{name}.js"
    for name in ("answers", "compare", "net", "outbox", "store", "viewer", "words")
]
# Around a blank's name; neither the database nor a translation holds it.
MARK = "\0"


@dataclass(frozen=True)
class Question:
    """A dimension on the page; `best` and `worst` are what its fields hold."""

    asked: Asked
    best: str
    worst: str


def page(
    request: HttpRequest,
    mine: Turn,
    *,
    base: str = WHOLE,
    error: Refused | None = None,
    preview: bool = False,
) -> str:
    """The page as HTML; with `error` it shows what was posted, and what is wrong with it."""
    row, campaign, task = mine.assignment, mine.campaign, mine.assignment.set.source.task
    # A repeated form keeps its id, so that sending it twice is noticed; a new one gets a new id.
    submission = read_submission(request.POST) if error and error.code != "stale" else None
    values = _values(request, mine, error) | {"submission": submission or uuid.uuid4()}
    if base == FRAGMENT and not error and not preview and row.state == State.OPEN:
        look = _Look(
            campaign=_Campaign(
                campaign.pk,
                campaign.name,
                campaign.purpose,
                campaign.break_minutes,
                campaign.one_at_a_time,
            ),
            task=_Task(task.name, task.instruction, task.needs_source),
            turn=_Turn(row.state, row.kind),
            asked=len(mine.asked),
            shown=len(mine.shown),
            prompted=bool(values["prompt"]),
            language=get_language(),
        )
        return _fill(_mould(look), values)
    context = _context(values, len(mine.shown), needs_source=task.needs_source) | {
        "base": base,
        "turn": row,
        "campaign": campaign,
        "task": task,
        "asked": len(mine.asked),
        "correction": row.state in FINISHED or (error is not None and error.code == "stale"),
        "error": error,
        "preview": preview,
    }
    if base == WHOLE:
        today = counts.submitted_today(user_of(request), campaign)
        context |= {"today": today, "words": words(), "modules": MODULES}
    return render_to_string(TEMPLATE, context, request)


# What differs from set to set ---------------------------------------------------------------------


def _values(request: HttpRequest, mine: Turn, error: Refused | None) -> dict[str, Any]:
    row, campaign, source = mine.assignment, mine.campaign, mine.assignment.set.source
    share = counts.recent_share(campaign)
    held, usable = _held(request, mine, error)
    values = {
        "number": row.pk,
        "person": user_of(request).pk,
        "csrf_token": get_token(request),
        "done": share.done,
        "wanted": share.wanted,
        "prompt": "" if source.task.fixed_prompt else source.prompt,
        "width": source.image.width,
        "height": source.image.height,
        "form": _form(
            tuple(Question(one, *held.get(one.slug, ("", ""))) for one in mine.asked),
            rating=campaign.purpose == Purpose.RATING,
            usable=usable,
            shown=len(mine.shown),
            language=get_language(),
        ),
        "help": _help(
            tuple(mine.asked),
            guide=f"{address('annotation:guide', campaign.pk)}?task={source.task.slug}",
            guideline=campaign.guideline,
            purpose=campaign.purpose,
            shown=len(mine.shown),
            language=get_language(),
        ),
    }
    values |= {link: address(name, argument) for link, name, argument in _links(mine)}
    for place, shown in enumerate(mine.shown):
        values[f"address {place}"] = address("generation:image", shown.sha256)
        values[f"width {place}"] = shown.width
        values[f"height {place}"] = shown.height
    return values


def _links(mine: Turn) -> list[tuple[str, str, int | str | None]]:
    row, source = mine.assignment, mine.assignment.set.source
    return [
        *((f"link {name}", f"annotation:{name}", row.pk) for name in OF_TURN),
        *((f"link {name}", f"annotation:{name}", mine.campaign.pk) for name in OF_CAMPAIGN),
        *((f"link {name}", f"annotation:{name}", source.mask.sha256) for name in OF_MASK),
        ("link source", "generation:image", source.image.sha256),
        ("link mask", "generation:image", source.mask.sha256),
        ("link history", "annotation:history", None),
    ]


OF_TURN = ("turn", "skip", "flag")
OF_CAMPAIGN = ("ahead", "undo", "next")
OF_MASK = ("outline", "shade")
LINKS = (*OF_TURN, *OF_CAMPAIGN, *OF_MASK, "source", "mask", "history")
SINGLE = (
    *("number", "person", "csrf_token", "done", "wanted", "prompt", "width", "height"),
    *("form", "help", "submission"),
)


def _held(
    request: HttpRequest, mine: Turn, error: Refused | None
) -> tuple[Mapping[str, tuple[str, str]], str]:
    """What the form's fields hold, by dimension, and whether the picture is usable."""
    if error:
        return posted_answers(request.POST), request.POST.get("usable", "")
    if not mine.revisions:
        return {}, ""
    if mine.campaign.purpose == Purpose.RATING:
        scores = ratings.last_scores(mine.assignment)
        usable = "" if scores.usable is None else ("yes" if scores.usable else "no")
        return show_scores(scores), usable
    row = mine.assignment
    return show_answers(judgments.last_answers(row), row.order), ""


def _context(values: Mapping[str, Any], shown: int, *, needs_source: bool) -> dict[str, Any]:
    """The values as the template takes them, and what follows from their number."""
    rows = 1 if shown < 5 else 2
    # Where a picture is made from the prompt alone there is no source to show.
    frames = shown + needs_source
    language = get_language()
    return {name: values[name] for name in SINGLE} | {
        "links": {name: values[f"link {name}"] for name in LINKS},
        "pictures": [
            {
                "address": values[f"address {place}"],
                "width": values[f"width {place}"],
                "height": values[f"height {place}"],
                "name": _("Candidate %(place)s") % {"place": place + 1},
            }
            for place in range(shown)
        ],
        "columns": frames if rows == 1 else (frames + 1) // 2,
        "rows": rows,
        "view_buttons": _still("annotation/_view_buttons.html", language),
        "skip_fields": _still("annotation/_skip_fields.html", language),
        "flag_fields": _still("annotation/_flag_fields.html", language),
    }


# What is the same for many sets -------------------------------------------------------------------
# Where a function keeps what it made, all that it depends on is an argument.


class _Campaign(NamedTuple):
    pk: int
    name: str
    purpose: str
    break_minutes: int
    one_at_a_time: bool


class _Task(NamedTuple):
    name: str
    instruction: str
    needs_source: bool


class _Turn(NamedTuple):
    state: str
    kind: str


class _Look(NamedTuple):
    """All that the template decides by, for a set that waits for its answer."""

    campaign: _Campaign
    task: _Task
    turn: _Turn
    asked: int
    shown: int
    prompted: bool
    language: str


@lru_cache(maxsize=256)
def _mould(look: _Look) -> list[str]:
    """The page in pieces: what stands there, and the name of a blank, in turns."""
    places = [f"{name} {place}" for name in ("address", "width", "height") for place in range(8)]
    names = [*SINGLE, *(f"link {name}" for name in LINKS), *places]
    blanks: dict[str, Any] = {name: mark_safe(f"{MARK}{name}{MARK}") for name in names}  # nosec B308 B703  # ours
    blanks["prompt"] = blanks["prompt"] if look.prompted else ""
    context = _context(blanks, look.shown, needs_source=look.task.needs_source)
    context |= {"base": FRAGMENT, "campaign": look.campaign, "task": look.task, "turn": look.turn}
    return render_to_string(TEMPLATE, context | {"asked": look.asked}).split(MARK)


def _fill(pieces: list[str], values: Mapping[str, Any]) -> SafeString:
    there = {name: conditional_escape(value) for name, value in values.items()}
    filled = pieces.copy()
    filled[1::2] = [there[name] for name in pieces[1::2]]
    return mark_safe("".join(filled))  # nosec B308 B703  # each value was escaped


@lru_cache(maxsize=32)
def _still(template: str, language: str) -> str:
    """A part of the page that depends on the language alone."""
    return render_to_string(template, {"reasons": [str(reason) for reason in SKIP_REASONS]})


@lru_cache(maxsize=512)
def _form(
    questions: tuple[Question, ...], *, rating: bool, usable: str, shown: int, language: str
) -> str:
    context = {
        "questions": questions,
        "usable": usable,
        "shown": shown,
        "places": [str(place) for place in range(1, shown + 1)],
        "scores": [str(score) for score in ratings.SCORES],
    }
    template = "annotation/_rating.html" if rating else "annotation/_choices.html"
    return render_to_string(template, context)


@lru_cache(maxsize=128)
def _help(
    asked: tuple[Asked, ...], *, guide: str, guideline: str, purpose: str, shown: int, language: str
) -> str:
    context: dict[str, Any] = {"asked": asked, "guide": guide, "purpose": purpose, "shown": shown}
    context["guideline"] = guides.render(guideline)
    return render_to_string("annotation/_help.html", context)
