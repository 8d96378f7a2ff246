"""The interface in English, Chinese and Japanese, and prompts of any script in their direction."""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polib
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation.template import templatize

from annotation.models import Assignment, Campaign
from annotation.words import words
from generation.models import Role
from tests.annotation.factories import (
    claim,
    make_campaign,
    make_gold,
    make_judged_task,
    submit,
)
from tests.factories import make_set, make_source, make_user

LOCALE = Path(settings.LOCALE_PATHS[0])
CATALOGUES = sorted(path.name for path in LOCALE.iterdir())
TEMPLATES = settings.BASE_DIR / "templates"
PLACEHOLDER = re.compile(r"%\(\w+\)[sdg]|%[sd](?!\w)|%\.\d+g|\{\w+\}")
ARABIC = "قطة على السطح 12"


# Catalogues -------------------------------------------------------------------------------------


def catalogue(name: str, kind: str = "po") -> Any:
    path = str(LOCALE / name / "LC_MESSAGES" / f"django.{kind}")
    return polib.pofile(path) if kind == "po" else polib.mofile(path)


def said(entry: Any) -> list[str]:
    return list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]


def test_there_is_a_catalogue_of_every_language() -> None:
    offered = {translation.to_locale(code) for code, _ in settings.LANGUAGES[1:]}
    assert set(CATALOGUES) == offered == {"ja", "zh_Hans"}


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_message_is_translated(name: str) -> None:
    entries = catalogue(name)
    assert len(entries) > 1000
    assert [entry.msgid for entry in entries if not all(said(entry))] == []
    assert [entry.msgid for entry in entries if entry.fuzzy or entry.obsolete] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_placeholders_and_markup_are_those_of_the_message(name: str) -> None:
    wrong = []
    for entry in catalogue(name):
        # Of a singular and a plural the plural names the number.
        source = entry.msgid_plural or entry.msgid
        for text in said(entry):
            same_places = set(PLACEHOLDER.findall(text)) == set(PLACEHOLDER.findall(source))
            same_markup = sorted(re.findall(r"<[^<> ]+", text)) == sorted(
                re.findall(r"<[^<> ]+", source)
            )
            same_edges = (text[:1] == " ") == (source[:1] == " ")
            if not (same_places and same_markup and same_edges):
                wrong.append((source, text))
    assert wrong == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_the_compiled_catalogue_is_the_written_one(name: str) -> None:
    def rows(entries: Any) -> set[tuple[str | None, str, tuple[str, ...]]]:
        return {(entry.msgctxt, entry.msgid, tuple(said(entry))) for entry in entries}

    assert rows(catalogue(name, "mo")) == rows(catalogue(name)), "run `make messages`"
    with (LOCALE / name / "LC_MESSAGES" / "django.mo").open("rb") as file:
        assert gettext.GNUTranslations(file).ngettext("%(n)s set", "%(n)s sets", 2) != "%(n)s sets"


@pytest.mark.parametrize("name", CATALOGUES)
def test_both_catalogues_hold_the_same_messages_without_places_and_dates(name: str) -> None:
    def keys(entries: Any) -> list[tuple[str | None, str]]:
        return [(entry.msgctxt, entry.msgid) for entry in entries]

    assert keys(catalogue(name)) == keys(catalogue(CATALOGUES[0]))
    text = (LOCALE / name / "LC_MESSAGES" / "django.po").read_text()
    assert "\n#: " not in text
    assert "Date:" not in text


def test_the_words_of_the_scripts_keep_their_placeholders() -> None:
    with translation.override("en-gb"):
        english = words()
    for code in ("zh-hans", "ja"):
        with translation.override(code):
            translated = words()
        assert translated["best"] != english["best"]
        for key, text in english.items():
            assert set(PLACEHOLDER.findall(translated[key])) == set(PLACEHOLDER.findall(text)), key


def test_it_leaves_the_words_of_django_alone() -> None:
    """A message of ours that Django has, too, with another meaning, would take its place there."""
    day = date(2026, 5, 1)
    with translation.override("ja"):
        assert date_format(day, "F") == "5月"  # not what a token may do
    with translation.override("zh-hans"):
        assert date_format(day, "F") == "五月"


# What is wrapped --------------------------------------------------------------------------------

# Names, signs and code that are the same in every language.
PLAIN = {
    *("OneLoop", "CSV", "JSON", "card.json", "Shift", "Space", "API", "OpenAPI", "YAML"),
    "OneLoop API",
    "manage.py import_sources PATH --task fill",
    "Authorization: Bearer",
}
WRAPPED = re.compile(
    r"\{%-?\s*blocktrans(?:late)?\b.*?\{%-?\s*endblocktrans(?:late)?\s*-?%\}", re.S
)
CLASSES = re.compile(r"\{% block (?:main|body)_class %\}.*?\{% endblock %\}", re.S)
TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.S)
SPOKEN = {"alt", "title", "placeholder", "aria-label", "aria-description"}


