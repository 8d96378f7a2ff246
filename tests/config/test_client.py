"""The Python client against a live server, and what it does where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from annotation import exporting
from annotation.models import Campaign, Export, Judgment
from config import schema
from config.client import (
    ApiError,
    Client,
    Conflict,
    Invalid,
    NewSource,
    NotAllowed,
    NotFound,
    ServerError,
    Unreachable,
    rows,
)
from generation import tokens
from generation.models import Role, Source
from modeling.taxonomy import seed
from tests.annotation.factories import claim, submit
from tests.conftest import REPOSITORY
from tests.factories import make_mask_picture, make_picture, make_set, make_user


@pytest.fixture
def site(live_server: Any) -> Iterator[Client]:
    """A manager's client on a server in a thread."""
    seed()
    scopes = ["read", "manage", "export"]
    _, secret = tokens.make(user=make_user("max", role=Role.MANAGER), name="x", scopes=scopes)
    with Client(live_server.url, token=secret, tries=1) as client:
        yield client


def folder(at: Path, *, pictures: int = 3) -> Path:
    at.mkdir()
    for number in range(pictures):
        make_picture(number).save(at / f"{number}.png")
        make_mask_picture().save(at / f"{number}_mask.png")
        (at / f"{number}.txt").write_text("a red circle")
    return at


