"""The noise of a row: found as measured, straight where sensors are, bent or a wave where they are not."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cosdd import noisefloor
from cosdd.model.rownoise import RowNoise
from cosdd.noisefloor import NoiseFloor


def clean(rng, count=12, edges=(128, 128)):
    """Smooth images (count, 1, *edges) of mean 0 and unit variance."""
    field = ndimage.gaussian_filter(rng.normal(size=(count, 1, *edges)), (0, 0, 5, 5), mode="wrap")
    return field / field.std()


def started(images) -> RowNoise:
    floor = noisefloor.measure(list(images.astype(np.float32)), -1)
    assert floor is not None
    noise = RowNoise(images.shape[1])
    noise.start_at(floor)
    return noise


def wave(rng, shape, period):
    """Of unit variance, with a phase of its own in every row."""
    phase = rng.uniform(0, 2 * np.pi, (*shape[:-1], 1))
    return np.sqrt(2) * np.cos(2 * np.pi * np.arange(shape[-1]) / period + phase)


@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_noise_of_a_sensor_stays_a_straight_line_however_weak(strength):
    rng = np.random.default_rng(0)
    signal = clean(rng)
    variance = strength * (0.2 + 0.05 * signal)
    noise = started(signal + np.sqrt(variance.clip(0)) * rng.normal(size=signal.shape))
    found = noise.described()
    assert found["variance"][0] == pytest.approx(0.2 * strength, rel=0.05)
    assert found["gain"][0] == pytest.approx(0.05 * strength, rel=0.1)
    assert found["bent"].size == 0
    assert found["wave"][0] == 0
    assert not any(p.requires_grad for p in (noise.bend, noise.log_wave, noise.pitch))


def test_noise_that_fades_with_the_light_and_a_wave_along_the_row():
    """Both ends of the checkerboard of the paper: neither fits into straight lines and a short kernel."""
    rng = np.random.default_rng(1)
    signal = clean(rng, 12, (400, 64))  # a row tells of the wave only once, so there have to be many
    white = 0.1 * np.exp(-0.8 * signal)
    noisy = signal + np.sqrt(white) * rng.normal(size=signal.shape) + 0.4 * wave(rng, signal.shape, 4)
    noise = started(noisy)
    found = noise.described()
    assert found["wave"][0] == pytest.approx(0.16, rel=0.05)
    assert found["period"][0] == pytest.approx(4, abs=0.01)
    at = torch.tensor([[-1.0, 0.0, 1.0]])
    expected = 0.1 * torch.exp(-0.8 * at) + 0.16
    torch.testing.assert_close(noise.at(at, 1)[..., 0], expected, rtol=0.08, atol=0)
    lags = noise.at(torch.zeros(1, 1), 9)[0, 0].detach().numpy()
    np.testing.assert_allclose(lags[2::2] / lags[0], 0.16 / 0.26 * np.array([-1, 1, -1, 1]), atol=0.03)
    assert np.abs(lags[1::2] / lags[0]).max() < 0.03
    assert noise.bend.requires_grad
    assert noise.log_wave.requires_grad


def test_a_long_correlation_is_no_wave():
    rng = np.random.default_rng(2)
    signal = clean(rng)
    streaks = ndimage.gaussian_filter1d(rng.normal(size=signal.shape), 6, axis=-1)
    noise = started(signal + 0.3 * rng.normal(size=signal.shape) + streaks)
    assert noise.wave().max() == 0


def test_one_channel_may_have_a_wave_and_another_none():
    rng = np.random.default_rng(3)
    signal = np.concatenate([clean(rng, 6), clean(rng, 6)], 1)
    noisy = signal + 0.3 * rng.normal(size=signal.shape)
    noisy[:, 1] += 0.2 * wave(rng, signal[:, 1].shape, 5.5)
    found = started(noisy).described()
    assert found["wave"][0] == 0
    assert found["wave"][1] == pytest.approx(0.04, rel=0.1)
    assert found["period"].tolist() == [0, pytest.approx(5.5, abs=0.05)]


@pytest.mark.parametrize("turn", [math.pi, math.pi / 2, 0.45])
def test_a_wave_is_taken_out_of_rows_and_the_image_is_left(turn):
    noise = RowNoise(2)
    slow = torch.sin(torch.arange(160.0) / 25).expand(3, 2, 4, 160)
    assert noise.without_wave(slow) is slow
    noise.frequency[1] = turn
    phases = torch.linspace(0, 6, 4)[:, None] if turn < 3 else torch.zeros(4, 1)
    x = slow + 2 * torch.cos(turn * torch.arange(160) + phases)
    with torch.autocast("cpu", torch.bfloat16):
        left = noise.without_wave(x)
    torch.testing.assert_close(left[:, 0], x[:, 0])
    assert (left - slow)[:, 1, :, 40:-40].abs().max() < 0.02
    assert (left - slow)[:, 1].abs().max() < 0.35  # near the ends there is less to tell it by


@torch.no_grad()
def test_a_factor_for_each_brightness_between_and_beyond_the_knots():
    noise = RowNoise(1)
    straight = noise.white(torch.tensor([[[-3.0, 0.0, 5.0]]]))
    noise.bend[0, 0, 0], noise.bend[0, 0, -1] = math.log(2), math.log(3)
    bent = noise.white(torch.tensor([[[-3.0, 0.0, 5.0]]]))
    torch.testing.assert_close(bent / straight, torch.tensor([[[2.0, 1.0, 3.0]]]))
    half_way = noise.knots[0, :2].mean().view(1, 1, 1)
    expected = RowNoise(1).white(half_way) * 2**0.5
    torch.testing.assert_close(noise.white(half_way), expected)


def test_noise_of_the_darkest_pixels_where_it_is_strongest():
    """The checkerboard of the paper: variance as one over the signal."""
    rng = np.random.default_rng(4)
    grey = np.exp(0.7 * clean(rng))
    mean, spread = grey.mean(), grey.std()
    noise = started((grey - mean) / spread + np.sqrt(0.05 / grey) * rng.normal(size=grey.shape))
    dark = np.quantile(grey, 0.02)
    found = noise.at(torch.tensor([[(dark - mean) / spread]], dtype=torch.float32), 1).item()
    assert found == pytest.approx(0.05 / dark, rel=0.2)
    below = (np.quantile(grey, 0.005) - mean) / spread
    assert noise.knots[0, 0] < below  # so that training can tell what is darker still


def test_brightnesses_that_are_one_are_no_trouble():
    covariance = np.full((1, 16, 32), 0.1) * (np.arange(32) == 0)
    floor = NoiseFloor(np.zeros((1, 16)), covariance, np.zeros((1, 16)), np.zeros((1, 8)))
    noise = RowNoise(1)
    noise.start_at(floor)
    assert noise.at(torch.zeros(1, 1), 1).item() == pytest.approx(0.1, rel=0.05)


def test_regions_without_noise_do_not_harm_the_anchor():
    """Padding, masks and clipped background: brightnesses whose measured variance is nothing."""
    torch.manual_seed(0)
    images = torch.randn(4, 1, 64, 96)
    images[..., :40] = -1.0
    floor = noisefloor.measure(list(images.numpy()), -1)
    assert floor is not None
    floor.covariance[:, :4] = 0  # a mask that is not quite even
    noise = RowNoise(1)
    noise.start_at(floor)
    assert all(torch.isfinite(parameter).all() for parameter in noise.parameters())
    variance = noise.covariance(torch.zeros(1, 1, 4)).diagonal(dim1=-2, dim2=-1).mean().item()
    assert variance == pytest.approx(1, rel=0.25)


def test_a_search_that_goes_astray_leaves_the_best_that_it_saw(monkeypatch):
    """A few small noisy frames with one bad byte were enough for steps that no number can hold."""
    rng = np.random.default_rng(0)
    noise = started(clean(rng) + 0.5 * rng.normal(size=(12, 1, 128, 128)))
    good, why = float(noise.mismatch().detach()), "value cannot be converted to type float without overflow"

    def astray(self, closure):
        closure()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.fill_(80.0)
        closure()
        raise RuntimeError(why)

    monkeypatch.setattr(torch.optim.LBFGS, "step", astray)
    noise._approach()
    assert float(noise.mismatch().detach()) == good
    why = "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        noise._approach()


@pytest.mark.parametrize("axis", [-1, -2])
def test_noise_is_drawn_along_an_axis_of_images(axis):
    noise = RowNoise(2)
    with torch.no_grad():
        noise.log_correlated.copy_(torch.tensor([0.0, 1.0]).view_as(noise.log_correlated))
    drawn = noise.draw_along(axis, torch.zeros(3, 2, 200, 220), torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 2, 200, 220)
    lines, across = drawn.movedim(axis, -1), drawn.movedim(-3 - axis, -1)
    expected = noise.at(torch.zeros(2, 1), 2)[:, 0]  # (c, lags)
    for channel in range(2):
        variance, shared = expected[channel].tolist()
        found = lines[:, channel]
        assert float(found.var()) == pytest.approx(variance, rel=0.05)
        assert float((found[..., 1:] * found[..., :-1]).mean()) == pytest.approx(shared, rel=0.1)
        found = across[:, channel]
        assert abs(float((found[..., 1:] * found[..., :-1]).mean())) < 0.02 * variance
    torch.testing.assert_close(
        noise.draw_along(axis, torch.zeros(3, 2, 200, 220), torch.Generator().manual_seed(0)), drawn
    )
