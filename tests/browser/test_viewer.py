"""Looking at pictures and the other ways of asking, in Chromium: zoom, comparison, pairs, ratings,
practice, one dimension at a time."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from annotation.models import Assignment, Campaign, Flag, Rating, Seat
from generation.models import Task
from generation.sources import add_source
from tests.annotation.factories import make_campaign, make_dimension, make_golds
from tests.browser.test_label import log_in, press, sent, shown_turn, stored, wait_for_turn
from tests.factories import make_picture, make_set, make_source, make_task, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(600),
]
STYLE = "getComputedStyle(document.querySelector('.stage')).getPropertyValue('{}')"


@pytest.fixture
def task() -> Task:
    task = make_task("paint")
    for slug in ("match", "join"):
        make_dimension(slug, task=task)
    return task


@pytest.fixture
def user() -> User:
    return make_user("ann")


def style(page: Any, name: str) -> float:
    return float(page.evaluate(STYLE.format(name)))


def widths(page: Any) -> set[float]:
    """How wide each picture is drawn, in pixels of the screen."""
    return set(
        page.eval_on_selector_all(
            ".frame img.picture",
            "all => all.map(image => Math.round(image.getBoundingClientRect().width * 100) / 100)",
        )
    )


def test_all_pictures_zoom_and_move_together(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    big = make_source(task, size=(800, 600))
    made = make_set(big)
    make_campaign(task=task, sets=[made], name="Zoom")
    log_in(page, live_server.url)
    # Reduced copies come first: the full pictures are fetched when they are looked at closely.
    source = "document.querySelector('.original img.picture').src"
    assert page.evaluate(source).endswith("size=screen")
    box = page.locator('.candidate[data-place="2"] .view').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"Number({STYLE.format('--zoom')}) > 2")
    zoom = style(page, "--zoom")
    # The point under the pointer, a quarter in, stays where it is.
    assert style(page, "--x") == pytest.approx(0.25 * (1 - zoom), abs=0.02)
    assert len(widths(page)) == 1
    assert not page.evaluate(source).endswith("size=screen")
    # Dragging moves all of them and picks nothing.
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert style(page, "--x") > 0.25 * (1 - zoom) + 0.1
    assert page.locator("input:checked").count() == 1  # the reason in the skip form
    before = style(page, "--x")
    press(page, "Shift+ArrowRight")
    assert style(page, "--x") == pytest.approx(max(before - 0.08, 1 - zoom), abs=0.01)


def test_at_100_percent_a_pixel_is_a_pixel(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=[make_set(make_source(task, size=(800, 600)))], name="Exact")
    log_in(page, live_server.url)
    press(page, "p")
    assert page.inner_text("#scale") == "100 %"
    assert widths(page) == {800.0}
    left = page.evaluate(
        "document.querySelector('.original img.picture').getBoundingClientRect().x"
        " - document.querySelector('.original .view').getBoundingClientRect().x"
    )
    assert left == pytest.approx(round(left), abs=0.01)
    press(page, "+")
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.candidate img.picture')).imageRendering"
    ) == ("pixelated")
    press(page, "p", "p")
    assert page.get_attribute('[data-do="exact"]', "aria-pressed") == "false"


def test_two_pictures_lie_on_top_of_each_other(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=1, name="Swipe")
    log_in(page, live_server.url)
    press(page, "c")
    page.wait_for_selector("dialog.compare[open]")
    candidate = "document.querySelector('.candidate[data-place=\"3\"] img.picture').src"
    press(page, "3")
    over = page.evaluate("document.querySelector('.over-right').src")
    assert over == page.evaluate(candidate)
    assert page.evaluate("document.querySelector('.under-left').alt") == "Source"
    split = "document.querySelector('dialog.compare').style.getPropertyValue('--split')"
    assert page.evaluate(split) == "50%"
    press(page, "ArrowLeft")
    assert page.evaluate(split) == "45%"
    page.keyboard.down("Space")
    assert page.locator("dialog.compare.alone").count() == 1
    page.keyboard.up("Space")
    assert page.locator("dialog.compare.alone").count() == 0
    press(page, "Shift+Digit2")
    assert page.evaluate("document.querySelector('.under-left').alt") == "Candidate 2"
    assert page.locator("#answers input:checked").count() == 0  # keys chose pictures, no answers
    press(page, "Escape")
    page.wait_for_selector("dialog.compare", state="detached")
    press(page, "1")
    assert page.is_checked('input[name="best-match"][value="1"]')


def test_pairs_are_judged_with_arrows(page: Any, live_server: Any, task: Task, user: User) -> None:
    sets = [make_set(make_source(task), size=2) for _ in range(2)]
    make_campaign(task=task, sets=sets, name="Pairs", purpose="comparison")
    log_in(page, live_server.url)
    turn = shown_turn(page)
    press(page, "ArrowRight", "ArrowLeft", "Enter")
    wait_for_turn(page, other_than=turn)
    sent(page)
    assert stored(turn) == {"match": ("picked", 2, 1), "join": ("picked", 1, 2)}


def test_single_pictures_are_rated_by_key(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    campaign = make_campaign(task=task, sets=2, name="Usable", purpose="rating")
    campaign.items.update(shown=[1])
    log_in(page, live_server.url)
    turn = shown_turn(page)
    press(page, "Enter")
    assert page.inner_text("#still") == "3 dimensions to go"
    press(page, "y", "4", "2", "Enter")
    wait_for_turn(page, other_than=turn)
    sent(page)
    rows = Rating.objects.filter(assignment=int(turn))
    assert dict(rows.values_list("dimension__slug", "value")) == {None: 1, "match": 4, "join": 2}
    press(page, "u")
    wait_for_turn(page, other_than=shown_turn(page)) if shown_turn(page) != turn else None
    page.wait_for_selector(f'#label[data-turn="{turn}"]')
    assert page.is_checked('input[name="score-match"][value="4"]')


def test_dimensions_come_one_at_a_time_where_the_campaign_says_so(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=1, name="One", one_at_a_time=True)
    log_in(page, live_server.url)
    assert page.is_visible('[data-dimension="match"]')
    assert page.is_hidden('[data-dimension="join"]')
    press(page, "1", "r")
    assert page.is_hidden('[data-dimension="match"]')
    assert page.is_visible('[data-dimension="join"]')


def test_a_problem_is_flagged_without_leaving_the_set(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=1, name="Flags")
    log_in(page, live_server.url)
    turn = shown_turn(page)
    press(page, "1", "f")
    page.wait_for_selector("[data-menu=flag][open]")
    page.keyboard.type("The mask misses the hat")
    press(page, "Enter")
    page.wait_for_selector("#notice:has-text('Reported')")
    assert [flag.reason for flag in Flag.objects.all()] == ["The mask misses the hat"]
    assert shown_turn(page) == turn
    assert page.is_checked('input[name="best-match"][value="1"]')


def test_practice_shows_the_answers_and_leads_to_the_work(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    campaign = make_campaign(task=task, sets=3, name="Learn", practice_sets=1)
    item = campaign.items.order_by("pk")[0]
    make_golds(item.set, best=0, worst=1, practice=True, explanation="Look at the edge.")
    log_in(page, live_server.url)
    turn = Assignment.objects.get(pk=int(shown_turn(page)))
    best, worst = (str(turn.order.index(index) + 1) for index in (0, 1))
    press(page, best, f"Shift+Digit{worst}", best, f"Shift+Digit{worst}", "Enter")
    page.wait_for_url(f"**/label/{turn.pk}/feedback/")
    assert "Look at the edge." in page.inner_text("main")
    assert Seat.objects.get(user=user, campaign=campaign).practice_passed_at is not None
    page.click("main a.primary")
    page.wait_for_selector("#label[data-ready]")
    work = Assignment.objects.get(pk=int(shown_turn(page)))
    assert (work.kind, work.item_id != item.pk) == (Assignment.Kind.WORK, True)
    assert Campaign.objects.count() == 1


def test_a_picture_from_the_prompt_alone_is_judged_without_a_source(
    page: Any, live_server: Any, user: User
) -> None:
    """No blank picture stands beside the candidates, and nothing speaks of an edited area."""
    task = make_task("dream", needs_source=False, needs_mask=False)
    for slug in ("match", "beauty"):
        make_dimension(slug, task=task)
    source, _ = add_source(task=task, image=None, mask=None, prompt="a red lantern", size=(96, 64))
    pictures = [make_picture(seed, (96, 64)) for seed in range(4)]
    sets = [make_set(source, pictures=pictures), make_set(source)]
    make_campaign(task=task, sets=sets, name="Dreams")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    log_in(page, live_server.url)
    first = shown_turn(page)

    assert page.locator(".frame").count() == 4
    assert page.locator(".frame.original").count() == 0
    assert style(page, "--columns") == 4
    assert "a red lantern" in page.inner_text(".prompt")
    shown = page.locator(".tools button:visible").evaluate_all("all => all.map(b => b.dataset.do)")
    assert shown == ["compare", "exact"]
    assert page.evaluate("document.documentElement.scrollHeight") <= 720

    # The comparison begins with the first two candidates.
    press(page, "c")
    assert page.locator("dialog.compare input[name=compare-left]").evaluate_all(
        "all => all.map(one => one.value)"
    ) == ["1", "2", "3", "4"]
    assert page.locator("dialog.compare .choices").nth(0).inner_text().split()[-4:] == list("1234")
    checked = "dialog.compare input:checked"
    assert page.locator(checked).evaluate_all("all => all.map(one => one.value)") == ["1", "2"]
    press(page, "3", "Escape")
    page.wait_for_selector("dialog.compare", state="hidden")

    # Keys that speak of source and mask do no harm.
    press(page, " ", "m", "d", "z", "1", "Shift+Digit4", "0", "Enter")
    wait_for_turn(page, other_than=first)
    sent(page)
    assert stored(first) == {
        "match": ("picked", 1, 4),
        "beauty": ("no_difference", None, None),
    }
    assert errors == []
