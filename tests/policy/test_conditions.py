import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generation.diffusion.loading import FillModels, PolicySpec, load_models
from modeling.policy.conditions import ConditionCache, Encoder, Recent, fingerprint
from modeling.policy.sources import Batch, Sources, read_rows
from modeling.rundir import RunError
from tests.diffusion.tiny import save_tiny_policy
from tests.policy.tiny import write_sources

LIMIT = 1 << 30


@pytest.fixture
def models(policy_dir: Path) -> FillModels:
    return load_models(PolicySpec(location=str(policy_dir)))


def _batch(run: Path, encoder: Encoder) -> Batch:
    return Sources(read_rows(run / "sources.jsonl"), encoder, max_pixels=4096).batch([0, 1, 2])


def _same(first: Batch, second: Batch) -> bool:
    names = ("prompt_embeds", "pooled", "masked_image", "image_latents")
    pairs = [(getattr(first.conditions, n), getattr(second.conditions, n)) for n in names]
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_another_run_finds_the_same_bits(tmp_path: Path, models: FillModels) -> None:
    run, place = write_sources(tmp_path / "run"), tmp_path / "cache"
    plain = _batch(run, Encoder(models))
    first = ConditionCache(place, max_bytes=LIMIT)
    assert _same(_batch(run, Encoder(models, first)), plain)
    assert (first.hits, first.misses) == (0, 5)  # two prompts, three pictures
    second = ConditionCache(place, max_bytes=LIMIT)
    encoder = Encoder(models, second)
    models.text_encoder = models.text_encoder_2 = None
    assert _same(_batch(run, encoder), plain)
    assert (second.hits, second.misses) == (5, 0)


def test_another_model_finds_nothing(tmp_path: Path, models: FillModels, policy_dir: Path) -> None:
    run, place = write_sources(tmp_path / "run"), tmp_path / "cache"
    _batch(run, Encoder(models, ConditionCache(place, max_bytes=LIMIT)))
    other = load_models(PolicySpec(location=str(save_tiny_policy(tmp_path / "other", seed=1))))
    cache = ConditionCache(place, max_bytes=LIMIT)
    assert _same(_batch(run, Encoder(other, cache)), _batch(run, Encoder(other)))
    assert (cache.hits, cache.misses) == (0, 5)
    half = load_models(PolicySpec(location=str(policy_dir)), dtype=torch.bfloat16)
    cache = ConditionCache(place, max_bytes=LIMIT)
    assert _same(_batch(run, Encoder(half, cache)), _batch(run, Encoder(half)))
    assert cache.hits == 0


def test_a_changed_weight_changes_the_fingerprint(models: FillModels) -> None:
    before = fingerprint(models.vae)
    assert fingerprint(models.vae) == before
    with torch.no_grad():
        next(models.vae.parameters()).flatten()[0] += 1e-3
    assert fingerprint(models.vae) != before


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    save_file({"first": torch.ones(1), "second": torch.ones(1)}, path)


def _swap(path: Path) -> None:
    tensors = load_file(path)
    save_file({"first": tensors["second"], "second": tensors["first"]}, path)


@pytest.mark.parametrize("harm", [_truncate, _flip, _empty, _foreign, _swap])
def test_a_file_that_is_not_what_was_written_is_made_again(
    tmp_path: Path, models: FillModels, harm: object
) -> None:
    assert callable(harm)
    run, place = write_sources(tmp_path / "run"), tmp_path / "cache"
    plain = _batch(run, Encoder(models, ConditionCache(place, max_bytes=LIMIT)))
    for path in place.glob("??/*"):
        harm(path)
    for expected in ((0, 5), (5, 0)):
        cache = ConditionCache(place, max_bytes=LIMIT)
        assert _same(_batch(run, Encoder(models, cache)), plain)
        assert (cache.hits, cache.misses) == expected


def test_it_forgets_what_was_not_read_for_longest(tmp_path: Path) -> None:
    pair = (torch.zeros(1000), torch.zeros(1000))
    cache = ConditionCache(tmp_path, max_bytes=LIMIT)
    for number, name in enumerate(("aa1", "bb2", "cc3")):
        cache.get(name, lambda: pair)
        os.utime(tmp_path / name[:2] / f"{name}.safetensors", (number, number))
    assert cache.find("aa1") is not None  # read now
    cache = ConditionCache(tmp_path, max_bytes=17_000)
    assert [cache.find(name) is not None for name in ("aa1", "bb2", "cc3")] == [True, False, True]


def test_a_disk_that_takes_nothing_costs_only_the_cache(tmp_path: Path, models: FillModels) -> None:
    """A file stands where the entries' folders would be made."""
    run, place = write_sources(tmp_path / "run"), tmp_path / "cache"
    cache = ConditionCache(place, max_bytes=LIMIT)
    for number in range(256):
        (place / f"{number:02x}").write_text("")
    encoder = Encoder(models, cache)
    with pytest.warns(UserWarning, match="Conditions are not kept in"):
        found = _batch(run, encoder)
    assert _same(found, _batch(run, Encoder(models)))


def test_it_says_when_a_needed_prompt_has_gone(tmp_path: Path, models: FillModels) -> None:
    encoder = Encoder(models, ConditionCache(tmp_path, max_bytes=LIMIT))
    encoder.remember(["a red star"])
    assert encoder.prompt("a red star")[0].shape[0] == 1
    for path in tmp_path.glob("??/*"):
        path.unlink()
    with pytest.raises(RunError, match="'a red star' have gone from the condition cache"):
        encoder.prompt("a red star")


def test_it_keeps_the_values_that_were_used_last() -> None:
    recent, made = Recent[int, torch.Tensor](3 * 40), list[int]()

    def make(number: int) -> torch.Tensor:
        made.append(number)
        return torch.full((10,), float(number))

    for number in (1, 2, 3, 1, 4, 1, 2):
        assert recent.get(number, lambda number=number: make(number))[0] == number  # type: ignore
    assert made == [1, 2, 3, 4, 2]
    assert recent.nbytes == 120
