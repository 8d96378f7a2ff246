"""Ranking on order: the API, the rows that own the work, and who may."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image as Pillow

from generation import images, tokens
from generation.models import Candidate, Role, Source
from generation.ownership import JobState
from modeling import judging, rankings
from modeling.models import Ranking, RewardModel
from modeling.reward.rerank import DECIMALS
from tests.factories import make_picture, make_set, make_user
from tests.modeling.project import Project

URL = "/api/v1/rerank"


@pytest.fixture
def source(project: Project) -> Source:
    found = Source.objects.filter(task__slug="fill").first()
    assert found is not None
    return found


@pytest.fixture
def caller(source: Source) -> Client:
    _, secret = tokens.make(user=make_user("shop"), name="shop", scopes=["serve"])
    return Client(headers={"Authorization": f"Bearer {secret}"})


def candidates_of(source: Source, size: int = 3) -> list[Candidate]:
    pictures = [make_picture(seed) for seed in range(size)]
    made = make_set(source, size=size, pictures=pictures)
    return list(made.candidates.order_by("index"))


def png(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def upload(picture: Pillow.Image, name: str = "a.png") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, png(picture), "image/png")


def order(caller: Client, **sent: Any) -> Any:
    return caller.post(URL, sent, content_type="application/json")


def test_an_order_is_a_row_that_a_worker_ranks(caller: Client, source: Source) -> None:
    given = candidates_of(source)
    response = order(caller, candidates=[candidate.pk for candidate in given])
    assert response.status_code == 202
    row = Ranking.objects.get()
    assert (row.state, row.project, row.task) == (JobState.QUEUED, source.project, source.task)
    said = response.json()
    assert said["url"] == response["Location"] == f"http://testserver{URL}/{row.pk}"
    assert said["ranking"] is None

    assert rankings.work() == 1
    assert rankings.work() == 0
    found = caller.get(response["Location"]).json()
    assert found["state"] == "succeeded"
    assert [one["rank"] for one in found["ranking"]] == [1, 2, 3]
    assert {one["candidate"] for one in found["ranking"]} == {one.pk for one in given}
    # Closer ones stand in the order of their hashes.
    scores = [round(one["score"], DECIMALS) for one in found["ranking"]]
    assert scores == sorted(scores, reverse=True)
    first = found["ranking"][0]
    assert first["score"] == pytest.approx(sum(first["margins"].values()) / len(first["margins"]))
    # The command asks the same function.
    pictures = [images.open_image(one.image) for one in given if one.image is not None]
    mine = judging.rank(row.reward_model, source, pictures)
    assert [one["index"] for one in mine] == [one["index"] for one in found["ranking"]]


def test_uploads_are_ranked_alike_however_they_come(caller: Client, source: Source) -> None:
    picture, mask = images.open_image(source.image), images.open_image(source.mask)
    answers = [make_picture(seed) for seed in range(3)]
    files = [upload(answer, f"{number}.png") for number, answer in enumerate(answers)]
    form = {"task": "fill", "prompt": source.prompt, "image": upload(picture), "mask": upload(mask)}
    assert caller.post(URL, {**form, "images": files}).status_code == 202
    texts = [base64.b64encode(png(answer)).decode() for answer in reversed(answers)]
    response = order(caller, source=source.pk, images=texts)
    assert response.status_code == 202
    # Both are done together, by one loaded model.
    assert rankings.work() == 2
    one, other = Ranking.objects.order_by("pk")
    assert one.state == other.state == JobState.SUCCEEDED
    assert [row["index"] for row in one.result] == [2 - row["index"] for row in other.result]
    for mine, theirs in zip(one.result, other.result, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)
    assert Source.objects.filter(image__sha256=images.sha256_of(answers[0])).count() == 0


def test_it_says_what_is_wrong_and_stores_nothing(caller: Client, source: Source) -> None:
    keys = [candidate.pk for candidate in candidates_of(source)]
    elsewhere = Source.objects.exclude(task=source.task).first()
    assert elsewhere is not None
    other = candidates_of(elsewhere, 2)[0].pk
    picture = base64.b64encode(png(make_picture(1))).decode()
    small = base64.b64encode(png(make_picture(1, (32, 32)))).decode()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"candidates": keys[:1]}, "2 to 16 pictures"),
        ({"source": source.pk}, "“images” or as “candidates”"),
        ({"candidates": [*keys, other]}, "edits of one source"),
        ({"source": source.pk, "images": ["no picture", "none"]}, "base64"),
        ({"source": source.pk, "images": [picture, small]}, "one size"),
        ({"task": "paint", "images": [picture, picture]}, "task: give one of fill"),
        ({"task": "fill", "images": [picture, picture]}, "starts from a picture"),
        ({"candidates": keys, "reward": "none such"}, "no reward model “none such”"),
    ]
    for sent, says in wrong:
        response = order(caller, **sent)
        assert response.status_code == 422, sent
        assert says in response.json()["detail"]
    assert caller.post(f"{URL}?wait=99", {"candidates": keys}).status_code == 400
    assert not Ranking.objects.exists()


def test_strangers_viewers_and_other_tokens_are_kept_out(source: Source) -> None:
    given = [candidate.pk for candidate in candidates_of(source)]
    row = rankings.order(
        project=source.project,
        source=source,
        pictures=[rankings.Given(source.image), rankings.Given(source.mask)],
        model=rankings.active_reward(),
    )
    for role, scopes, ordered, seen in [
        (None, ["serve"], 404, 404),
        (Role.VIEWER, ["serve"], 403, 200),
        (Role.ADMIN, ["read"], 403, 403),
    ]:
        _, secret = tokens.make(user=make_user(role=role), name="x", scopes=scopes)
        client = Client(headers={"Authorization": f"Bearer {secret}"})
        assert order(client, candidates=given).status_code == ordered
        assert client.get(f"{URL}/{row.pk}").status_code == seen
    assert Client().get(f"{URL}/{row.pk}").status_code == 401


def test_one_that_cannot_be_ranked_does_not_hold_up_the_others(
    caller: Client, source: Source, project: Project
) -> None:
    keys = [candidate.pk for candidate in candidates_of(source)]
    lost = RewardModel.objects.create(name="lost", location="/no/such/directory")
    assert order(caller, candidates=keys, reward="lost").status_code == 202
    assert order(caller, candidates=keys).status_code == 202
    assert rankings.work() == 2
    failed, done = Ranking.objects.order_by("pk")
    assert (failed.reward_model, failed.state) == (lost, JobState.FAILED)
    assert "there is no directory" in failed.error
    assert done.state == JobState.SUCCEEDED
    assert caller.get(f"{URL}/{failed.pk}").json()["error"] == failed.error


def test_a_row_that_kills_its_workers_is_given_up(caller: Client, source: Source) -> None:
    order(caller, candidates=[candidate.pk for candidate in candidates_of(source)])
    Ranking.objects.update(
        state=JobState.RUNNING, attempt=rankings.ATTEMPTS, lease_until="2020-01-01T00:00Z"
    )
    assert rankings.work() == 1
    row = Ranking.objects.get()
    assert (row.state, "ended its worker 3 times" in row.error) == (JobState.FAILED, True)


@pytest.mark.long
def test_a_worker_answers_whoever_waits(caller: Client, source: Source, celery_worker: Any) -> None:
    keys = [candidate.pk for candidate in candidates_of(source)]
    celery_worker("gpu")
    response = caller.post(f"{URL}?wait=20", {"candidates": keys}, content_type="application/json")
    assert response.status_code == 200, response.json()
    assert len(response.json()["ranking"]) == 3
