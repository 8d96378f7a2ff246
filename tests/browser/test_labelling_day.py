"""A working day in Chromium: many sets by keyboard and by touch, through lost connections, a second
window, leases that run out and a server that dies between click and answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.utils import timezone

from annotation import queue
from annotation.models import Assignment, Campaign, Judgment
from generation.models import Task
from tests.annotation.factories import make_campaign, make_dimension
from tests.browser.test_label import log_in, press, sent, shown_turn, stored, wait_for_turn
from tests.conftest import REPOSITORY, process_environment, stop_process_group
from tests.factories import make_task, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(900),
]
State = Assignment.State
FIFTY = 50


@pytest.fixture
def task() -> Task:
    task = make_task("paint")
    for slug in ("match", "join"):
        make_dimension(slug, task=task)
    return task


@pytest.fixture
def user() -> User:
    return make_user("ann")


def judge(page: Any) -> str:
    """One set by keyboard: candidate 1 best, 4 worst, then no difference."""
    turn = shown_turn(page)
    press(page, "1", "r", "0", "Enter")
    return turn


def judge_many(page: Any, count: int) -> list[str]:
    turns = []
    for _ in range(count):
        turns.append(turn := judge(page))
        wait_for_turn(page, other_than=turn)
    return turns


def wait_until_ready(page: Any, count: int) -> None:
    """Wait until that many sets are handed out, and their pages are in the browser."""
    end = time.monotonic() + 60
    while Assignment.objects.filter(state=State.OPEN).count() < count:
        assert time.monotonic() < end
        page.wait_for_timeout(50)
    page.wait_for_load_state("networkidle")


def assert_each_stored_once(count: int) -> None:
    finished = Assignment.objects.filter(state=State.SUBMITTED)
    assert finished.count() == count
    per_turn = Counter(Judgment.objects.current().values_list("assignment", flat=True))
    assert per_turn == {turn.pk: 2 for turn in finished}
    assert Judgment.objects.count() == 2 * count


def test_it_labels_fifty_sets_by_keyboard_without_waiting(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=FIFTY + 10, name="Fifty")
    log_in(page, live_server.url)
    wait_until_ready(page, 20)
    turns = []
    for number in range(1, 11):
        turns += judge_many(page, 1)
        page.wait_for_function(
            "n => performance.getEntriesByName('oneloop-next').length >= n", arg=number
        )
    took = page.evaluate("performance.getEntriesByName('oneloop-next').map(e => e.duration)")
    assert sorted(took)[len(took) // 2] < 100  # ms from Enter until the next pictures are decoded
    turns += judge_many(page, FIFTY - 10)  # as fast as keys can be pressed
    sent(page)
    assert len(set(turns)) == FIFTY
    assert_each_stored_once(FIFTY)
    assert stored(turns[0]) == {"match": ("picked", 1, 4), "join": ("no_difference", None, None)}


def test_it_labels_by_touch(browser: Any, live_server: Any, task: Task, user: User) -> None:
    make_campaign(task=task, sets=FIFTY + 10, name="Tablet")
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    try:
        page = context.new_page()
        log_in(page, live_server.url)
        page.set_viewport_size({"width": 1024, "height": 768})
        wait_until_ready(page, 20)
        for _ in range(FIFTY):
            turn = shown_turn(page)
            page.tap('.candidate[data-place="2"] .view')
            page.tap('.candidate[data-place="3"] .view')
            page.tap('[data-dimension="join"] label:has(input[value="cannot_judge"])')
            page.tap("#submit")
            wait_for_turn(page, other_than=turn)
        sent(page)
        assert_each_stored_once(FIFTY)
        assert stored(turn) == {"match": ("picked", 2, 3), "join": ("cannot_judge", None, None)}
        # Two fingers zoom all pictures at once.
        client = context.new_cdp_session(page)
        box = page.locator('.candidate[data-place="1"] .view').bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, spread in (("touchStart", 10), ("touchMove", 25), ("touchMove", 40)):
            points = [{"x": x - spread, "y": y, "id": 0}, {"x": x + spread, "y": y, "id": 1}]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert zoom_of(page) > 1.5
    finally:
        context.close()


def zoom_of(page: Any) -> float:
    style = "getComputedStyle(document.querySelector('.stage')).getPropertyValue('--zoom')"
    return float(page.evaluate(style))


def test_it_works_on_for_twenty_sets_without_a_connection(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=60, name="Train")
    log_in(page, live_server.url)
    wait_until_ready(page, 25)
    page.context.set_offline(True)
    turns = judge_many(page, 20)
    assert "20 kept here" in page.inner_text("#sync")
    assert not Judgment.objects.exists()
    # The newest one has not left the browser: it is taken back without a connection.
    before = shown_turn(page)
    press(page, "u")
    assert wait_for_turn(page, other_than=before) == turns[-1]
    assert page.is_checked('input[name="best-match"][value="1"]')
    press(page, "ArrowUp", "ArrowUp", "3", "Enter")
    wait_for_turn(page, other_than=turns[-1])
    page.context.set_offline(False)
    sent(page)
    assert_each_stored_once(20)
    assert {int(turn) for turn in turns} == set(
        Assignment.objects.filter(state=State.SUBMITTED).values_list("pk", flat=True)
    )
    assert page.inner_text("#sync") == ""
    judge_many(page, 2)
    sent(page)
    assert_each_stored_once(22)


def test_it_keeps_unsent_sets_through_a_reload_and_a_log_out(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=40, name="Session")
    log_in(page, live_server.url)
    wait_until_ready(page, 15)
    page.context.clear_cookies()
    turns = judge_many(page, 3)
    page.wait_for_selector("#notice:has-text('You are logged out')")
    assert not Judgment.objects.exists()
    page.click("#notice button")
    page.wait_for_selector("[name=username]")
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_selector("#label[data-ready]")
    sent(page)
    assert_each_stored_once(3)
    # Answers of a set that was not submitted come back, too.
    turn = shown_turn(page)
    assert turn not in turns
    press(page, "2", "q")
    page.reload()
    page.wait_for_selector("#label[data-ready]")
    assert shown_turn(page) == turn
    assert page.is_checked('input[name="best-match"][value="2"]')
    assert page.is_checked('input[name="worst-match"][value="1"]')


def test_two_windows_double_nothing(page: Any, live_server: Any, task: Task, user: User) -> None:
    make_campaign(task=task, sets=30, name="Windows")
    log_in(page, live_server.url)
    other = page.context.new_page()
    other.set_default_timeout(60_000)
    other.goto(page.url)
    other.wait_for_selector("#label[data-ready]")
    same = shown_turn(page)
    assert shown_turn(other) == same
    for window in (page, other):
        window.wait_for_load_state("networkidle")
    judge(page)
    wait_for_turn(page, other_than=same)
    # The other window goes on by itself rather than offering the set again.
    wait_for_turn(other, other_than=same)
    assert "submitted in another window" in other.inner_text("#notice")
    for _ in range(5):
        for window in (page, other):
            turn = judge(window)
            wait_for_turn(window, other_than=turn)
    # Where both submitted the same set in the same moment, one of them was refused and is told so.
    page.wait_for_function(
        "() => !Object.keys(localStorage).some(key => key.startsWith('oneloop-outbox-')"
        " && JSON.parse(localStorage[key]).some(entry => !entry.refused))"
    )
    finished = Assignment.objects.filter(state=State.SUBMITTED).count()
    assert 6 <= finished <= 11
    assert_each_stored_once(finished)


def test_a_lease_that_ran_out_loses_nothing(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    campaign = make_campaign(task=task, sets=30, name="Lunch")
    log_in(page, live_server.url)
    wait_until_ready(page, 10)
    lunch = shown_turn(page)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    queue.expire_leases()
    # Somebody else takes this set up meanwhile; the others are nobody's.
    rival = make_user("ben")
    item = Assignment.objects.get(pk=int(lunch)).item
    item.position = -500
    item.save(update_fields=["position"])
    taken = queue.claim(user=rival, campaign=campaign)
    assert taken is not None
    assert taken.item_id == item.pk
    first, second = judge_many(page, 2)
    sent(page)
    assert first == lunch
    states = dict(Assignment.objects.filter(annotator=user).values_list("pk", "state"))
    assert (states[int(first)], states[int(second)]) == (State.LATE, State.SUBMITTED)
    assert Judgment.objects.filter(assignment=int(first)).count() == 2
    assert set(Judgment.objects.counted().values_list("assignment", flat=True)) == {int(second)}


def test_the_back_button_shows_what_was_submitted(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=10, name="Back")
    log_in(page, live_server.url)
    wait_until_ready(page, 5)
    first = judge(page)
    second = wait_for_turn(page, other_than=first)
    sent(page)
    page.go_back()
    page.wait_for_selector(f'#label[data-ready][data-turn="{first}"]')
    assert "You submitted this set" in page.inner_text("#notice")
    assert page.is_checked('input[name="worst-match"][value="4"]')
    press(page, "2", "Enter")
    wait_for_turn(page, other_than=first)
    sent(page)
    assert stored(first)["match"] == ("picked", 2, 4)
    assert Judgment.objects.filter(assignment=int(first)).count() == 4
    assert shown_turn(page) == second


# A real web process that is killed ----------------------------------------------------------------


@pytest.fixture
def web(data_dir: Path, broker_url: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the product's own web server on one port, again and again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "config.wsgi:application"]
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=process_environment(data_dir, broker_url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
                return process
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)

    start.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for process in started:
        stop_process_group(process)


def test_a_server_killed_between_click_and_answer_loses_nothing(
    page: Any, web: Any, task: Task, user: User
) -> None:
    # The server runs with the product's hashers rather than with the tests' quick one.
    user.password = PBKDF2PasswordHasher().encode("secret", "salt", iterations=1000)
    user.save(update_fields=["password"])
    make_campaign(task=task, sets=60, name="Crash")
    server = web()
    log_in(page, web.url)
    wait_until_ready(page, 20)
    for _ in range(4):
        judge_many(page, 2)
        # Stopped, it takes the request and does not answer; killed, it never will.
        os.killpg(server.pid, signal.SIGSTOP)
        turn = judge(page)
        wait_for_turn(page, other_than=turn)
        page.wait_for_timeout(200)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)
        judge_many(page, 1)
        server = web()
        page.evaluate("window.dispatchEvent(new Event('online'))")
        sent(page)
    assert_each_stored_once(16)


def test_it_shows_prompts_of_any_script(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    campaign = make_campaign(task=task, sets=1, name="Scripts")
    source = campaign.items.get().set.source
    source.prompt = "فانوس أحمر فوق الباب <b>"
    source.save(update_fields=["prompt"])
    log_in(page, live_server.url)
    assert page.inner_text(".prompt strong") == "“فانوس أحمر فوق الباب <b>”"
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.prompt strong')).direction"
    ) == ("rtl")


def test_an_open_campaign_stays_closed_to_others(
    page: Any, live_server: Any, task: Task, user: User
) -> None:
    make_campaign(task=task, sets=2, name="Closed club", members=[make_user("ben")])
    page.set_default_timeout(60_000)
    page.goto(f"{live_server.url}/login/?next=/label/")
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_selector(".empty")
    campaign = Campaign.objects.get()
    page.goto(f"{live_server.url}/label/campaign/{campaign.pk}/")
    assert "you are not on it" in page.inner_text("h1")
    assert not Assignment.objects.exists()
