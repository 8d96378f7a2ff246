"""The site as an object: `client.campaigns.create(…)`, `client.judgments.list(…)`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from . import pushing, rows
from .errors import Invalid, OneLoopError
from .rows import (
    Campaign,
    Export,
    Generation,
    Item,
    Me,
    Progress,
    Pushed,
    Refused,
    Source,
    build,
)
from .transport import Transport

T = TypeVar("T")
OPEN = ("queued", "running")


class Rows(Generic[T]):
    """A list of the API."""

    def __init__(self, transport: Transport, path: str, kind: type[T]) -> None:
        self._transport, self._path, self._kind = transport, path, kind

    def list(self, **filters: Any) -> Iterator[T]:
        """All rows that the filters let through, the newest first unless `order="oldest"`."""
        for said in self._transport.pages(self._path, {"page_size": 500} | filters):
            yield build(self._kind, said)

    def get(self, key: int | str) -> T:
        return build(self._kind, self._transport.get(f"{self._path}/{key}"))


class Sources(Rows[Source]):
    def push(
        self,
        what: pushing.What,
        *,
        task: str | None = None,
        project: str | None = None,
        tags: Mapping[str, str] | None = None,
        at_once: int = 20,
    ) -> Pushed:
        """Add sources from a folder, a .jsonl file or an iterable, some in each request.

        Rows that cannot be taken are in the report's `refused` with the reason, counted over all
        of them. Pushed again, nothing changes.
        """
        common = _given(task=task, project=project, tags=dict(tags) if tags else None)
        reports: list[Pushed] = []
        for batch in pushing.batches(pushing.sources(what), at_once):
            try:
                said = self._transport.post("sources", {**common, "sources": batch})
            except Invalid as error:
                if not error.type.endswith(":all-refused"):
                    raise
                reports.append(_all_refused(error, len(batch)))
            else:
                reports.append(build(Pushed, said))
        return _together(reports)


def _all_refused(error: Invalid, count: int) -> Pushed:
    reasons = [
        Refused(row=int(name.rpartition(".")[2]), reason=" ".join(said))
        for name, said in error.errors.items()
    ]
    return Pushed(
        rows=count, created=0, existing=0, refused=tuple(reasons), sources=(None,) * count
    )


def _together(reports: list[Pushed]) -> Pushed:
    before, refused = 0, []
    for one in reports:
        refused += [Refused(row=before + bad.row, reason=bad.reason) for bad in one.refused]
        before += one.rows
    return Pushed(
        rows=before,
        created=sum(one.created for one in reports),
        existing=sum(one.existing for one in reports),
        refused=tuple(refused),
        sources=tuple(number for one in reports for number in one.sources),
    )


class Generations(Rows[Generation]):
    def create(self, **order: Any) -> Generation:
        """Order candidate sets: `task="fill", sets=20`, or `sources=[…]`."""
        return build(Generation, self._transport.post("generations", order))

    def wait(
        self, order: Generation | int, *, every: float = 2.0, most: float = 3600
    ) -> Generation:
        """Until its sets are made; OneLoopError where that fails or takes too long."""
        end = time.monotonic() + most
        while (found := self.get(_number(order))).state in OPEN:
            if time.monotonic() > end:
                raise OneLoopError(f"Generation {found.id} is not ready after {most:g} seconds.")
            time.sleep(every)
        if found.state != "succeeded":
            raise OneLoopError(f"Generation {found.id} {found.state}: {found.error}")
        return found


class Campaigns(Rows[Campaign]):
    def create(self, *, name: str, tasks: list[str], **settings: Any) -> Campaign:
        """`sets=[…]`, `run=…` say what it asks about, else all ready sets; `sets=[]`: later."""
        body = {"name": name, "tasks": tasks, **settings}
        return build(Campaign, self._transport.post("campaigns", body))

    def open(self, campaign: Campaign | int) -> Campaign:
        return self._become(campaign, "open")

    def pause(self, campaign: Campaign | int) -> Campaign:
        return self._become(campaign, "paused")

    def close(self, campaign: Campaign | int) -> Campaign:
        return self._become(campaign, "closed")

    def _become(self, campaign: Campaign | int, state: str) -> Campaign:
        path = f"campaigns/{_number(campaign)}/state"
        return build(Campaign, self._transport.post(path, {"state": state}))

    def add_sets(self, campaign: Campaign | int, **contents: Any) -> int:
        """How many are new in its queue; where a worker adds them `progress` shows how far."""
        said = self._transport.post(f"campaigns/{_number(campaign)}/sets", contents)
        return int(said["added"])

    def items(self, campaign: Campaign | int, **filters: Any) -> Iterator[Item]:
        path = f"campaigns/{_number(campaign)}/items"
        for said in self._transport.pages(path, {"page_size": 500} | filters):
            yield build(Item, said)

    def progress(self, campaign: Campaign | int) -> Progress:
        return build(Progress, self._transport.get(f"campaigns/{_number(campaign)}/progress"))

    def watch(self, campaign: Campaign | int, *, every: float = 10.0) -> Iterator[Progress]:
        """How far it is, again and again, until all is judged or it is closed."""
        while True:
            found = self.progress(campaign)
            yield found
            if found.state == "closed" or (found.wanted and found.judged >= found.wanted):
                return
            time.sleep(every)


class Exports(Rows[Export]):
    """Datasets to take away."""

    def create(
        self,
        *,
        project: str | None = None,
        format: str = "canonical",
        images: str = "files",
        max_side: int | None = None,
        **selection: Any,
    ) -> Export:
        """Order one; `selection` says of what, e.g. `campaigns=["Spring"]`, `since="2026-01-31"`.

        Left out are no judgments: see `selection` in the API's schema for all that it takes.
        """
        body = {"project": project, "format": format, "images": images, "max_side": max_side}
        said = {name: value for name, value in body.items() if value is not None}
        return build(Export, self._transport.post("exports", said | {"selection": selection}))

    def wait(self, export: Export | int, *, every: float = 1.0, most: float = 3600) -> Export:
        end = time.monotonic() + most
        while (found := self.get(_number(export))).state in OPEN:
            if time.monotonic() > end:
                raise OneLoopError(f"Export {found.id} is not ready after {most:g} seconds.")
            time.sleep(every)
        if found.state != "succeeded":
            raise OneLoopError(f"Export {found.id} {found.state}: {found.error or ''}")
        return found

    def download(self, export: Export | int, path: str | Path) -> Path:
        """Its file, once it is there (`wait`)."""
        found = export if isinstance(export, Export) and export.download else None
        found = found or self.get(_number(export))
        if not found.download:
            raise OneLoopError(f"Export {found.id} has no file: it is {found.state}.")
        return self._transport.save(found.download, Path(path).expanduser())


def _number(row: Campaign | Generation | Export | int) -> int:
    return row if isinstance(row, int) else row.id


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class Client:
    """One site, as the owner of a token sees it."""

    def __init__(self, url: str, *, token: str, timeout: float = 60.0, tries: int = 6) -> None:
        self._transport = to = Transport(url, token, timeout=timeout, tries=tries)
        self.projects = Rows(to, "projects", rows.Project)
        self.tasks = Rows(to, "tasks", rows.Task)
        self.dimensions = Rows(to, "dimensions", rows.Dimension)
        self.sources = Sources(to, "sources", Source)
        self.policies = Rows(to, "policies", rows.Policy)
        self.generations = Generations(to, "generations", Generation)
        self.candidate_sets = Rows(to, "candidate-sets", rows.CandidateSet)
        self.campaigns = Campaigns(to, "campaigns", Campaign)
        self.judgments = Rows(to, "judgments", rows.Judgment)
        self.preferences = Rows(to, "preferences", rows.Preference)
        self.ratings = Rows(to, "ratings", rows.Rating)
        self.reward_models = Rows(to, "reward-models", rows.RewardModel)
        self.trainings = Rows(to, "trainings", rows.Training)
        self.rounds = Rows(to, "rounds", rows.Round)
        self.studies = Rows(to, "studies", rows.Study)
        self.exports = Exports(to, "exports", Export)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def me(self) -> Me:
        """Whose the token is, and what it may do."""
        return build(Me, self._transport.get("me"))

    def leaderboard(self, **scope: Any) -> dict[str, Any]:
        """Which policy is best: `task=`, `dimension=`, `campaign=`, `annotators="simulated"`."""
        found: dict[str, Any] = self._transport.get("leaderboard", scope)
        return found

    def save_image(self, image: rows.Image, path: str | Path) -> Path:
        return self._transport.save(image.url, Path(path).expanduser())

    def get(self, path: str, **params: Any) -> Any:
        """Whatever else the API answers, as it is."""
        return self._transport.get(path, params)
