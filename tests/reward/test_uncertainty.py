from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modeling.reward.rerank import rerank
from modeling.reward.scoring import both_orders, margins
from modeling.reward.uncertainty import Ensemble, judge, load_ensemble
from modeling.reward.vlm import RewardVLM, attach_lora, load_reward_vlm, write_settings
from tests.reward import parity
from tests.reward.test_scoring import QUERIES, pictures


@pytest.fixture(scope="module")
def adapters(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three LoRAs as three seeds would leave them, each with a temperature of its own."""
    found = []
    for seed in range(3):
        vlm = load_reward_vlm(tiny_dir)
        torch.manual_seed(seed)
        vlm.model = attach_lora(vlm.model, rank=2, alpha=4, dropout=0.0, vision=True)
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        vlm.temperature = 1.0 + seed / 2
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        vlm.model.save_pretrained(folder)
        write_settings(folder, vlm)
        found.append(folder)
    return found


@pytest.fixture
def ensemble(tiny_dir: Path, adapters: list[Path]) -> Ensemble:
    return load_ensemble(tiny_dir, adapters, dtype=torch.float64)


def test_its_members_are_the_loras_by_themselves(
    ensemble: Ensemble, tiny_dir: Path, adapters: list[Path]
) -> None:
    first, second = pictures(0), pictures(1)
    found, alone = [], []
    with torch.no_grad():
        for vlm in ensemble:
            found.append(margins(vlm, first, second, QUERIES))
        for adapter in adapters:
            vlm = load_reward_vlm(tiny_dir, adapter=adapter, dtype=torch.float64)
            alone.append(margins(vlm, first, second, QUERIES))
        after = margins(ensemble.vlm, first, second, QUERIES)
    torch.testing.assert_close(torch.stack(found), torch.stack(alone), atol=1e-6, rtol=1e-6)
    assert torch.stack(found).std(0).min() > 1e-3
    # Whoever looks at all of them leaves the first one active, and nothing trainable.
    torch.testing.assert_close(after, found[0])
    assert not [n for n, p in ensemble.vlm.model.named_parameters() if p.requires_grad]


def test_it_reports_mean_spread_and_order_disagreement(ensemble: Ensemble) -> None:
    first, second = pictures(0), pictures(1)
    with torch.no_grad():
        found = judge(ensemble, first, second, QUERIES)
        turned = judge(ensemble, second, first, QUERIES)
        asked = [both_orders(vlm, first, second, QUERIES) for vlm in ensemble]
    by_member = torch.stack([one.margin for one in asked])
    torch.testing.assert_close(found.margin, by_member.mean(0))
    torch.testing.assert_close(found.std, by_member.std(0))
    torch.testing.assert_close(found.order, torch.stack([one.bias for one in asked]).abs().mean(0))
    winners = [
        (margins(vlm, first, second, QUERIES) > 0) == (margins(vlm, second, first, QUERIES) > 0)
        for vlm in ensemble
    ]
    torch.testing.assert_close(found.flipped, torch.stack(winners).double().mean(0))
    torch.testing.assert_close(turned.margin, -found.margin, atol=1e-9, rtol=0)
    torch.testing.assert_close(turned.std, found.std, atol=1e-9, rtol=0)


def test_a_single_model_has_no_spread(vlm: RewardVLM) -> None:
    with torch.no_grad():
        found = judge(vlm, pictures(0), pictures(1), QUERIES)
    assert not found.std.any()
    assert found.order.min() > 0


def test_pictures_are_ranked_by_all_members(ensemble: Ensemble) -> None:
    views = pictures(0, count=4)
    together = rerank(ensemble, views, QUERIES[0])
    alone = torch.stack([rerank(vlm, views, QUERIES[0]).scores for vlm in ensemble])
    torch.testing.assert_close(together.scores, alone.mean(0))
    torch.testing.assert_close(together.std, alone.std(0))
    torch.testing.assert_close(together.scores.sum(0), torch.zeros(3), atol=1e-5, rtol=0)
    best = together.scores.mean(1).argsort(descending=True).tolist()
    assert together.order == best
    # Ordered by the lower bound of the members' means, a large caution follows the spread alone.
    doubt = alone.mean(2).std(0)
    assert rerank(ensemble, views, QUERIES[0], caution=1e6).order == doubt.argsort().tolist()


def test_a_ranking_says_whose_comparisons_the_order_decides() -> None:
    vlm, views = load_reward_vlm(parity.STARTER), parity.pictures().float()
    found = rerank(vlm, views, parity.QUERIES)
    expected = torch.zeros(4, 2)
    with torch.no_grad():
        for one in range(4):
            for other in set(range(4)) - {one}:
                asked = both_orders(
                    vlm, views[one][None], views[other][None], [list(parity.QUERIES)]
                )
                expected[one] += (asked.bias.abs() > asked.margin.abs())[0] / 3
    torch.testing.assert_close(found.flipped, expected)
    assert 0 < found.flipped.mean() < 1
    assert not found.std.any()


def test_members_must_see_the_same(tiny_dir: Path, adapters: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in adapters[1].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    settings = json.loads((other / "reward.json").read_text())
    settings["view"]["zoom"] = 2.0
    (other / "reward.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="show pictures differently"):
        load_ensemble(tiny_dir, [adapters[0], other])
    with pytest.raises(ValueError, match="at least one"):
        load_ensemble(tiny_dir, [])
    with pytest.raises(FileNotFoundError, match="There is no LoRA at"):
        load_ensemble(tiny_dir, [adapters[0], tmp_path])
