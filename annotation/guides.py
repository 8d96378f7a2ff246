"""Guides for annotators: Markdown made safe, and what a campaign asks with its examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import nh3
from django.db.models import prefetch_related_objects
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

from annotation.campaigns import criteria_for, tasks_of
from annotation.models import Campaign, Criterion, Example, Wording
from generation.models import Task

TAGS = (
    "a blockquote br code em h3 h4 h5 h6 hr img li ol p pre s strong table tbody td th thead tr ul"
)
ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}
# Guides stand below headings of the page.
DEMOTED = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6", "h6": "h6"}
_parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)


@lru_cache(maxsize=512)
def render(markdown: str) -> SafeString:
    """Markdown as HTML that can do nothing: no raw HTML, links in a new tab, own pictures only."""
    tokens = _parser.parse(markdown.strip())
    for token in tokens:
        token.tag = DEMOTED.get(token.tag, token.tag)
        token.children = [_own_pictures_only(child) for child in token.children or []]
    html = _parser.renderer.render(tokens, _parser.options, {})
    # The parser lets nothing through by itself; this holds whatever a new version of it does.
    return mark_safe(  # nosec B308 B703  # what nh3 has cleaned
        nh3.clean(
            html,
            tags=set(TAGS.split()),
            attributes=ATTRIBUTES,
            attribute_filter=_keep_attribute,
            url_schemes={"http", "https", "mailto"},
            link_rel="noopener noreferrer",
            set_tag_attribute_values={"a": {"target": "_blank"}},
        )
    )


def _own_pictures_only(token: Token) -> Token:
    if token.type != "image" or _is_own_picture(str(token.attrGet("src") or "")):
        return token
    return Token("text", "", 0, content=token.content)  # its description in words


def _keep_attribute(tag: str, attribute: str, value: str) -> str | None:
    return None if (tag, attribute) == ("img", "src") and not _is_own_picture(value) else value


def _is_own_picture(address: str) -> bool:
    nothing = "0" * 64
    pattern = re.escape(reverse("generation:image", args=[nothing])).replace(
        nothing, "[0-9a-f]{64}"
    )
    return re.fullmatch(rf"{pattern}(\?size=thumb)?", address) is not None


@dataclass(frozen=True)
class Question:
    """A dimension as the guide shows it."""

    slug: str
    name: str
    wording: Wording
    required: bool
    guide: SafeString
    good: Sequence[Example]
    bad: Sequence[Example]


def questions(campaign: Campaign, task: Task) -> list[Question]:
    """What is asked about this task, in its order, with guide and examples."""
    return for_criteria(criteria_for(campaign, task))


def for_criteria(criteria: Iterable[Criterion]) -> list[Question]:
    criteria = list(criteria)
    prefetch_related_objects(criteria, "dimension__examples__image")
    return [_question(criterion) for criterion in criteria]


def _question(criterion: Criterion) -> Question:
    dimension = criterion.dimension
    examples = list(dimension.examples.all())
    return Question(
        slug=dimension.slug,
        name=dimension.name,
        wording=dimension.wording,
        required=criterion.required,
        guide=render(dimension.wording.guideline),
        good=[example for example in examples if example.good],
        bad=[example for example in examples if not example.good],
    )


def by_task(campaign: Campaign) -> list[tuple[Task, list[Question]]]:
    """Every task of the campaign about which something is asked."""
    found = [(task, questions(campaign, task)) for task in tasks_of(campaign)]
    return [(task, asked) for task, asked in found if asked]
