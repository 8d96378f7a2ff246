from typing import Any

import pytest
from django.contrib.auth.models import User

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_it_logs_in_by_keyboard_and_obeys_its_own_content_policy(
    live_server: Any, page: Any
) -> None:
    User.objects.create_superuser("admin", password="right")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.goto(f"{live_server.url}/campaigns/")
    page.keyboard.type("admin")
    page.keyboard.press("Tab")
    page.keyboard.type("right")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{live_server.url}/campaigns/")

    for label in ("Home", "Sources", "Loop", "Policies"):
        page.get_by_role("navigation").get_by_role("link", name=label, exact=True).click()
        page.wait_for_load_state()
        current = page.locator("nav a[aria-current]")
        assert current.inner_text() == label
    assert page.evaluate("typeof htmx") == "object"
    assert complaints == []

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{live_server.url}/login/")
