"""Directories in an object store: whole or not there, fetched once, held against their hashes."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.test.utils import override_settings

from generation import images, shared
from generation.faults import StoreUnavailable
from tests import object_store
from tests.factories import make_picture


def make_directory(name: str = "runs/one/adapter") -> Path:
    directory = Path(settings.DATA_DIR) / name
    (directory / "deep").mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}")
    (directory / "deep" / "weights.safetensors").write_bytes(bytes(range(256)) * 5000)
    return directory


def on_another_machine(tmp_path: Path, name: str = "two") -> Any:
    return override_settings(DATA_DIR=tmp_path / name)


def test_it_names_a_directory_of_one_machine_by_its_path(data_dir: Path) -> None:
    if shared.in_object_store():
        pytest.skip("media lie in an object store here")
    directory = make_directory()
    name = shared.publish(directory)
    assert name == str(directory)
    assert shared.local(name) == name
    assert shared.file_of(name, "adapter_config.json") == directory / "adapter_config.json"
    assert shared.file_of(name, "nothing") is None


def test_another_machine_gets_the_same_files(bucket: None, tmp_path: Path) -> None:
    directory = make_directory()
    name = shared.publish(directory)
    assert name == "store:runs/one/adapter"
    with on_another_machine(tmp_path):
        assert shared.exists(name)
        copy = Path(shared.local(name))
        assert copy == tmp_path / "two" / "runs" / "one" / "adapter"
        found = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*.*")}
        assert found == {
            path.relative_to(directory): path.read_bytes() for path in directory.rglob("*.*")
        }
        # It is asked for once: what is here stays, even when the store has lost it.
        shared.withdraw(name)
        assert shared.local(name) == str(copy)
    with on_another_machine(tmp_path, "three"), pytest.raises(shared.SharedError, match="neither"):
        shared.local(name)


def test_it_refuses_a_file_that_is_not_what_was_published(bucket: None, tmp_path: Path) -> None:
    name = shared.publish(make_directory())
    default_storage.save(
        "shared/runs/one/adapter/deep/weights.safetensors", ContentFile(b"something else")
    )
    with on_another_machine(tmp_path):
        with pytest.raises(shared.SharedError, match="not the one that was published"):
            shared.local(name)
        assert not shared.place(name).exists()
        assert list(shared.place(name).parent.glob(".fetching*")) == []


def test_it_does_not_follow_a_list_that_leads_outside(bucket: None, tmp_path: Path) -> None:
    name = shared.publish(make_directory())
    key = "shared/runs/one/adapter/.files.json"
    listed = json.loads(default_storage.open(key).read())
    listed["files"]["../../../evil"] = listed["files"].pop("adapter_config.json")
    default_storage.save(key, ContentFile(json.dumps(listed).encode()))
    with on_another_machine(tmp_path), pytest.raises(shared.SharedError, match="outside"):
        shared.local(name)


@pytest.mark.django_db
def test_it_stores_no_picture_twice(bucket: None, tmp_path: Path) -> None:
    image = images.store(make_picture(1))
    directory = Path(settings.DATA_DIR) / "snapshots" / "abc"
    copy = directory / "images" / image.sha256[:2] / f"{image.sha256}.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(images.read_bytes(image))
    name = shared.publish(directory)
    assert not default_storage.exists(f"shared/snapshots/abc/{copy.relative_to(directory)}")
    with on_another_machine(tmp_path):
        fetched = Path(shared.local(name)) / copy.relative_to(directory)
        assert fetched.read_bytes() == copy.read_bytes()
    shared.withdraw(name)
    assert images.read_bytes(image) == copy.read_bytes()


def test_it_reads_the_newest_state_of_a_file_that_changes(bucket: None, tmp_path: Path) -> None:
    directory = make_directory("runs/one")
    name = shared.publish(directory)
    for text in ("first", "second"):
        (directory / "metrics.jsonl").write_text(text)
        shared.put_files(name, directory, ["metrics.jsonl", "missing.json"])
        with on_another_machine(tmp_path):
            path = shared.file_of(name, "metrics.jsonl")
            assert path is not None
            assert path.read_text() == text
            assert shared.file_of(name, "missing.json") is None


def test_it_makes_its_bucket_once(
    object_store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with object_store.media(object_store_url, bucket=f"made-{uuid.uuid4().hex[:8]}"):
        call_command("make_bucket")
        call_command("make_bucket")
        default_storage.save("x", ContentFile(b"x"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("was made.")
    assert second.endswith("is there.")


# A store that is away ---------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_it_says_that_the_store_refuses_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        object_store.media(url, timeout_seconds=1),
        pytest.raises(StoreUnavailable, match="does not answer.*S3_ENDPOINT_URL"),
    ):
        default_storage.exists("images/x.png")


@pytest.mark.slow
def test_it_does_not_wait_for_ever(silent: str) -> None:
    with (
        object_store.media(silent, timeout_seconds=1),
        pytest.raises(StoreUnavailable, match="does not answer"),
    ):
        default_storage.save("images/x.png", ContentFile(b"x"))


def test_it_says_that_the_store_knows_no_such_bucket(bucket: None, object_store_url: str) -> None:
    with (
        object_store.media(object_store_url, bucket="another"),
        pytest.raises(StoreUnavailable, match=r"refused the bucket another .*S3_BUCKET"),
    ):
        default_storage.save("x", ContentFile(b"x"))