def test_it_needs_neither_django_nor_torch(tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    where = project["tool"]["setuptools"]["package-dir"]["oneloop"]
    (tmp_path / "oneloop").symlink_to(REPOSITORY / where)
    program = """
import sys
from oneloop import Client
assert Client.__module__ == "oneloop.client"
print(sorted({"django", "rest_framework", "torch", "numpy", "config"} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.stdout.strip(), found.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        (kind, component)
        for component, kind in {
            "Campaign": rows.Campaign,
            "Progress": rows.Progress,
            "Item": rows.Item,
            "Judgment": rows.Judgment,
            "Preference": rows.Preference,
            "Rating": rows.Rating,
            "Source": rows.Source,
            "Pushed": rows.Pushed,
            "Set": rows.CandidateSet,
            "Candidate": rows.Candidate,
            "Generation": rows.Generation,
            "Policy": rows.Policy,
            "RewardModel": rows.RewardModel,
            "Training": rows.Training,
            "Round": rows.Round,
            "Step": rows.Step,
            "StudyFigures": rows.Study,
            "Dimension": rows.Dimension,
            "Task": rows.Task,
            "Project": rows.Project,
            "Me": rows.Me,
            "Export": rows.Export,
        }.items()
    ],
)
def test_its_rows_are_those_of_the_description(kind: Any, component: str) -> None:
    described = schema.document()["components"]["schemas"][component]["properties"]
    assert set(kind.__dataclass_fields__) <= set(described)


@pytest.mark.django_db(transaction=True)
class TestSite:
    def test_from_a_folder_to_judgments(self, site: Client, tmp_path: Path) -> None:
        path = folder(tmp_path / "photos")
        (path / "broken.png").write_bytes(b"no picture")
        pushed = site.sources.push(path, task="fill", tags={"album": "mine"}, at_once=2)
        assert (pushed.rows, pushed.created, pushed.existing) == (4, 3, 0)
        assert [one.row for one in pushed.refused] == [3]
        assert pushed.sources[3] is None
        assert site.sources.push(path, task="fill").existing == 3
        first = site.sources.get(pushed.sources[0] or 0)
        assert (first.prompt, first.tags) == ("a red circle", {"album": "mine"})
        assert site.save_image(first.image, tmp_path / "one.png").stat().st_size > 100
        assert len(list(site.sources.list(task="fill", order="oldest"))) == 3

        sets = [make_set(source).pk for source in Source.objects.all()]
        campaign = site.campaigns.create(name="Spring", tasks=["fill"], sets=sets)
        anna, said = make_user("anna"), []
        for progress in site.campaigns.watch(campaign, every=0):
            said.append((progress.judged, progress.wanted))
            if progress.judged < progress.wanted:
                submit(claim(anna, Campaign.objects.get()))
        assert said == [(0, 3), (1, 3), (2, 3), (3, 3)]
        assert all(item.judged == item.wanted == 1 for item in site.campaigns.items(campaign))
        ordered = site.exports.create(campaigns=["Spring"])
        assert (ordered.state, ordered.total) == ("queued", len(sets) * 4)
        exporting.run(Export.objects.get())
        export = site.exports.wait(ordered, every=0)
        site.exports.download(export, tmp_path / "dataset.zip")
        assert export.byte_size == (tmp_path / "dataset.zip").stat().st_size
        found = list(site.judgments.list(campaign=campaign.id, order="oldest"))
        assert [one.id for one in found] == list(
            Judgment.objects.order_by("pk").values_list("pk", flat=True)
        )
        assert {one.annotator_name for one in found} == {"anna"}
        assert next(site.preferences.list(campaign=campaign.id)).weight > 0
        assert site.campaigns.close(campaign).state == "closed"
        assert site.me().roles == {"main": "manager"}

    def test_sources_come_from_lines_and_from_programs(self, site: Client, tmp_path: Path) -> None:
        path = folder(tmp_path / "photos")
        line = {"image": "0.png", "mask": "0_mask.png", "prompt": "a hat"}
        (path / "rows.jsonl").write_text(json.dumps(line) + "\n")
        assert site.sources.push(path / "rows.jsonl", task="fill").created == 1
        mask = (path / "1_mask.png").read_bytes()
        made = [NewSource(image=path / "1.png", mask=mask, prompt="a cat")]
        assert site.sources.push(made, task="fill").created == 1
        assert {one.prompt for one in site.sources.list()} == {"a hat", "a cat"}
        none = site.sources.push([NewSource(prompt="a hat")], task="fill")
        assert "starts from a picture" in none.refused[0].reason

    def test_refusals_are_exceptions_that_say_why(self, site: Client, live_server: Any) -> None:
        with pytest.raises(NotFound, match="404 Not Found"):
            site.campaigns.get(99)
        with pytest.raises(Invalid, match=r"tasks\.0: There is no “none-such” here") as error:
            site.campaigns.create(name="Spring", tasks=["none-such"])
        assert error.value.errors == {"tasks.0": ["There is no “none-such” here."]}
        with pytest.raises(Invalid, match="is no parameter here"):
            list(site.judgments.list(campain=1))
        draft = site.campaigns.create(name="Spring", tasks=["fill"], sets=[], state="draft")
        with pytest.raises(Conflict, match="cannot become"):
            site.campaigns.pause(draft)
        with Client(live_server.url, token="olp_none") as nobody, pytest.raises(NotAllowed):
            nobody.me()


class Moody(BaseHTTPRequestHandler):
    """Answers what it is told to, one after the other, and writes down what it was asked."""

    answers: ClassVar[list[tuple[int, dict[str, str], Any]]] = []
    keys: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        status, headers, body = self.answers.pop(0)
        if not status:  # hangs up
            self.connection.close()
            return
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[str]:
    Moody.answers.clear()
    Moody.keys.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestFailures:
    def push(self, url: str, tries: int = 6) -> Any:
        with Client(url, token="olp_x", tries=tries) as client:
            return client.sources.push([NewSource(prompt="a hat")], task="fill")

    def test_it_asks_again_with_the_same_key(self, moody: str) -> None:
        good = {"rows": 1, "created": 1, "existing": 0, "refused": [], "sources": [7]}
        soon = {"Retry-After": "0"}
        busy = {"type": "urn:oneloop:problem:in-progress"}
        Moody.answers[:] = [(503, soon, {}), (429, soon, {}), (409, soon, busy), (201, {}, good)]
        assert self.push(moody).sources == (7,)
        assert len(Moody.keys) == 4
        assert len(set(Moody.keys)) == 1

    def test_it_gives_up_with_the_reason(self, moody: str) -> None:
        Moody.answers[:] = [(500, {"Retry-After": "0"}, {"title": "Oh", "detail": "no"})] * 2
        with pytest.raises(ServerError, match="500 Oh: no"):
            self.push(moody, tries=2)
        Moody.answers[:] = [(418, {}, {"title": "Teapot"})]
        with pytest.raises(ApiError, match="418 Teapot"):
            self.push(moody)

    def test_nobody_there(self, moody: str) -> None:
        Moody.answers[:] = [(0, {}, {})]
        with pytest.raises(Unreachable, match="does not answer"):
            self.push(moody, tries=1)
