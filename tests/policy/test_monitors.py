import math

import pytest
import torch

from modeling.policy.config import MonitorConfig
from modeling.policy.monitors import (
    Alarm,
    drift,
    evidence,
    grid_energy,
    outside_psnr,
    roughness,
)

GOOD = {"drift": 0.01, "psnr_drop": 0.1, "roughness": 1.0, "grid": 1.0}


def test_it_measures_only_outside_the_mask() -> None:
    """An error of .1 on every pixel is 20 dB; inside the mask it does not count."""
    source = torch.full((2, 3, 8, 8), 0.5)
    images, masks = source.clone(), torch.zeros(2, 1, 8, 8)
    masks[:, :, :4] = 1
    images[0] += 0.1
    images[1, :, :4] += 0.4
    assert outside_psnr(images, source, masks).tolist() == pytest.approx([20.0, 60.0], abs=1e-3)


def test_it_feels_fine_texture() -> None:
    """A checkerboard of 0 and 1 has the Laplacian +-4 everywhere inside: 16."""
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    masks = torch.zeros(1, 1, 16, 16)
    masks[:, :, 2:14, 2:14] = 1
    assert roughness(ramp, masks).item() == pytest.approx(0.0, abs=1e-9)
    assert roughness(board.float().expand(1, 3, 16, 16), masks).item() == pytest.approx(16.0)


def test_it_sees_a_pattern_at_token_borders() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 3, 32, 32, generator=generator)
    tiles = (
        torch.rand(4, 3, 4, 4, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    )
    masks = torch.ones(4, 1, 32, 32)
    assert grid_energy(noise, masks, 8).median() == pytest.approx(1.0, abs=0.2)
    assert grid_energy(tiles + 0.05 * noise, masks, 8).median() > 20


def test_it_measures_drift_against_the_fields_own_size() -> None:
    """v = 1.5 v_ref moves by half of its size: .25 of the square."""
    field = torch.randn(2, 4, 3)
    assert drift(1.5 * field, field) == pytest.approx(0.25)
    assert drift(field, field) == 0.0


def test_its_evidence_is_neutral_for_the_parent_itself() -> None:
    images, sources = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    masks = torch.zeros(2, 1, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    field = torch.randn(2, 4, 3)
    signs = evidence(
        images=images,
        parents=images,
        sources=sources,
        masks=masks,
        period=8,
        velocity=field,
        parent_velocity=field,
    )
    kept = signs.pop("outside_psnr")
    assert signs == pytest.approx({"drift": 0, "psnr_drop": 0, "roughness": 1, "grid": 1})
    assert 0 < kept < 20


def test_it_stops_at_the_second_check_in_a_row() -> None:
    alarm = Alarm(MonitorConfig(max_drift=0.3))
    bad = {**GOOD, "drift": 0.5}
    assert alarm.check(10, bad, 0.5) == ""
    assert alarm.check(20, GOOD, 0.5) == ""
    assert alarm.check(30, bad, 0.6) == ""
    reason = alarm.check(40, bad, 0.7)
    assert "Stopped at step 40" in reason
    assert "from 0.50 to 0.70" in reason
    assert "velocity field moved by 0.50 of its own size (limit 0.30)" in reason
    assert "Raise anchor_weight" in reason


@pytest.mark.parametrize("sign", ["drift", "psnr_drop", "roughness", "grid"])
def test_it_watches_every_sign(sign: str) -> None:
    for value in (100.0, math.nan):
        alarm = Alarm(MonitorConfig())
        alarm.check(1, {**GOOD, sign: value}, 0.5)
        assert alarm.check(2, {**GOOD, sign: value}, 0.5)


def test_it_remembers_its_strikes_over_a_restart() -> None:
    bad = {**GOOD, "grid": 9.0}
    first = Alarm(MonitorConfig())
    first.check(10, bad, 0.4)
    second = Alarm(MonitorConfig())
    second.load_state(first.state())
    assert "from 0.40 to 0.60" in second.check(20, bad, 0.6)
