import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from modeling.policy.config import MonitorConfig
from modeling.policy.monitors import (
    Alarm,
    diversity,
    drift,
    evidence,
    grid_energy,
    outside_psnr,
    outside_ssim,
    roughness,
)

GOOD = {
    "drift": 0.01,
    "psnr_drop": 0.1,
    "ssim_drop": 0.0,
    "roughness": 1.0,
    "grid": 1.0,
    "diversity": 1.0,
    "reward_gap": 0.0,
    "adapter_norm": 0.5,
}


def test_it_measures_only_outside_the_mask() -> None:
    """An error of .1 on every pixel is 20 dB; inside the mask it does not count."""
    source = torch.full((2, 3, 8, 8), 0.5)
    images, masks = source.clone(), torch.zeros(2, 1, 8, 8)
    masks[:, :, :4] = 1
    images[0] += 0.1
    images[1, :, :4] += 0.4
    assert outside_psnr(images, source, masks).tolist() == pytest.approx([20.0, 60.0], abs=1e-3)


def _scipy_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Wang et al.'s map by scipy's Gaussian filter, cut to 11 pixels: truncate = 5 / 1.5."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    mean, other = blurred(first), blurred(second)
    variance, other_variance = blurred(first**2) - mean**2, blurred(second**2) - other**2
    covariance = blurred(first * second) - mean * other
    found = (2 * mean * other + 1e-4) * (2 * covariance + 9e-4)
    return found / (mean**2 + other**2 + 1e-4) / (variance + other_variance + 9e-4)


def test_its_structural_similarity_is_the_published_one() -> None:
    """Without a mask, in float64, against the formula over scipy's own Gaussian filter."""
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(2, 3, 32, 24, generator=generator, dtype=torch.float64)
    image = (source + 0.2 * torch.randn(source.shape, generator=generator)).clamp(0, 1)
    masks = torch.zeros(2, 1, 32, 24, dtype=torch.float64)
    expected = [
        np.mean([_scipy_ssim(image[b, c].numpy(), source[b, c].numpy()) for c in range(3)])
        for b in range(2)
    ]
    assert outside_ssim(image, source, masks).tolist() == pytest.approx(expected, rel=1e-9)


def test_its_structural_similarity_does_not_see_the_edit() -> None:
    source, masks = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    masks[:, :, :16] = 1
    edited = torch.where(masks > 0.5, 1 - source, source)
    assert outside_ssim(edited, source, masks).tolist() == pytest.approx([1, 1])
    blurred = F.avg_pool2d(F.pad(edited, (1, 1, 1, 1), mode="replicate"), 3, 1)
    assert outside_ssim(blurred, source, masks).max() < 0.9
    # Everything is edited, as in text to image.
    assert outside_ssim(blurred, source, torch.ones_like(masks)).tolist() == [1, 1]


def test_it_measures_how_much_seeds_differ_inside_the_mask() -> None:
    """Pictures of 0, .3 and .6 inside: pairs differ by .3, .3 and .6, .4 on average."""
    pictures = torch.rand(1, 2, 3, 8, 8).repeat(3, 1, 1, 1, 1)
    masks = torch.zeros(2, 1, 8, 8)
    masks[:, :, :4] = 1
    for number in range(3):
        pictures[number, :, :, :4] = 0.3 * number
    pictures[2, :, :, 4:] = 0  # outside
    assert diversity(pictures, masks).tolist() == pytest.approx([0.4, 0.4])


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
    images, sources = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    masks = torch.zeros(2, 1, 32, 32)
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
    kept, alike = signs.pop("outside_psnr"), signs.pop("outside_ssim")
    assert signs == pytest.approx(
        {"drift": 0, "psnr_drop": 0, "ssim_drop": 0, "roughness": 1, "grid": 1}
    )
    assert 0 < kept < 20
    assert 0 < alike < 0.5


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


@pytest.mark.parametrize("sign", sorted(GOOD))
def test_it_watches_every_sign(sign: str) -> None:
    for value in (-100.0 if sign == "diversity" else 100.0, math.nan):
        alarm = Alarm(MonitorConfig(max_adapter_norm=1.0))
        assert alarm.check(1, GOOD, 0.5) == ""
        alarm.check(2, {**GOOD, sign: value}, 0.5)
        assert alarm.check(3, {**GOOD, sign: value}, 0.5)


def test_it_passes_over_what_a_run_does_not_measure() -> None:
    alarm = Alarm(MonitorConfig())
    measured = {name: GOOD[name] for name in ("drift", "psnr_drop", "roughness", "grid")}
    for step in range(3):
        assert alarm.check(step, {**measured, "adapter_norm": 1e9}, 0.5) == ""


def test_it_says_why_it_stopped() -> None:
    alarm = Alarm(MonitorConfig())
    signs = {**GOOD, "diversity": 0.2, "reward_gap": 0.4}
    alarm.check(1, signs, 0.5)
    reason = alarm.check(2, signs, 0.9)
    assert "differ 0.20 times as much as the parent's (at least 0.50)" in reason
    assert "held-out reward model's P(Yes) is lower by 0.40 (limit 0.25)" in reason


def test_it_remembers_its_strikes_over_a_restart() -> None:
    bad = {**GOOD, "grid": 9.0}
    first = Alarm(MonitorConfig())
    first.check(10, bad, 0.4)
    second = Alarm(MonitorConfig())
    second.load_state(first.state())
    assert "from 0.40 to 0.60" in second.check(20, bad, 0.6)
