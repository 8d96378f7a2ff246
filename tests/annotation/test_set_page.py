"""The part of the page that is sent ahead, beside the whole page of the same set."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import translation

from annotation import set_page
from annotation.models import Assignment
from tests.annotation.factories import make_campaign, make_judged_task
from tests.factories import make_set, make_source, make_user

pytestmark = pytest.mark.django_db
JSON = {"Accept": "application/json"}
HOSTILE = """<b>"&'\u202e{{ form }} %s number \u0437"""
KINDS: list[dict[str, Any]] = [
    {},
    {"purpose": "comparison", "size": 2},
    {"purpose": "rating"},
    {"size": 8, "dimensions": 3},
    {"prompt": ""},
    {"task": {"fixed_prompt": "empty scene"}},
    {"task": {"needs_source": False, "needs_mask": False}},
    {"prompt": HOSTILE, "name": HOSTILE, "task": {"name": HOSTILE, "instruction": HOSTILE}},
    {"one_at_a_time": True, "break_minutes": 7, "guideline": "# Look *well*"},
    {"language": "ja"},
]


@pytest.fixture(autouse=True)
def language() -> Iterator[None]:
    """Back to the one of the other tests; a request leaves its own behind."""
    with translation.override("en"):
        yield


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "plain")
def test_what_is_sent_ahead_is_what_the_whole_page_shows(client: Client, kind: Any) -> None:
    cache.clear()
    fields = dict(kind)
    task = make_judged_task(fields.pop("dimensions", 2), **fields.pop("task", {}))
    prompt, size = fields.pop("prompt", "a red circle"), fields.pop("size", 4)
    accept = fields.pop("language", "en")
    sets = [
        make_set(
            make_source(task, prompt=f"{prompt} {n}" if prompt else "", size=(64, n)), size=size
        )
        for n in (32, 48)
    ]
    campaign = make_campaign(task=task, sets=sets, **fields)
    if campaign.purpose == "rating":
        campaign.items.update(shown=[1])
    client.force_login(make_user())
    headers = JSON | {"Accept-Language": accept}
    ahead = f"/label/campaign/{campaign.pk}/ahead/"
    sent = client.post(ahead, {"ahead": "2"}, headers=headers).json()
    assert len(sent["sets"]) == 2
    for one in sent["sets"]:
        whole = client.get(f"/label/{one['turn']}/", headers={"Accept-Language": accept})
        assert f'<html lang="{accept}' in whole.content.decode()
        assert set_page.MARK not in one["html"]
        assert essence(one["html"]) == essence(whole.content.decode())
        assert f'data-turn="{one["turn"]}"' in one["html"]
        turn = Assignment.objects.get(pk=one["turn"])
        places = re.findall(r'data-place="\d".*?/images/(\w{64})', one["html"], re.DOTALL)
        shown = {c.index: c.image.sha256 for c in turn.set.candidates.all() if c.image}
        assert places == [shown[index] for index in turn.order]


def essence(page: str) -> str:
    """The set in the page, without what is new with every page."""
    start = page.index('<div id="label"')
    part = page[start : page.index('id="submit"')]
    part = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "token", part)
    part = re.sub(r'name="submission" value="[0-9a-f-]{36}"', "submission", part)
    return re.sub(r'<strong id="today">\d*</strong>', "today", part)
