"""Thousands of spoilt files, and whatever hypothesis thinks of: a sentence, or what was meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from generation.areas import Area
from generation.checkpoints import CheckpointError, read_card
from generation.decoding import pool
from generation.images import ImageError
from tests.fuzz.run import MEMORY_MB, NOTES, PARENT_MB, check, prepare, run

LONG = 12_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=30,
)
NUMBERS = st.lists(st.integers(-(2**40), 2**40) | st.floats(), max_size=40)
AREAS = st.one_of(
    JSON,
    NUMBERS,
    st.lists(NUMBERS, max_size=5),
    st.fixed_dictionaries(
        {"counts": NUMBERS | st.text() | st.binary()}, optional={"size": JSON | NUMBERS}
    ),
    st.fixed_dictionaries({"runs": NUMBERS}, optional={"size": NUMBERS}),
)


@pytest.fixture(autouse=True)
def _decoders(settings: Any) -> Iterator[None]:
    settings.DECODER_MEMORY_MB = settings.DECODER_MEMORY_MB  # put back afterwards
    settings.DECODER_SECONDS = settings.DECODER_SECONDS
    prepare()
    yield
    pool.logger.removeHandler(NOTES)
    pool.POOL.close()


@pytest.mark.parametrize("cases", [400, pytest.param(LONG, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_spoilt_files_are_refused_in_a_sentence(cases: int, tmp_path: Path) -> None:
    found = run(cases, seed=cases, place=tmp_path)
    print("\n" + "\n".join(found.lines()))
    assert found.wrong == []
    assert found.cases >= cases * 0.99
    assert all(one.outcomes["refused"] for one in found.reports)
    assert sum(one.outcomes["read"] for one in found.reports) > cases / 20
    assert found.deaths == 0
    assert found.decoder_mb < MEMORY_MB
    assert found.grown_mb < PARENT_MB


@given(AREAS, st.tuples(st.integers(1, 50), st.integers(1, 50)))
@examples(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_mask_in_numbers_is_drawn_or_refused(value: Any, size: tuple[int, int]) -> None:
    try:
        assert Area(value).draw(size, name="the mask").mode == "L"
    except ImageError as error:
        check(str(error))


@given(JSON)
@examples(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_card_is_one_that_a_database_holds_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "card.json").write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))
    try:
        card = read_card(folder)
    except CheckpointError as error:
        check(str(error))
    else:
        json.dumps(card, ensure_ascii=False, allow_nan=False).encode()
        assert "\0" not in "".join(texts(card))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts(one)
