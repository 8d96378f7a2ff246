"""Labelling as people do it: in Chromium, by keyboard alone, and with JavaScript switched off."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from annotation.models import Assignment, Campaign, Judgment
from generation.models import Source, Task
from tests.annotation.factories import make_campaign, make_dimension
from tests.factories import make_task, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(600),
]
SECONDS = 60_000
State = Assignment.State


@pytest.fixture
def task() -> Task:
    task = make_task("paint")
    for slug in ("match", "join", "shape", "beauty"):
        make_dimension(slug, task=task)
    return task


@pytest.fixture
def campaign(task: Task) -> Campaign:
    return make_campaign(task=task, sets=3, name="Keys")


@pytest.fixture
def user() -> User:
    return make_user("ann")


def log_in(page: Any, url: str, *, script: bool = True) -> None:
    page.set_default_timeout(SECONDS)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{url}/login/?next=/label/")
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_selector("#label[data-ready]" if script else "#label")


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def wait_for_turn(page: Any, *, other_than: str) -> str:
    page.wait_for_function(
        "before => document.querySelector('#label')?.dataset.turn !== before", arg=other_than
    )
    return shown_turn(page)


def shown_turn(page: Any) -> str:
    return page.get_attribute("#label", "data-turn") or ""


def sent(page: Any) -> None:
    """Wait until the server has acknowledged every submission."""
    page.wait_for_function(
        "() => !Object.keys(localStorage).some(key => key.startsWith('oneloop-outbox-')"
        " && JSON.parse(localStorage[key]).length)"
    )


def stored(turn: str) -> dict[str, tuple[str, int | None, int | None]]:
    """What stands for a turn: outcome and the places, counted from the left, of best and worst."""
    assignment = Assignment.objects.get(pk=int(turn))

    def place(candidate: Any) -> int | None:
        return assignment.order.index(candidate.index) + 1 if candidate else None

    return {
        row.dimension.slug: (row.outcome, place(row.best), place(row.worst))
        for row in Judgment.objects.current().filter(assignment=assignment)
    }


@pytest.mark.parametrize("language", ["ja", "zh-hans"])
def test_it_fits_a_small_screen_in_other_languages(
    page: Any, live_server: Any, campaign: Campaign, user: User, language: str
) -> None:
    Source.objects.update(prompt="قطة على السطح 12")
    cookie = {"name": "django_language", "value": language, "url": live_server.url}
    page.context.add_cookies([cookie])
    log_in(page, live_server.url)
    assert page.get_attribute("html", "lang") == language
    assert page.evaluate("document.documentElement.scrollHeight") <= 720
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    # Each of these is one line high: nothing in them is wrapped.
    for part, most in [(".top", 60), (".bar", 60), (".actions", 60)]:
        assert page.locator(part).bounding_box()["height"] <= most, part
    for button in page.locator(".tools button, .actions button, .chip > span").all():
        assert button.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
    # The page runs from left to right, the prompt in it from right to left.
    assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"
    assert page.eval_on_selector(".prompt strong", "node => getComputedStyle(node).direction") == (
        "rtl"
    )
    # The scripts speak the language, too.
    assert page.inner_text("#still") == {"ja": "残り 4 観点", "zh-hans": "还剩 4 个维度"}[language]


def test_it_labels_sets_by_keyboard_alone(
    page: Any, live_server: Any, campaign: Campaign, user: User
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    log_in(page, live_server.url)
    first = shown_turn(page)
    assert page.url.endswith(f"/label/{first}/")
    assert page.evaluate("document.documentElement.scrollHeight") <= 720

    # Two keys a dimension; the next one becomes active by itself.
    press(page, "1", "Shift+Digit4", "3", "q", "0", "x")
    assert page.inner_text("#still") == ""
    press(page, "Enter")
    second = wait_for_turn(page, other_than=first)
    sent(page)
    assert stored(first) == {
        "match": ("picked", 1, 4),
        "join": ("picked", 3, 1),
        "shape": ("no_difference", None, None),
        "beauty": ("cannot_judge", None, None),
    }
    assert page.url.endswith(f"/label/{second}/")
    assert "1 today" in page.inner_text(".count")

    # Arrows choose the dimension; best and worst are never the same; half an answer is not sent.
    press(page, "ArrowDown", "2", "w", "r", "Enter")
    assert page.inner_text("#still") == "4 dimensions to go"
    assert page.get_attribute(".dimension.active", "data-dimension") == "match"
    assert (shown_turn(page), stored(second)) == (second, {})
    press(page, "2", "e", "1", "0", "0", "Enter")
    third = wait_for_turn(page, other_than=second)
    sent(page)
    assert stored(second) == {
        "match": ("picked", 2, 3),
        "join": ("picked", 1, 4),
        "shape": ("no_difference", None, None),
        "beauty": ("no_difference", None, None),
    }

    # Undo brings the answers back, a changed one is a new revision.
    press(page, "u")
    wait_for_turn(page, other_than=third)
    assert shown_turn(page) == second
    assert stored(second) == {}
    assert page.is_checked('input[name="best-match"][value="2"]')
    press(page, "ArrowUp", "ArrowDown", "4", "Enter")
    assert wait_for_turn(page, other_than=second) == third
    sent(page)
    assert stored(second)["match"] == ("picked", 4, 3)
    assert Judgment.objects.filter(assignment=int(second)).count() == 8

    # Skip, and the queue says why it is empty.
    press(page, "s")
    page.wait_for_selector("[data-menu=skip][open]")
    press(page, "ArrowDown", "Enter")
    page.wait_for_selector("#label[data-empty]")
    skipped = Assignment.objects.get(pk=int(third))
    assert (skipped.state, skipped.skip_reason) == (State.SKIPPED, "The prompt makes no sense here")
    assert "somebody else’s eyes" in page.inner_text("h1")
    assert errors == []


def test_it_shows_source_outline_and_zoom_by_key(
    page: Any, live_server: Any, campaign: Campaign, user: User
) -> None:
    log_in(page, live_server.url)
    page.keyboard.down("Space")
    assert page.is_visible(".candidate .under")
    page.keyboard.up("Space")
    assert page.is_hidden(".candidate .under")
    press(page, "m", "d")
    assert page.is_visible(".candidate .outline")
    assert page.is_visible(".candidate .shade")
    press(page, "z")
    page.wait_for_selector('[data-do="zoom"][aria-pressed="true"]')
    # The mask is the middle half: half a side is enlarged to four fifths.
    zoom = page.evaluate(
        "getComputedStyle(document.querySelector('.stage')).getPropertyValue('--zoom')"
    )
    assert float(zoom) == pytest.approx(1.6)
    assert page.evaluate(
        "[...document.querySelectorAll('.candidate img[width]')]"
        ".every(image => getComputedStyle(image).imageRendering === 'pixelated')"
    )
    # How the pictures are shown stays so in the next set.
    turn = shown_turn(page)
    press(page, "0", "0", "0", "0", "Enter")
    wait_for_turn(page, other_than=turn)
    page.wait_for_selector('[data-do="zoom"][aria-pressed="true"]')
    assert page.is_visible(".candidate .outline")
    press(page, "?")
    assert page.is_visible(".panel.help")
    press(page, "Escape")
    assert page.is_hidden(".panel.help")
    # The same by mouse: a picture is the best, another one the worst.
    page.click('.candidate[data-place="2"] .view')
    page.click('.candidate[data-place="3"] .view')
    assert page.is_checked('input[name="best-match"][value="2"]')
    assert page.is_checked('input[name="worst-match"][value="3"]')


def test_it_keeps_the_answers_when_the_server_says_no(
    page: Any, live_server: Any, campaign: Campaign, user: User
) -> None:
    log_in(page, live_server.url)
    turn = shown_turn(page)
    press(page, "1", "r", "0", "0", "0")
    Campaign.objects.update(state=Campaign.State.PAUSED)
    press(page, "Enter")
    page.wait_for_selector("#notice:has-text('was paused')")
    assert page.inner_text("#sync") == "1 unsaved ↑"
    assert stored(turn) == {}
    Campaign.objects.update(state=Campaign.State.OPEN)
    page.reload()
    sent(page)
    assert stored(turn)["match"] == ("picked", 1, 4)


def test_it_labels_without_javascript(
    browser: Any, live_server: Any, campaign: Campaign, user: User
) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        log_in(page, live_server.url, script=False)
        turn = shown_turn(page)
        for slug in ("match", "join"):
            page.check(f'input[name="best-{slug}"][value="2"]', force=True)
            page.check(f'input[name="worst-{slug}"][value="2"]', force=True)
        page.click("#submit")
        page.wait_for_selector("#notice:has-text('the same candidate is best and worst')")
        assert stored(turn) == {}
        page.check('input[name="worst-match"][value="1"]', force=True)
        page.check('input[name="best-join"][value="no_difference"]', force=True)
        page.check('input[name="best-shape"][value="no_difference"]', force=True)
        page.check('input[name="best-beauty"][value="cannot_judge"]', force=True)
        page.click("#submit")
        page.wait_for_selector(f'#label:not([data-turn="{turn}"])')
        assert stored(turn) == {
            "match": ("picked", 2, 1),
            "join": ("no_difference", None, None),
            "shape": ("no_difference", None, None),
            "beauty": ("cannot_judge", None, None),
        }
        page.click("[data-menu=skip] summary")
        page.click("[data-menu=skip] button")
        page.wait_for_selector("#label")
        assert Assignment.objects.filter(state=State.SKIPPED).count() == 1
        page.click("[data-form=undo] button")
        page.wait_for_selector("#answers")
        assert not Assignment.objects.filter(state=State.SKIPPED).exists()
    finally:
        context.close()
