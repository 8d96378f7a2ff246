"""Lines of the log, for people or as JSON, with what they belong to and without what is secret."""

from __future__ import annotations

import logging
import re
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from generation import trail

HIDDEN = "[hidden]"
# Tokens and secrets by the marks they begin with, values by the names they stand behind, secrets in
# addresses, and what a database quotes of its rows: people's words among it.
SECRETS = re.compile(
    r"""
    (?P<mark>\b(?:olp_|whsec_))[\w-]+
    | (?P<name>(?:authorization|cookie|session_?id|csrf\w*|password|passwd|secret\w*|api_?key|token)
        ["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?)[^\s"'&,;)}]+
    | (?P<scheme>://[^\s/:@"']*:)[^\s/@"']+(?=@)
    | (?P<place>/(?:join|leaderboard)/)[\w-]{16,}
    | (?P<row>Failing\ row\ contains\ |\bKey\ (?=\([^)]*\)=\())\(.*
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Without one of these a line holds nothing that is hidden: they are found ten times as fast.
HINT = re.compile(r"olp_|whsec_|[:=]|/join/|/leaderboard/|Failing row")


def scrub(text: str) -> str:
    return SECRETS.sub(_hide, text) if HINT.search(text) else text


def _hide(found: re.Match[str]) -> str:
    return f"{found[found.lastgroup or 0]}{HIDDEN}"


class Line(logging.Formatter):
    """For people: what a line belongs to stands at its end."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        ids = " ".join(f"{name}={value}" for name, value in trail.current().items())
        return f"{line} [{ids}]" if ids else line

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


class Json(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="at",
            # Rows and responses that Django hands on are no data.
            reserved_attrs=[
                *RESERVED_ATTRS,
                "request",
                "response",
                "server_time",
                "status_code",
                "data",
            ],
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        cleaned = {
            key: scrub(value) if isinstance(value, str) else value
            for key, value in log_data.items()
        }
        return {**cleaned, **trail.current()}


class LeftToOthers(logging.Filter):
    """Answers that went wrong are in the log of requests already; a failure keeps its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)
