import os
from pathlib import Path
from typing import Any

import pytest

from generation.models import Source
from tests.factories import make_mask_picture, make_picture, make_source, make_task, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_source_is_uploaded_without_javascript(
    browser: Any, live_server: Any, tmp_path: Path
) -> None:
    task = make_task("mend", name="Mend")
    for size in ((64, 64), (640, 400), (300, 500)):
        make_source(task, size=size, prompt=f"a green hat on a bench, {size[0]} pixels wide")
    make_user("chief", is_staff=True)
    make_picture(1, (320, 200)).save(tmp_path / "cat.jpg")
    make_mask_picture((200, 320)).save(tmp_path / "wrong.png")
    make_mask_picture((320, 200)).save(tmp_path / "right.png")
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": 1366, "height": 820}
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{live_server.url}/sources/new/")
    page.fill("[name=username]", "chief")
    page.fill("[name=password]", "secret")
    page.click("main button[type=submit]")

    page.select_option("[name=task]", label="Mend")
    page.set_input_files("[name=image]", tmp_path / "cat.jpg")
    page.set_input_files("[name=mask]", tmp_path / "wrong.png")
    page.fill("[name=prompt]", "a red lantern")
    page.click("button.primary")
    assert "200 × 320 pixels and the picture 320 × 200" in page.inner_text("main")
    _shoot(page, "refused")
    page.set_input_files("[name=image]", tmp_path / "cat.jpg")
    page.set_input_files("[name=mask]", tmp_path / "right.png")
    page.click("button.primary")

    assert page.url == f"{live_server.url}/sources/"
    assert "The source was added" in page.inner_text("body")
    assert page.locator("figure").count() == 4
    page.wait_for_load_state("networkidle")
    widths = page.eval_on_selector_all("figure img", "all => all.map(img => img.naturalWidth)")
    assert all(widths)
    _shoot(page, "listed")
    newest = Source.objects.order_by("-pk")[0]
    assert (newest.prompt, newest.task) == ("a red lantern", task)
    context.close()


def _shoot(page: Any, name: str) -> None:
    if folder := os.environ.get("ONELOOP_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
