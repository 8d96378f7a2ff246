import io

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from PIL import Image as Pillow

from generation import images
from generation.models import Image, Source
from tests.factories import (
    make_image,
    make_mask_picture,
    make_picture,
    make_set,
    make_source,
    make_task,
    make_user,
)

pytestmark = pytest.mark.django_db


def upload(name: str, picture: Pillow.Image) -> SimpleUploadedFile:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return SimpleUploadedFile(name, file.getvalue(), content_type="image/png")


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user(is_staff=True))
    return client


@pytest.fixture
def annotator() -> Client:
    client = Client()
    client.force_login(make_user())
    return client


# Pictures


def test_it_serves_a_picture_for_ever_and_says_nothing_about_its_maker(annotator: Client) -> None:
    candidate = make_set().candidates.select_related("image", "policy")[0]
    assert candidate.image is not None
    url = reverse("generation:image", args=[candidate.image.sha256])
    assert url == f"/images/{candidate.image.sha256}.png"

    response = annotator.get(url)

    assert response.content == images.read_bytes(candidate.image)
    assert response["Content-Type"] == "image/png"
    assert "immutable" in response["Cache-Control"]
    assert "private" in response["Cache-Control"]
    assert candidate.policy.name not in str(response.headers)
    again = annotator.get(url, headers={"if-none-match": response["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_it_serves_thumbnails(annotator: Client) -> None:
    url = reverse("generation:image", args=[make_source(size=(600, 300)).image.sha256])
    response = annotator.get(url, {"size": "thumb"})
    assert images.decode(response.content).size == (256, 128)
    assert response["ETag"] != annotator.get(url)["ETag"]


def test_it_has_no_picture_for_an_unknown_hash_nor_for_a_stranger(annotator: Client) -> None:
    assert annotator.get(f"/images/{'0' * 64}.png").status_code == 404
    image = make_source().image
    url = reverse("generation:image", args=[image.sha256])
    stranger = Client().get(url)
    assert stranger.status_code == 302
    assert stranger["Location"].startswith("/login/")
    default_storage.delete(f"images/{image.storage_key}")
    assert annotator.get(url).status_code == 404


# The list


def test_it_lists_sources_by_task_split_and_prompt(staff: Client) -> None:
    task, other = make_task("mend"), make_task("bend")
    hat = make_source(task, prompt="a green hat")
    held_out = make_source(task, prompt="a bone", split="holdout")
    make_source(other, prompt="a bow")
    url = reverse("generation:sources")

    def listed(**query: str) -> set[int]:
        return {source.pk for source in staff.get(url, query).context["page"]}

    assert len(listed()) == 3
    assert listed(task="mend") == {hat.pk, held_out.pk}
    assert listed(task="mend", split="holdout") == {held_out.pk}
    assert listed(q="GREEN") == {hat.pk}
    assert listed(q="nothing") == set()
    assert "No source fits this filter" in staff.get(url, {"q": "nothing"}).content.decode()
    assert len(listed(task="unknown")) == 3


def test_it_turns_pages_and_keeps_the_filter(staff: Client) -> None:
    task, image, mask = make_task("mend"), make_image(), images.store(make_mask_picture())
    for number in range(50):
        make_source(task, image=image, mask=mask, prompt=f"picture {number}")
    url = reverse("generation:sources")
    first = staff.get(url, {"task": "mend"}).content.decode()
    assert 'href="?task=mend&amp;page=2"' in first
    assert len(staff.get(url, {"task": "mend", "page": "2"}).context["page"]) == 2


def test_it_lists_with_few_queries(staff: Client, django_assert_max_num_queries: object) -> None:
    for _ in range(5):
        make_source()
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        staff.get(reverse("generation:sources"))


@pytest.mark.parametrize("name", ["generation:sources", "generation:source_new"])
def test_it_asks_for_a_login(name: str) -> None:
    assert Client().get(reverse(name)).status_code == 302


# The upload


def test_it_adds_a_source(staff: Client) -> None:
    task = make_task("mend")
    response = staff.post(
        reverse("generation:source_new"),
        {
            "task": task.pk,
            "image": upload("cat.png", make_picture(1)),
            "mask": upload("cat_mask.png", make_mask_picture()),
            "prompt": "a hat",
            "tags": "red, old",
            "licence": "CC0-1.0",
        },
        follow=True,
    )
    source = Source.objects.get()
    assert (source.task, source.prompt, source.tags) == (task, "a hat", {"red": True, "old": True})
    assert source.created_by is not None
    assert images.open_image(source.image).tobytes() == make_picture(1).tobytes()
    assert "The source was added" in response.content.decode()


def test_it_says_when_a_source_was_there_already(staff: Client) -> None:
    task = make_task("mend")
    for expected in ("was added", "was there already"):
        response = staff.post(
            reverse("generation:source_new"),
            {
                "task": task.pk,
                "image": upload("cat.png", make_picture(1)),
                "mask": upload("cat_mask.png", make_mask_picture()),
                "prompt": "a hat",
                "another": "1",
            },
            follow=True,
        )
        assert response.redirect_chain[0][0] == reverse("generation:source_new")
        assert expected in response.content.decode()
    assert Source.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("image", SimpleUploadedFile("cat.png", b"no picture"), "cat.png is not a picture"),
        ("mask", upload("soft.png", make_picture(1).convert("L")), "soft.png is not black and"),
        ("mask", upload("m.png", make_mask_picture((32, 32))), "32 × 32 pixels and the picture"),
        ("mask", upload("m.png", Pillow.new("L", (64, 64))), "The mask is empty"),
        ("image", "", "starts from a picture"),
        ("prompt", "", "needs a prompt"),
        ("task", "999", "Select a valid choice"),
    ],
)
def test_it_explains_what_it_refuses_and_stores_nothing(
    staff: Client, field: str, value: object, reason: str
) -> None:
    if isinstance(value, SimpleUploadedFile):
        value.seek(0)
    data = {
        "task": make_task("mend").pk,
        "image": upload("cat.png", make_picture(1)),
        "mask": upload("cat_mask.png", make_mask_picture()),
        "prompt": "a hat",
        field: value,
    }
    response = staff.post(reverse("generation:source_new"), data)
    assert response.status_code == 422
    assert reason in response.content.decode()
    assert not Source.objects.exists()
    assert not Image.objects.exists()
