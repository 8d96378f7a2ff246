"""What a labelling form sends, and what it shows again.

Forms speak of places from left to right, 1 to N: what is sent to the browser does not tell in which
order the candidates were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.errors import Refused
from annotation.judgments import Answer
from annotation.models import Judgment
from annotation.ratings import Scores

Outcome = Judgment.Outcome
WITHOUT_PICK = {Outcome.NO_DIFFERENCE.value, Outcome.CANNOT_JUDGE.value}
# Stored as they stand here, whoever skips: the reader's language is another one.
SKIP_REASONS = [
    gettext_noop("The picture or the mask is broken"),
    gettext_noop("The prompt makes no sense here"),
    gettext_noop("The content is offensive"),
    gettext_noop("Something else"),
]


def read_answers(data: Mapping[str, str]) -> dict[str, Answer]:
    """The posted answers, by place; a dimension without any is left out."""
    answers = {}
    for slug in _slugs(data, "best-", "worst-"):
        best, worst = data.get(f"best-{slug}", ""), data.get(f"worst-{slug}", "")
        if best in WITHOUT_PICK:
            # Without JavaScript a worst that was chosen before stays checked; it means nothing now.
            answers[slug] = Answer(best)
        elif best or worst:
            answers[slug] = Answer(Outcome.PICKED, _place(best), _place(worst))
    return answers


def _slugs(data: Mapping[str, str], *prefixes: str) -> list[str]:
    found = [key.removeprefix(p) for key in data for p in prefixes if key.startswith(p)]
    return list(dict.fromkeys(found))


def _place(said: str) -> int | None:
    if not said:
        return None
    if not said.isdecimal() or len(said) > 3:
        raise Refused(
            _("There is no candidate “%(place)s”. Choose one of the numbers below the pictures.")
            % {"place": said[:20]}
        )
    return int(said)


def show_answers(answers: Mapping[str, Answer], order: Sequence[int]) -> dict[str, tuple[str, str]]:
    """For each dimension what its best and its worst field hold."""
    places = {index: str(place) for place, index in enumerate(order, start=1)}
    return {
        slug: (answer.outcome, "")
        if answer.outcome in WITHOUT_PICK
        else (places.get(_or_none(answer.best), ""), places.get(_or_none(answer.worst), ""))
        for slug, answer in answers.items()
    }


def _or_none(index: int | None) -> int:
    return -1 if index is None else index


def posted_answers(data: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The posted fields as they came, to be shown again beside what is wrong with them."""
    return {
        slug: (
            data.get(f"best-{slug}", data.get(f"score-{slug}", "")),
            data.get(f"worst-{slug}", ""),
        )
        for slug in _slugs(data, "best-", "worst-", "score-")
    }


def read_scores(data: Mapping[str, str]) -> Scores:
    usable = {"yes": True, "no": False}.get(data.get("usable", ""))
    of = {}
    for slug in _slugs(data, "score-"):
        said = data[f"score-{slug}"]
        if said:
            of[slug] = int(said) if said.isdecimal() and len(said) < 3 else 0
    return Scores(usable, of)


def show_scores(scores: Scores) -> dict[str, tuple[str, str]]:
    return {slug: (str(value), "") for slug, value in scores.of.items()}


def read_submission(data: Mapping[str, str]) -> UUID | None:
    try:
        return UUID(data.get("submission", ""))
    except ValueError:
        return None


def read_seconds(data: Mapping[str, str]) -> float | None:
    try:
        return float(data.get("seconds", ""))
    except ValueError:
        return None
