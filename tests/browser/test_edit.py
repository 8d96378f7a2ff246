"""Painting what shall be edited."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from generation import images
from generation.models import Policy
from modeling.models import Edit
from tests.browser.test_every_page import log_in
from tests.factories import make_picture, make_plan, make_policy, make_task, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]


def test_what_is_painted_is_edited(page: Any, live_server: Any) -> None:
    make_user("chief", role="manager")
    make_plan(make_task("paint"))
    make_policy(state=Policy.State.ACTIVE)
    file = io.BytesIO()
    make_picture(1).save(file, "PNG")
    log_in(page, live_server.url)
    page.goto(f"{live_server.url}/edit/")
    page.wait_for_selector("#edit[data-ready]")
    page.select_option("[name=task]", label="Paint")
    page.fill("[name=prompt]", "a lantern")
    page.uncheck("[name=rank]")
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()}
    page.set_input_files("[name=image]", picture)
    page.wait_for_selector("#painter:not([hidden])")

    page.click("[data-tool=rectangle]")
    box = page.locator("#mask").bounding_box()
    scale = box["width"] / 64
    page.mouse.move(box["x"] + 8 * scale, box["y"] + 8 * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + 40 * scale, box["y"] + 24 * scale, steps=4)
    page.mouse.up()
    painted = page.locator("#painted")
    assert painted.inner_text() == "12.5%"  # 32 × 16 of 64 × 64
    page.click("[data-do=invert]")
    assert painted.inner_text() == "87.5%"
    page.click("[data-do=undo]")
    # By keyboard alone: four more rows under it, in numbers.
    for side, value in {"left": 8, "top": 24, "width": 32, "height": 4}.items():
        page.fill(f"[name={side}]", str(value))
    page.press("[data-do=add-rectangle]", "Enter")
    assert painted.inner_text() == "15.6%"
    page.click("[data-tool=eraser]")
    page.fill("#brush-size", "2")
    page.mouse.click(box["x"] + 9 * scale, box["y"] + 9 * scale)
    assert painted.inner_text() < "15.6%"
    page.click("#edit button[type=submit]")
    page.wait_for_selector("#edit-result")

    edit = Edit.objects.get()
    mask = np.asarray(images.open_image(edit.source.mask))
    assert mask[10:28, 12:40].min() == 255
    assert mask[:8].max() == mask[28:].max() == mask[:, 40:].max() == mask[9, 9] == 0
    assert edit.source.prompt == "a lantern"
    assert "Waiting for a worker" in page.inner_text("#edit-result")
