"""Backups of the test's own database, restored into another database and another folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from psycopg import sql

from annotation import exporting
from annotation.models import Campaign
from config.backup import restoring, taking
from config.backup.errors import BackupError
from config.backup.objects import Objects
from config.backup.taking import Taken
from generation import images, shared
from generation.models import Role
from modeling import snapshots
from modeling.models import RewardModel, TrainingRun
from tests import object_store
from tests.annotation.factories import claim, make_campaign, submit
from tests.conftest import REPOSITORY, address, process_environment
from tests.factories import make_image, make_policy, make_user

pytestmark = pytest.mark.django_db(transaction=True)
in_folders = pytest.mark.skipif(object_store.is_named(), reason="looks at files in folders")
Hashes = dict[str, str]


@pytest.fixture
def campaign(data_dir: Path) -> Campaign:
    """Rows of every kind that names files, with their files."""
    campaign = make_campaign(sets=3)
    user = make_user(role=Role.MANAGER)
    submit(claim(user, campaign))
    snapshot = snapshots.take(submit(claim(user, campaign))[0].__class__.objects.all())
    order = exporting.order(
        project=campaign.project, by=user, selection={"campaigns": [campaign.name]}
    )
    exporting.run(order)
    directory = data_dir / "runs" / "reward-1"
    (directory / "adapter").mkdir(parents=True)
    (directory / "adapter" / "adapter.safetensors").write_bytes(os.urandom(1000))
    (directory / "config.json").write_text("{}")
    (directory / ".draft").write_text("half")
    model = RewardModel.objects.create(
        name="tuned", location=str(data_dir / "runs" / "reward-1" / "adapter"), snapshot=snapshot
    )
    make_policy("outside", location=data_dir.parent)
    TrainingRun.objects.create(
        kind="reward",
        config={"snapshot": snapshot.directory, "base": model.location},
        directory=str(directory),
        snapshot=snapshot,
        parent_reward=model,
    )
    return campaign


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The name of an empty database on the same server."""
    name = f"{connection.settings_dict['NAME']}_restored"
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(address("postgres"), autocommit=True) as server:
        server.execute(drop)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        server.execute(drop)


def tables(database: str) -> Hashes:
    """Of each table's rows, in an order that only they decide."""
    with psycopg.connect(address(database)) as there:
        rows = there.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = {}
        for (table,) in rows.fetchall():
            query = sql.SQL(
                "SELECT md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '')) FROM {} t"
            ).format(sql.Identifier(table))
            ((found[table],),) = there.execute(query).fetchall()
    return found


def files(folder: Path) -> Hashes:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and "screens" not in path.parts
    }


