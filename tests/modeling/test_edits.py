"""Edits on order: by the API and by the page, made and ranked by a worker, kept apart from sources
that are learnt from."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image as Pillow

from annotation.campaigns import open_campaign, ready_sets
from annotation.models import Campaign
from generation import candidates, images, tokens
from generation.models import Candidate, GenerationRun, Role, Source, Task
from generation.ownership import JobState
from modeling import edits, policy_inputs
from modeling.jobs import make_edit, ring_serving
from modeling.models import Edit
from modeling.rankings import active_reward
from modeling.reward.rerank import DECIMALS
from tests.factories import make_mask_picture, make_picture, make_user
from tests.modeling.project import Project

URL = "/api/v1/edits"


@pytest.fixture
def caller(project: Project) -> Client:
    _, secret = tokens.make(user=make_user("shop"), name="shop", scopes=["serve"])
    return Client(headers={"Authorization": f"Bearer {secret}"})


def png(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def text(picture: Pillow.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def sent(**more: Any) -> dict[str, Any]:
    picture = {"image": text(make_picture(1)), "mask": text(make_mask_picture())}
    return {"task": "fill", "prompt": "a red circle", **picture, **more}


def order(caller: Client, **values: Any) -> Any:
    return caller.post(URL, sent(**values), content_type="application/json")


def test_an_edit_is_made_as_ordered_and_shown_to_members(caller: Client) -> None:
    fixed = {"num_inference_steps": 2, "guidance_scale": 12.5, "negative_prompt": "blurry"}
    response = order(caller, n=2, seed=7, **fixed)
    assert response.status_code == 202, response.json()
    edit = Edit.objects.get()
    assert (edit.state, edit.wanted, edit.source.origin) == ("queued", 2, "edit")
    assert response.json()["images"] == []
    make_edit(edit.pk)
    make_edit(edit.pk)
    said = caller.get(response["Location"]).json()
    assert (said["state"], said["policy"], said["progress"]) == (
        "succeeded",
        "tiny base",
        {"made": 2, "of": 2},
    )
    for row in Candidate.objects.all():
        assert {name: getattr(row, name) for name in fixed} == fixed
    first = said["images"][0]
    assert (first["rank"], first["score"]) == (None, None)
    picture = caller.get(first["url"])
    assert images.decode(io.BytesIO(picture.content)).size == (64, 64)
    _, secret = tokens.make(user=make_user(role=None), name="x", scopes=["serve"])
    stranger = Client(headers={"Authorization": f"Bearer {secret}"})
    assert stranger.get(first["url"]).status_code == 404
    assert stranger.get(response["Location"]).status_code == 404


def test_an_order_sent_twice_with_its_key_is_one_edit(caller: Client) -> None:
    def send(prompt: str = "a red circle") -> Any:
        key = {"Idempotency-Key": "the-answer-was-lost"}
        body = sent(n=2, prompt=prompt)
        return caller.post(URL, body, content_type="application/json", headers=key)

    first = send()
    assert "Idempotency-Replayed" not in first
    make_edit(Edit.objects.get().pk)
    again = send()
    assert (again.status_code, again["Idempotency-Replayed"]) == (200, "true")
    assert (again.json()["id"], again.json()["state"]) == (first.json()["id"], "succeeded")
    assert send("another").status_code == 422
    assert Edit.objects.count() == 1


def test_the_same_seed_draws_the_same(caller: Client) -> None:
    for _ in range(2):
        order(caller, n=2, seed=11)
    one, other = (
        list(edit.set.candidates.values_list("seed", flat=True)) for edit in Edit.objects.all()
    )
    assert one == other


def test_the_best_of_more_are_given_back_in_order(caller: Client) -> None:
    url = order(caller, n=2, best_of=4)["Location"]
    make_edit(Edit.objects.get().pk)
    said = caller.get(url).json()
    assert (said["state"], said["reward_model"]) == ("succeeded", "tiny reward")
    edit = edits.with_all().get()
    scores = [made.score or 0.0 for made in edits.pictures(edit, everything=True)]
    assert len(scores) == 4
    # Closer ones stand in the order of their hashes.
    best = sorted((round(score, DECIMALS) for score in scores), reverse=True)[:2]
    assert [round(one["score"], DECIMALS) for one in said["images"]] == best
    assert [one["rank"] for one in said["images"]] == [1, 2]
    assert set(said["images"][0]["margins"]) >= {"structure", "consistency"}


def test_an_edit_whose_worker_died_after_making_is_ranked_later(
    caller: Client, monkeypatch: Any
) -> None:
    order(caller, n=2, rank=True)
    edit = Edit.objects.get()
    candidates.make(edit.run)  # what ring_generation does for a lost order
    assert edits.with_all().get().state == JobState.QUEUED
    assert list(edits.unranked()) == [edit]
    rung: list[int] = []
    monkeypatch.setattr(make_edit, "delay", rung.append)  # the broker is not the matter here
    ring_serving()
    assert rung == [edit.pk]
    make_edit(edit.pk)
    assert edits.with_all().get().state == JobState.SUCCEEDED
    assert not edits.unranked().exists()


def test_nothing_learns_from_an_edit_by_itself(caller: Client, project: Project) -> None:
    order(caller, n=2)
    edit = Edit.objects.get()
    make_edit(edit.pk)
    task = Task.objects.get(slug="fill")
    drawn = candidates.pick_sources(task, 100, None, 0)
    assert edit.source not in drawn
    rows = policy_inputs.collect(reward=active_reward()).rows
    assert str(edit.source.pk) not in {row["id"] for row in rows}
    assert edit.set not in ready_sets([task])
    # A picture that was a source before stays one.
    source = drawn[0]
    caller.post(URL, {"source": source.pk, "n": 2}, content_type="application/json")
    assert Edit.objects.first().source == source  # type: ignore[union-attr]
    source.refresh_from_db()
    assert source.origin == Source.Origin.LIBRARY


def test_it_says_what_is_wrong_and_stores_nothing(caller: Client, monkeypatch: Any) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"n": 9}, "n: "),
        ({"n": 4, "best_of": 3}, "Ask for 1 to 8 pictures"),
        ({"policy": "none such"}, "no policy “none such”"),
        ({"strength": 0}, "strength: "),
        ({"prompt": ""}, "needs a prompt"),
        ({"mask": text(make_mask_picture((32, 32)))}, "32"),
        ({"task": "text_to_image"}, "task: give one of"),
        ({"rank": True, "reward": "none such"}, "no reward model"),
    ]
    for values, says in wrong:
        response = order(caller, **values)
        assert response.status_code == 422, (values, response.content)
        assert says in response.json()["detail"]
    assert not GenerationRun.objects.exists()
    monkeypatch.setattr(edits, "OPEN_PER_PERSON", 2)
    for _ in range(2):
        assert order(caller, n=2).status_code == 202
    assert "edits waiting" in order(caller, n=2).json()["detail"]


class TestPage:
    def upload(self, picture: Pillow.Image) -> SimpleUploadedFile:
        return SimpleUploadedFile("a.png", png(picture), "image/png")

    def test_a_rectangle_in_numbers_makes_a_mask(self, project: Project, client: Client) -> None:
        client.force_login(make_user())
        values = {
            "task": Task.objects.get(slug="fill").pk,
            "prompt": "a red circle",
            "count": 2,
            **{"left": 8, "top": 4, "width": 16, "height": 24},
        }
        response = client.post("/edit/", {**values, "image": self.upload(make_picture(2))})
        edit = Edit.objects.get()
        assert (response.status_code, response["Location"]) == (302, f"/edit/{edit.pk}/")
        mask = np.asarray(images.open_image(edit.source.mask))
        assert (mask > 0).sum() == 16 * 24
        assert mask[4, 8] == mask[27, 23] == 255
        outside = {**values, "width": 60, "image": self.upload(make_picture(2))}
        refused = client.post("/edit/", outside)
        assert refused.status_code == 422
        assert "does not lie in the picture of 64 × 64" in refused.content.decode()
        nothing = client.post("/edit/", {**values, "image": "", "prompt": ""})
        assert nothing.status_code == 422
        assert Edit.objects.count() == 1

    def test_it_shows_progress_and_then_the_pictures(
        self, project: Project, client: Client
    ) -> None:
        user = make_user(role=Role.MANAGER)
        client.force_login(user)
        source = Source.objects.filter(task__slug="fill")[0]
        assert (
            f'data-picture="/images/{source.image.sha256}.png"'
            in client.get(f"/edit/?source={source.pk}").content.decode()
        )
        values = {"task": source.task_id, "prompt": "x", "count": 2, "rank": "on"}
        url = client.post("/edit/", {**values, "source": source.pk})["Location"]
        page = client.get(url).content.decode()
        assert 'hx-trigger="every 1s"' in page
        assert "Have it judged" not in page
        edit = Edit.objects.get()
        make_edit(edit.pk)
        fragment = client.get(url, headers={"HX-Request": "true"}).content.decode()
        assert "hx-trigger" not in fragment
        assert "<html" not in fragment
        for row in edit.set.candidates.all():
            assert row.image is not None
            assert row.image.sha256 in fragment
        campaign = open_campaign(name="Edits", sets=(), tasks=[source.task], may_be_empty=True)
        client.post(f"{url}label/", {"campaign": campaign.pk})
        client.post(f"{url}label/", {"campaign": campaign.pk})
        assert [item.set for item in campaign.items.all()] == [edit.set]
        assert "Edits</a>" in client.get(url).content.decode()
        Campaign.objects.update(state=Campaign.State.CLOSED)
        client.post(f"{url}label/", {"campaign": campaign.pk}, follow=True)
        assert campaign.items.count() == 1
