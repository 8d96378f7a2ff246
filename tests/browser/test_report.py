"""A round's report on paper: dark on white without navigation, whatever the screen looks like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_every_page import log_in
from tests.factories import make_user
from tests.modeling.test_pages import make_round

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300),
]


def test_a_report_prints_without_what_belongs_to_the_screen(browser: Any, live_server: Any) -> None:
    make_user("chief", role="manager")
    round_ = make_round(outcome="Promoted 'trained 1'")
    context = browser.new_context(color_scheme="dark")
    try:
        page = context.new_page()
        log_in(page, live_server.url)
        page.goto(f"{live_server.url}/loop/{round_.number}/report/")
        assert page.locator("[data-print]").is_visible()
        page.emulate_media(media="print", color_scheme="dark")
        for hidden in ("header.top", "[data-print]"):
            assert not page.locator(hidden).is_visible()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        assert page.locator("text=Known limits").is_visible()
        if folder := os.environ.get("ONELOOP_SHOTS"):
            page.screenshot(path=Path(folder) / "round-report-print.png", full_page=True)
    finally:
        context.close()