class Texts(HTMLParser):
    """Text nodes, and the attributes that people read or hear."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.found += [value for name, value in attrs if name in SPOKEN and value]

    def handle_data(self, data: str) -> None:
        if self.inside not in {"script", "style"}:
            self.found.append(data)


def unwrapped(template: str) -> list[str]:
    """What a template says in English whatever the reader's language; "¤" stands for a tag."""
    parser = Texts()
    for pattern in (WRAPPED, CLASSES, TAG):
        template = pattern.sub(" ¤ ", template)
    parser.feed(template)
    parser.close()
    texts = [
        part.strip(" \n·,.:;()…“”–→✓✕/+-=?&0123456789")
        for t in parser.found
        for part in t.split("¤")
    ]
    return [text for text in texts if re.search(r"[A-Za-z]{2}", text) and text not in PLAIN]


@pytest.mark.parametrize(
    "path",
    sorted(TEMPLATES.rglob("*.html")) + sorted(TEMPLATES.rglob("*.txt")),
    ids=lambda path: str(path.relative_to(TEMPLATES)),
)
def test_a_template_says_nothing_that_is_not_wrapped(path: Path) -> None:
    assert unwrapped(path.read_text()) == []


def test_the_scan_finds_a_bare_sentence() -> None:
    template = (
        '<p title="A hint">Bare {% if x %}or{% else %}{% translate "fine" %}{% endif %} {{ name }}'
        "{% blocktranslate %}fine {{ n }}{% endblocktranslate %}<b>OneLoop</b></p>"
    )
    assert unwrapped(template) == ["A hint", "Bare", "or"]


# Pages ------------------------------------------------------------------------------------------


@pytest.fixture
def campaign(db: None) -> Campaign:
    return make_campaign(task=make_judged_task(4), sets=3)


def ask(client: Client, path: str, language: str, **more: Any) -> str:
    response = client.get(path, headers={"accept-language": language}, follow=True, **more)
    assert response.status_code == 200, path
    return response.content.decode()


@pytest.mark.parametrize(
    ("language", "lang", "log_in", "needs_now", "best", "overview"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.5", "zh-hans", "登录", "当前待办", "最佳", "概览"),
        ("ja", "ja", "ログイン", "今すること", "最良", "概要"),
        ("en-US", "en-gb", "Log in", "What needs you now", "best", "Overview"),
        ("fr", "en-gb", "Log in", "What needs you now", "best", "Overview"),
    ],
)
def test_it_speaks_the_language_that_the_browser_asks_for(
    campaign: Campaign,
    language: str,
    lang: str,
    log_in: str,
    needs_now: str,
    best: str,
    overview: str,
) -> None:
    client = Client()
    text = ask(client, "/login/", language)
    assert f'<html lang="{lang}" dir="ltr">' in text
    assert f"<h1>{log_in}</h1>" in text
    client.force_login(make_user("boss", is_staff=True))
    for path, shown in [
        ("/", needs_now),
        (reverse("annotation:next", args=[campaign.pk]), f">{best}<"),
        (reverse("annotation:campaign", args=[campaign.pk]), f">{overview}<"),
    ]:
        text = ask(client, path, language)
        assert f'<html lang="{lang}" dir="ltr">' in text
        assert shown in text, path


def test_the_rendered_parts_of_the_label_page_are_not_mixed_up(campaign: Campaign) -> None:
    client = Client()
    client.force_login(make_user("ann"))
    path = reverse("annotation:next", args=[campaign.pk])
    for language, worst in [("ja", "最悪"), ("en", "worst"), ("zh-hans", "最差"), ("ja", "最悪")]:
        text = ask(client, path, language)
        assert f'<span class="sort" aria-hidden="true">{worst}</span>' in text


def test_somebody_logged_out_chooses_a_language_and_keeps_it(db: None) -> None:
    client = Client()
    page = ask(client, "/login/?next=/label/", "en")
    assert '<button name="language" value="ja" lang="ja"' in page
    assert '<input type="hidden" name="next" value="/login/?next=/label/">' in page

    response = client.post("/language/", {"language": "ja", "next": "/login/?next=/label/"})
    assert response.headers["Location"] == "/login/?next=/label/"
    cookie = response.cookies["django_language"]
    assert (cookie.value, cookie["max-age"], cookie["samesite"]) == ("ja", 365 * 24 * 3600, "Lax")
    assert '<html lang="ja"' in ask(client, "/login/", "en")

    user = make_user("ann")
    client.force_login(user)
    assert '<html lang="ja"' in ask(client, "/account/", "en")


def test_the_choice_leads_nowhere_else_and_takes_no_unknown_language(db: None) -> None:
    client = Client()
    response = client.post("/language/", {"language": "xx", "next": "https://example.com/"})
    assert response.headers["Location"] == "/"
    assert "django_language" not in response.cookies
    assert client.get("/language/").status_code == 405


