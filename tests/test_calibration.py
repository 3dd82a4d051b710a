"""Calibration: the factor found without the clean image is the one that the clean image would give."""

import math

import numpy as np
import pytest
import torch

from cosdd import calibration, config
from cosdd.data import Frames, Statistics
from cosdd.model import BlindRow, build


def model(stated: float) -> BlindRow:
    """Predicts the mean of the two next rows, with a standard deviation of our choice; knows the noise, white, 1."""
    torch.manual_seed(0)
    network = build(config.build("tiny", {"method": "blind-row", "blind_row": {"features": [4]}}))
    assert isinstance(network, BlindRow)
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.zero_()
        network.factor.fill_(stated / math.sqrt(network.factor[0].numel()))
        noise = network.noise
        noise.log_white.fill_(0.0)
        for other in (noise.log_white_gain, noise.log_correlated, noise.log_correlated_gain, noise.log_offset):
            other.fill_(math.log(1e-6))
    return network.eval()


def frames(count: int = 24, size: int = 64) -> tuple[Frames, np.ndarray]:
    """Of a wavy image under white noise of variance 1, half of them held out; and the clean image."""
    y, x = np.mgrid[:size, :size]
    clean = (2 * np.sin(y / 3) * np.cos(x / 5)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(size=(count, 1, size, size)).astype(np.float32)
    split = Frames.split([noisy], 0.5, 0)
    return Frames(split.arrays, Statistics((0.0,), (1.0,), 0.0), split.train, split.validation), clean


@pytest.mark.parametrize("stated", [0.4, 0.5, 1.2])
def test_the_factor_is_the_one_that_the_truth_would_give(stated):
    network, (seen, clean) = model(stated), frames()
    (factor,) = calibration.spread(network, seen)
    with torch.no_grad():
        mean, std = network.estimate(torch.from_numpy(np.stack([seen.arrays[a][i] for a, i in seen.validation])))
    truth = float((mean - torch.from_numpy(clean)).square().mean().sqrt() / std.square().mean().sqrt())
    assert factor == pytest.approx(truth, rel=0.04)
    assert abs(math.log(factor)) > 0.1  # there was something to find


def test_missing_and_saturated_pixels_do_not_count():
    network, (seen, _) = model(0.7), frames()
    (factor,) = calibration.spread(network, seen)
    spoiled = np.array(seen.arrays[0])
    spoiled[:, :, 10, 20] = 1e6
    left_out = Frames.split([spoiled], 0.5, 0)
    left_out = Frames([spoiled], seen.statistics, seen.train, seen.validation, left_out.outliers)
    assert calibration.spread(network, left_out) == pytest.approx([factor], rel=0.02)


def test_strong_noise_leaves_little_to_say_about_a_small_error(monkeypatch):
    """Else a noise variance a little too high would make a poor model sure of itself."""
    network, (seen, clean) = model(0.1), frames()
    with torch.no_grad():
        network.noise.log_white.fill_(math.log(1.05))
    nearly = torch.from_numpy(clean) + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(network, "estimate", lambda x: (nearly.expand_as(x), torch.full_like(x, 0.1)))
    (factor,) = calibration.spread(network, seen)
    assert factor == pytest.approx(1, abs=0.1)
    monkeypatch.setattr(calibration, "WRONG", 0.0)
    assert calibration.spread(network, seen) == (1 / calibration.LARGEST,)


def test_too_little_held_out_gives_no_factor():
    assert calibration.spread(model(0.7), frames(6)[0]) == ()
