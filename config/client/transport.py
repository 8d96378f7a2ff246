"""Requests: sent again where that may help, and never done twice."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from . import errors

TRIES = 6
LONGEST_WAIT = 30.0
AGAIN = {429, 500, 502, 503, 504}
IN_PROGRESS = "urn:oneloop:problem:in-progress"


class Transport:
    def __init__(self, base: str, token: str, *, timeout: float = 60.0, tries: int = TRIES) -> None:
        self.base = base.rstrip("/") + "/api/v1/"
        self._tries = tries
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "User-Agent": "oneloop-python",
        }
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(timeout), retries=False)

    def close(self) -> None:
        self._pool.clear()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._json("GET", self._address(path, params))

    def post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> Any:
        """With an idempotency key, a new one unless given: sent again it is not done again."""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key or uuid.uuid4().hex,
        }
        return self._json("POST", self._address(path), json.dumps(body).encode(), headers)

    def pages(self, path: str, params: Mapping[str, Any]) -> Iterator[Any]:
        """The rows of a list, page after page."""
        address: str | None = self._address(path, params)
        while address is not None:
            page = self._json("GET", address)
            yield from page["results"]
            address = page["next"]

    def save(self, address: str, path: Path) -> Path:
        """A file; what is at `path` is only replaced once all of it is there."""
        part = path.with_name(path.name + ".part")
        response = self._answered(
            "GET", urljoin(self.base, address), None, {"Accept": "*/*"}, False
        )
        try:
            with part.open("wb") as file:
                for chunk in response.stream(2**20):
                    file.write(chunk)
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"The download broke off: {error}") from None
        finally:
            response.release_conn()
        return part.replace(path)

    def _address(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        said = {name: _text(value) for name, value in (params or {}).items() if value is not None}
        return urljoin(self.base, path) + (f"?{urlencode(said)}" if said else "")

    def _json(
        self,
        method: str,
        address: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return self._answered(method, address, body, headers or {}, True).json()

    def _answered(
        self,
        method: str,
        address: str,
        body: bytes | None,
        headers: Mapping[str, str],
        preload: bool,
    ) -> urllib3.BaseHTTPResponse:
        for left in reversed(range(self._tries)):
            try:
                response = self._pool.request(
                    method,
                    address,
                    body=body,
                    headers=self._headers_for(address, headers),
                    preload_content=preload,
                )
            except urllib3.exceptions.HTTPError as error:
                if not left:
                    raise errors.Unreachable(f"{address} does not answer: {error}") from None
                self._wait(left, None)
                continue
            if response.status < 400:
                return response
            problem = _problem(response)
            if not left or not _may_help(response.status, problem):
                raise errors.of(response.status, problem)
            self._wait(left, response.headers.get("Retry-After"))
        raise AssertionError("unreachable")

    def _headers_for(self, address: str, headers: Mapping[str, str]) -> dict[str, str]:
        # The token is for this site alone, wherever a link may lead.
        mine = urlsplit(address)[:2] == urlsplit(self.base)[:2]
        known = self._headers if mine else {}
        return {**known, **headers}

    def _wait(self, left: int, said: str | None) -> None:
        usual = 0.5 * 2 ** (self._tries - 1 - left) * random.uniform(0.8, 1.2)
        asked = float(said) if said and said.isdecimal() else usual
        time.sleep(min(LONGEST_WAIT, max(asked, 0.05)))


def _may_help(status: int, problem: Mapping[str, Any]) -> bool:
    return status in AGAIN or problem.get("type") == IN_PROGRESS


def _problem(response: urllib3.BaseHTTPResponse) -> Mapping[str, Any]:
    try:
        found = json.loads(response.data)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"title": response.reason or "", "detail": response.data[:200].decode(errors="replace")}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