def test_what_is_stored_is_in_no_readers_language(campaign: Campaign) -> None:
    client = Client()
    annotator = make_user("ann")
    client.force_login(annotator)
    turn = claim(annotator, campaign)
    page = ask(client, f"/label/{turn.pk}/", "ja")
    assert 'value="The content is offensive"> 内容が不快</label>' in page
    client.post(f"/label/{turn.pk}/skip/", {"reason": "The content is offensive"})
    turn.refresh_from_db()
    assert turn.skip_reason == "The content is offensive"
    assert "内容が不快" in ask(client, "/label/history/", "ja")


def test_an_error_is_said_in_the_readers_language(campaign: Campaign) -> None:
    client = Client()
    client.force_login(make_user("ann"))
    response = client.get("/campaigns/new/", headers={"accept-language": "ja"})
    assert response.status_code == 403
    text = response.content.decode()
    assert "この操作は許可されていません" in text
    assert "マネージャー" in text


def test_even_the_page_of_a_failure_speaks_the_readers_language() -> None:
    with translation.override("ja"):
        text = render_to_string("500.html")
    assert '<html lang="ja" dir="ltr">' in text
    assert "こちら側でエラーが発生しました" in text


# Prompts ----------------------------------------------------------------------------------------


PROMPT = re.compile(r"\{\{ (?:[\w.]+\.)?(?:effective_)?prompt(?:\|[^}]*)? \}\}")


def stands_apart(before: str) -> bool:
    """Whether what follows is isolated from its surroundings and finds its own direction."""
    opened = re.findall(r"<[^/>][^>]*>", before)[-2:]
    return any('dir="auto"' in tag or tag == "<bdi>" for tag in opened)


def test_every_template_isolates_the_prompts_it_shows() -> None:
    shown = [
        (path.name, stands_apart(text[: found.start()]))
        for path in sorted(TEMPLATES.rglob("*.html"))
        for text in [path.read_text()]
        for found in PROMPT.finditer(text)
    ]
    assert len(shown) >= 7
    assert [name for name, apart in shown if not apart] == []


def site_with_a_prompt_from_right_to_left() -> tuple[User, Campaign, Assignment]:
    task = make_judged_task()
    sets = [make_set(make_source(task, prompt=ARABIC)) for _ in range(2)]
    campaign = make_campaign(task=task, sets=sets, practice_sets=0)
    for criterion in task.criteria.all():
        make_gold(sets[1], criterion.dimension, practice=True)
    boss = make_user("boss", role=Role.ADMIN, is_staff=True)
    turn = claim(boss, campaign)
    submit(turn)
    return boss, campaign, turn


@pytest.mark.django_db
def test_a_prompt_stays_in_its_own_direction() -> None:
    boss, campaign, turn = site_with_a_prompt_from_right_to_left()
    client = Client()
    client.force_login(boss)
    for path in [
        f"/label/{turn.pk}/",
        "/label/history/",
        "/sources/",
        reverse("annotation:review_item", args=[campaign.pk, turn.item_id]),
        reverse("annotation:set_gold", args=[campaign.pk, turn.item_id]),
    ]:
        text = ask(client, path, "en")
        assert ARABIC in text, path
        for found in re.finditer(re.escape(ARABIC), text):
            assert stands_apart(text[: found.start()]), path


# What the code says now --------------------------------------------------------------------------


def said_in(path: Path) -> Iterator[str]:
    """The messages that a Python file or a template asks to be translated."""
    text = path.read_text()
    if path.suffix == ".html":
        text = templatize(text)
        # What stands between the calls is blanked out with X, which is no Python.
        calls = re.findall(rf"n?p?gettext\((?:u?(?:{TEXT}),? ?)+", text)
        text = "\n".join(call.rstrip(", ") + ")" for call in calls)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and _name(node.func) in CALLS:
            before, count = CALLS[_name(node.func)]
            for argument in node.args[before : before + count]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


TEXT = r"'(?:[^'\\]|\\.)*'" + "|" + r'"(?:[^"\\]|\\.)*"'
# Name of the call: arguments before the message, and how many messages.
CALLS = {
    "_": (0, 1),
    "lazy": (0, 1),
    "gettext": (0, 1),
    "gettext_lazy": (0, 1),
    "ngettext": (0, 2),
    "ngettext_lazy": (0, 2),
    "pgettext": (1, 1),
    "pgettext_lazy": (1, 1),
    "npgettext": (1, 2),
}


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


@pytest.mark.parametrize("language", ["zh_Hans", "ja"])
def test_it_knows_every_message_of_the_code(language: str) -> None:
    """A message that is new in the code is missing in the catalogue until `make messages`."""
    root = Path(settings.BASE_DIR)
    catalogue = polib.pofile(str(root / f"config/locale/{language}/LC_MESSAGES/django.po"))
    known = {text for entry in catalogue for text in (entry.msgid, entry.msgid_plural) if text}
    paths = [*root.glob("templates/**/*.html")]
    for app in ("annotation", "generation", "modeling", "config"):
        paths += [p for p in root.glob(f"{app}/**/*.py") if "migrations" not in p.parts]
    said = {text: path.name for path in paths for text in said_in(path)}
    assert len(said) > 500
    assert {text: where for text, where in said.items() if text not in known} == {}