def restore(folder: Path, data: Path, database: str, *words: str) -> str:
    """By the command, in an environment of its own."""
    environment = process_environment(data, "redis://127.0.0.1:1")
    here, _, _ = environment["DATABASE_URL"].rpartition("/")
    done = subprocess.run(
        [sys.executable, "manage.py", "restore", str(folder), *words],
        cwd=REPOSITORY,
        env=environment | {"DATABASE_URL": f"{here}/{database}", "MEDIA_ROOT": str(data / "media")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else done.stderr


def take(folder: Path, keep: int | None = None) -> Taken:
    return taking.take(folder, keep=keep)


@in_folders
@pytest.mark.slow
def test_what_is_restored_is_what_was_there(
    campaign: Campaign, elsewhere: str, tmp_path: Path, data_dir: Path
) -> None:
    folder, new = tmp_path / "backups", tmp_path / "new"
    (data_dir / "secret_key").write_text("the site's own")
    taken = take(folder)
    assert taken.missing == []
    assert taken.outside == [str(data_dir.parent)]
    assert folder.stat().st_mode & 0o77 == 0

    said = restore(folder, new, elsewhere)
    assert f"{taken.files} files" in said, said

    # Nothing that was being written goes along, nor what is made again by itself.
    got, had = files(new), files(data_dir)
    # That of a training that goes on names directories, as its row does.
    assert got.pop("runs/reward-1/config.json") != had.pop("runs/reward-1/config.json")
    assert got == had
    before, after = tables(connection.settings_dict["NAME"]), tables(elsewhere)
    moved = {"modeling_rewardmodel", "modeling_snapshot", "modeling_trainingrun"}
    assert {name for name in before if before[name] != after[name]} == moved
    with psycopg.connect(address(elsewhere)) as there:
        row = there.execute("SELECT location FROM modeling_rewardmodel").fetchone()
        assert row == (str(new / "runs" / "reward-1" / "adapter"),)
        row = there.execute("SELECT directory, config FROM modeling_trainingrun").fetchone()
        assert row is not None
        assert row[0] == str(new / "runs" / "reward-1")
        assert Path(row[1]["snapshot"]).is_relative_to(new)
        config = json.loads((new / "runs" / "reward-1" / "config.json").read_text())
        assert config == row[1]

    assert f"{taken.files} files" in restore(folder, new, elsewhere, "--replace")
    assert tables(elsewhere) == after


@in_folders
def test_it_copies_only_what_is_new_and_forgets_the_oldest(
    campaign: Campaign, tmp_path: Path, data_dir: Path
) -> None:
    folder = tmp_path / "backups"
    first = take(folder)
    # A picture of a snapshot is the same file as the one in the store.
    assert first.files > first.new_files > 10
    run = data_dir / "runs" / "reward-1"
    (run / "adapter" / "adapter.safetensors").write_bytes(b"other weights")
    second = taking.take(folder)
    assert (second.new_files, second.new_bytes) == (1, 13)
    assert len(taking.all_in(folder)) == 2

    third = taking.take(folder, keep=1)
    assert (third.new_files, third.forgotten) == (0, 2)
    assert taking.all_in(folder) == [third.directory]
    kept = {path.name for path in (folder / "objects").rglob("*") if path.is_file()}
    assert kept == {line["sha256"] for line in taking.read_lines(third.directory)}


@pytest.mark.slow
def test_it_works_with_an_object_store(bucket: None, tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "backups"
    image = make_image()
    content = images.read_bytes(image)
    weights = data_dir / "runs" / "policy-1" / "adapter"
    weights.mkdir(parents=True)
    (weights / "adapter.safetensors").write_bytes(b"weights")
    name = shared.publish(weights)
    taken = take(folder)
    assert (taken.files, taken.missing) == (3, [])  # the list of the weights, too
    assert take(folder).new_files == 0

    default_storage.delete(f"images/{image.storage_key}")
    shared.withdraw(name)
    shutil.rmtree(weights)
    with pytest.raises(images.ImageError):
        images.read_bytes(image)
    for _ in range(2):
        for line in taking.read_lines(taken.directory):
            restoring._put(Objects(folder), line)
    assert images.read_bytes(image) == content
    assert (Path(shared.local(name)) / "adapter.safetensors").read_bytes() == b"weights"


@in_folders
def test_it_says_which_files_are_gone(
    campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = campaign.items.get(pk=campaign.items.order_by("pk")[0].pk).set.source.image
    path = Path(settings.MEDIA_ROOT) / "images" / image.storage_key
    path.write_bytes(b"not what it was")
    with pytest.raises(CommandError, match="1 files that rows name are gone or damaged"):
        call_command("backup", str(tmp_path / "backups"))
    (backup,) = taking.all_in(tmp_path / "backups")
    assert restoring.read(backup)["missing"] == [f"media/images/{image.storage_key}"]


def test_it_checks_everything_before_it_touches_anything(
    campaign: Campaign, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    with pytest.raises(BackupError, match="There is no backup in"):
        restoring.restore(folder)
    taken = take(folder)
    before = tables(connection.settings_dict["NAME"])
    with pytest.raises(BackupError, match="There is no backup “x”"):
        restoring.restore(folder, name="x")
    with pytest.raises(BackupError, match="This place is not empty"):
        restoring.restore(folder)

    kept = next(path for path in (folder / "objects").rglob("*") if path.is_file())
    content = kept.read_bytes()
    kept.write_bytes(content + b"!")
    with pytest.raises(BackupError, match="is damaged or gone. Nothing was restored"):
        restoring.restore(folder, replace=True)
    kept.write_bytes(content)

    manifest = taken.directory / taking.MANIFEST
    said = json.loads(manifest.read_text())
    said["migrations"].append(["generation", "9999_from_the_future"])
    manifest.write_text(json.dumps(said))
    with pytest.raises(BackupError, match=r"newer OneLoop .* generation\.9999_from_the_future"):
        restoring.restore(folder, replace=True)
    (taken.directory / taking.DUMP).write_bytes(b"")
    said["migrations"].pop()
    manifest.write_text(json.dumps(said))
    with pytest.raises(BackupError, match=r"database\.dump is damaged"):
        restoring.restore(folder, replace=True)
    assert tables(connection.settings_dict["NAME"]) == before


@pytest.mark.long
@pytest.mark.slow
def test_it_migrates_what_is_older(
    campaign: Campaign, elsewhere: str, tmp_path: Path, data_dir: Path
) -> None:
    folder = tmp_path / "backups"
    call_command("migrate", "modeling", "0012", verbosity=0)
    try:
        take(folder)
    finally:
        call_command("migrate", verbosity=0)
    assert " 1 migrations were added" in restore(folder, tmp_path / "new", elsewhere)
    after = tables(elsewhere)
    assert (
        after["annotation_judgment"]
        == tables(connection.settings_dict["NAME"])["annotation_judgment"]
    )
