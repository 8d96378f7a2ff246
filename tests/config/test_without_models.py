"""The web, migrations, beat and the worker of the default queue run without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from annotation import exporting
from annotation.models import Addition, Aggregation
from generation import webhooks
from generation.models import Endpoint, Role
from modeling.models import RewardModel, RoundRule
from tests.annotation.factories import claim, make_campaign, submit
from tests.conftest import REPOSITORY, process_environment
from tests.factories import make_policy, make_user
from tests.modeling.test_pages import make_round
from tests.without_models import MODELS

pytestmark = pytest.mark.slow

PAGES = """
import json, sys
from tests.without_models import leave_out_models
leave_out_models()
from config.wsgi import application
from django.contrib.auth.models import User
from django.test import Client

client = Client(raise_request_exception=True)
client.force_login(User.objects.get(username="root"))
paths = json.loads(sys.argv[1])
answers = {path: client.get(path, HTTP_HOST="localhost").status_code for path in paths}
started = client.post("/loop/start/", {"annotators": "human", "seed": "0"}, HTTP_HOST="localhost")
print(json.dumps({"answers": answers, "started": started.status_code}))
"""
JOBS = """
import json, sys
from tests.without_models import leave_out_models
leave_out_models()
import django
django.setup()
from config.celery import app
app.loader.import_default_modules()
jobs = [name for name in app.tasks if ".jobs." in name]
mine = {name for name in jobs if app.amqp.router.route({}, name)["queue"].name == "default"}
arguments = json.loads(sys.argv[1])
for name in sorted(mine):
    app.tasks[name].apply(arguments.get(name, [])).get()
print(json.dumps(sorted(mine)))
"""


def run(program: str, argument: Any, data_dir: Path, broker_url: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(argument)],
        cwd=REPOSITORY,
        env=process_environment(data_dir, broker_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def site(transactional_db: None) -> dict[str, Any]:
    root = make_user("root", role=Role.ADMIN, is_superuser=True, is_staff=True)
    campaign = make_campaign(sets=3)
    submit(claim(make_user(role=Role.ANNOTATOR), campaign))
    return {"root": root, "campaign": campaign}


def test_it_serves_its_pages(site: dict[str, Any], data_dir: Path, broker_url: str) -> None:
    campaign, policy = site["campaign"], make_policy()
    round_ = make_round()
    turn = claim(site["root"], campaign)
    reward = RewardModel.objects.get()
    paths = [
        "/",
        f"/label/{turn.pk}/",
        "/campaigns/",
        f"/campaigns/{campaign.pk}/",
        f"/campaigns/{campaign.pk}/quality/",
        f"/loop/{round_.number}/",
        f"/loop/{round_.number}/report/",
        "/policies/",
        f"/policies/{policy.pk}/",
        f"/reward-models/{reward.pk}/",
        "/leaderboard/",
        "/sources/",
        "/sampling/",
        "/governance/",
        "/exports/",
        "/admin/",
        "/readyz",
        "/api/v1/schema/",
    ]
    found = run(PAGES, paths, data_dir, broker_url)
    assert {path: code for path, code in found["answers"].items() if code != 200} == {}
    # Its settings were validated before it was seen that a round is open.
    assert found["started"] in (302, 409, 422)


def test_it_does_the_jobs_of_the_default_queue(
    site: dict[str, Any], data_dir: Path, broker_url: str
) -> None:
    campaign, root = site["campaign"], site["root"]
    export = exporting.order(
        project=campaign.project, by=root, selection={"campaigns": [campaign.name]}, format="trl"
    )
    addition = Addition.objects.create(campaign=campaign, about={}, ordered_by=root)
    endpoint = Endpoint.objects.create(
        project=campaign.project, url="https://127.0.0.1:9/", topics=["run"]
    )
    RewardModel.objects.create(name="reward", location="-", state=RewardModel.State.ACTIVE)
    RoundRule.objects.create(
        name="new labels", kind=RoundRule.Kind.NEW_JUDGMENTS, threshold=1, active=True
    )
    arguments: dict[str, list[Any]] = {
        "annotation.jobs.add_to_campaign": [addition.pk],
        "annotation.jobs.aggregate_campaign": [campaign.pk],
        "annotation.jobs.write_export": [export.pk],
        "generation.jobs.deliver": [webhooks.send_test(endpoint).pk],
        "modeling.jobs.start_round": ["human", 1, {"reward": {"steps": 3}}],
    }
    ran = run(JOBS, arguments, data_dir, broker_url)
    assert set(arguments) <= set(ran)
    export.refresh_from_db()
    assert (export.state, export.error) == ("succeeded", "")
    assert Aggregation.objects.filter(campaign=campaign).exists()


@pytest.mark.parametrize(
    "command",
    [
        ["manage", "migrate", "--check"],
        ["celery", "-A", "config", "beat", "--help"],
        ["celery", "-A", "config", "worker", "--help"],
    ],
)
def test_it_starts_its_other_processes(
    command: list[str], db: None, data_dir: Path, broker_url: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_models", *command],
        cwd=REPOSITORY,
        env=process_environment(data_dir, broker_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_packages_that_are_missing_are_missing() -> None:
    """Otherwise the tests above would say nothing."""
    for package in sorted(MODELS - {"bitsandbytes"}):
        program = f"from tests.without_models import *; leave_out_models(); import {package}"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert f"No module named '{package}'" in done.stderr
