"""Examinations of an installation: what is well, what is not, and what to do about it.

    @examines
    def cellar() -> Finding:
        return Finding("cellar", State.WARNING, "The cellar is damp.", "Open a window.")

Every module of `config.examinations` is found by itself; others register when they are imported.
An examination may take its time or fail: it runs in a thread that is given up after `seconds`.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, overload

from django.db import connections
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


STATES: dict[str, StrOrPromise] = {
    State.OK: pgettext_lazy("state of a part", "ok"),
    State.WARNING: pgettext_lazy("state of a part", "warning"),
    State.BROKEN: pgettext_lazy("state of a part", "broken"),
}


@dataclass(frozen=True)
class Finding:
    """Sentences may be lazy translations: they are read in the language of whoever reads them."""

    name: StrOrPromise
    state: str
    what: StrOrPromise
    remedy: StrOrPromise = ""

    def as_json(self) -> dict[str, str]:
        return {
            "name": str(self.name),
            "state": str(self.state),
            "what": str(self.what),
            "remedy": str(self.remedy),
        }


MEND_FIRST = _("Mend that first.")

# An examination finds one thing or several; one without a name gets the examination's.
Found = Finding | Iterable[Finding]


def ok(what: StrOrPromise) -> Finding:
    return Finding("", State.OK, what)


def warning(what: StrOrPromise, remedy: StrOrPromise) -> Finding:
    return Finding("", State.WARNING, what, remedy)


def broken(what: StrOrPromise, remedy: StrOrPromise) -> Finding:
    return Finding("", State.BROKEN, what, remedy)


@dataclass(frozen=True)
class Examination:
    key: str
    name: StrOrPromise
    look: Callable[[], Found]
    # Another examination's key: where that one finds something broken, this one is left out.
    needs: str = ""
    # Slow ones are looked at by a job every few minutes, not while somebody waits for a page.
    is_slow: bool = False
    seconds: float = 5.0


_registered: dict[str, Examination] = {}


@overload
def examines(look: Callable[[], Found], /) -> Callable[[], Found]: ...
@overload
def examines(
    *, name: StrOrPromise = "", needs: str = "", is_slow: bool = False, seconds: float = 5.0
) -> Callable[[Callable[[], Found]], Callable[[], Found]]: ...
def examines(look: Callable[[], Found] | None = None, /, **options: Any) -> Any:
    """Register an examination, under its function's name."""

    def register(function: Callable[[], Found]) -> Callable[[], Found]:
        key = function.__name__
        name = options.pop("name", "") or key.replace("_", " ").capitalize()
        _registered[key] = Examination(key, name, function, **options)
        return function

    return register(look) if look is not None else register


def examinations() -> list[Examination]:
    """All of them, each after the one that it needs."""
    from config import examinations as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    place = {key: number for number, key in enumerate(_registered)}
    found = _registered.values()
    return sorted(found, key=lambda one: (place[one.needs or one.key], bool(one.needs)))


def examine(chosen: Iterable[Examination]) -> Iterator[tuple[Examination, list[Finding]]]:
    """Look at one after another; what depends on a broken part isn't looked at."""
    ill: dict[str, StrOrPromise] = {}
    for examination in chosen:
        if examination.needs in ill:
            found = [_left_out(ill[examination.needs])]
        else:
            found = _look(examination)
        if any(one.state == State.BROKEN for one in found):
            ill[examination.key] = examination.name
        yield examination, [replace(one, name=one.name or examination.name) for one in found]


def worst(findings: Iterable[Finding]) -> State:
    order = list(State)
    return max((State(one.state) for one in findings), key=order.index, default=State.OK)


def _left_out(needed: StrOrPromise) -> Finding:
    said = _("Not looked at: it needs “{part}”, which is broken.")
    return warning(format_lazy(said, part=needed), MEND_FIRST)


def _look(examination: Examination) -> list[Finding]:
    box: list[list[Finding] | Exception] = []

    def look() -> None:
        try:
            found = examination.look()
            box.append([found] if isinstance(found, Finding) else list(found))
        except Exception as error:
            box.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=look, name=f"examine {examination.key}", daemon=True)
    thread.start()
    thread.join(examination.seconds)
    if not box:
        said = _("No answer within {seconds} seconds.")
        return [
            broken(
                format_lazy(said, seconds=f"{examination.seconds:g}"),
                _("Look whether this part is overloaded or unreachable, and ask again."),
            )
        ]
    if isinstance(answer := box[0], Exception):
        return [broken(_first_line(answer), _("The log of this process says more."))]
    return answer


def _first_line(error: Exception) -> str:
    """A failure as one line, without what a database would quote of its rows."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
