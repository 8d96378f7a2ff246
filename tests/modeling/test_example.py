"""The client's example, run as it stands: from pictures to a dataset, by a server and workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from annotation import queue
from annotation.models import Campaign, Judgment
from generation import tokens
from generation.models import Role, Source
from tests.annotation.factories import submit
from tests.config.test_client import folder
from tests.conftest import REPOSITORY
from tests.factories import make_user
from tests.modeling.project import Project


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_it_leads_from_pictures_to_a_dataset(
    live_server: Any, project: Project, celery_worker: Any, tmp_path: Path
) -> None:
    celery_worker("default", "gpu")
    scopes = ["read", "manage", "export"]
    _, secret = tokens.make(user=make_user("max", role=Role.MANAGER), name="x", scopes=scopes)
    (tmp_path / "oneloop").symlink_to(REPOSITORY / "config" / "client")
    before = Source.objects.count()
    script = subprocess.Popen(
        [
            *(sys.executable, tmp_path / "oneloop" / "example.py", live_server.url),
            *(folder(tmp_path / "photos", pictures=2), "--out", "dataset.zip", "--every", "0.5"),
        ],
        cwd=tmp_path,
        env=os.environ | {"ONELOOP_TOKEN": secret, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    judge_all(script)
    out, said = script.communicate(timeout=120)
    assert script.returncode == 0, said
    assert "2 sources are new" in said
    assert Source.objects.count() == before + 2
    assert Campaign.objects.get().state == "closed"
    with zipfile.ZipFile(tmp_path / out.strip()) as archive:
        assert any(name.endswith("judgments.parquet") for name in archive.namelist())


def judge_all(script: subprocess.Popen[str]) -> None:
    """What an annotator does meanwhile."""
    anna, end, done = make_user("anna"), time.monotonic() + 180, 0
    while done < 2 and script.poll() is None:
        assert time.monotonic() < end
        campaign = Campaign.objects.first()
        turn = queue.claim(user=anna, campaign=campaign) if campaign else None
        if turn is None:
            time.sleep(0.2)
            continue
        submit(turn)
        done += 1
    assert Judgment.objects.exists() or script.poll() is not None
