"""The loop's page keeps itself up to date without taking from the reader what they opened."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.models import RoundStep
from tests.factories import make_policy, make_user
from tests.modeling.test_pages import make_child, make_evaluation, make_round

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300),
]


def test_what_was_opened_stays_open_while_the_page_follows_a_round(
    live_server: Any, page: Any
) -> None:
    child = make_child(make_policy("parent"), "child")
    make_evaluation(child, [(0.5, 0.9)])
    round_ = make_round(policy=child)
    make_user("chief", is_staff=True)
    page.set_default_timeout(60_000)
    page.goto(f"{live_server.url}/login/?next=/loop/{round_.number}/")
    page.fill("[name=username]", "chief")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.click("#round details[data-keep=dimensions] summary")

    round_.steps.filter(name=RoundStep.Name.GENERATE).update(message="17 of 40 sets are made")

    page.wait_for_selector("#round >> text=17 of 40 sets are made")
    assert page.is_visible("#round details[data-keep=dimensions] table")
