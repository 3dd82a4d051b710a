"""The noise measured across the rows: right by brightness, of either sign, and honest about structure."""

import numpy as np
import pytest
from scipy import ndimage

from cosdd import noisefloor


def smooth(rng, count=8, edge=192, sigma=4.0):
    """Images (count, 1, edge, edge) finer than their optics, between about 0 and 200."""
    field = ndimage.gaussian_filter(rng.normal(size=(count, 1, edge, edge)), (0, 0, sigma, sigma), mode="wrap")
    return 100 + 40 * field / field.std()


def moving_average(rng, shape, weight):
    """Noise of unit variance whose neighbours along the row share `weight / (1 + weight**2)`."""
    white = rng.normal(size=(*shape[:-1], shape[-1] + 1))
    return (white[..., 1:] + weight * white[..., :-1]) / np.sqrt(1 + weight**2)


@pytest.mark.parametrize("weight", [0.6, -0.4, 0.0])
def test_variance_gain_and_correlation_of_either_sign(weight):
    rng = np.random.default_rng(0)
    clean = smooth(rng)
    variance = np.clip(50 + 4 * clean, 1, None)
    floor = noisefloor.measure(list(clean + np.sqrt(variance) * moving_average(rng, clean.shape, weight)), -1)
    assert floor is not None
    signal, measured = floor.signal[0], floor.covariance[0]
    np.testing.assert_allclose(measured[:, 0], 50 + 4 * signal, rtol=0.06)
    assert np.polyfit(signal, measured[:, 0], 1)[0] == pytest.approx(4, rel=0.08)
    correlation = (measured / measured[:, :1]).mean(0)
    assert correlation[1] == pytest.approx(weight / (1 + weight**2), abs=0.02)
    assert np.abs(correlation[2:]).max() < 0.03
    assert floor.structure.max() < 0.08


def test_columns_and_depth_are_rows_turned():
    rng = np.random.default_rng(1)
    noisy = smooth(rng, count=2, edge=48) + 10 * moving_average(rng, (2, 1, 48, 48), 0.6)
    rows, columns = noisefloor.measure(list(noisy), -1), noisefloor.measure(list(noisy.swapaxes(-1, -2)), -2)
    assert rows is not None
    assert columns is not None
    np.testing.assert_allclose(rows.covariance, columns.covariance, rtol=1e-5)
    volume = smooth(rng, count=3, edge=48)[None, :, 0] + 10 * moving_average(rng, (1, 3, 48, 48), 0.6)
    across, deep = noisefloor.measure([volume], -1), noisefloor.measure([np.moveaxis(volume, -1, -3)], -3)
    assert across is not None
    assert deep is not None
    np.testing.assert_allclose(across.covariance, deep.covariance, rtol=1e-5)


def test_row_offsets_show_at_every_lag():
    rng = np.random.default_rng(2)
    noisy = smooth(rng) + 5 * rng.normal(size=(8, 1, 192, 192)) + 5 * rng.normal(size=(8, 1, 192, 1))
    floor = noisefloor.measure(list(noisy), -1)
    assert floor is not None
    correlation = (floor.covariance / floor.covariance[..., :1])[0].mean(0)
    np.testing.assert_allclose(correlation[1:], 0.5, atol=0.06)


def test_fine_structure_is_taken_out_of_the_noise():
    """Spectrum of photographs through a lens: without the correction the variance would come out too high by half."""
    rng = np.random.default_rng(3)
    frequency = np.sqrt(np.fft.fftfreq(192)[:, None] ** 2 + np.fft.rfftfreq(192) ** 2)
    spectrum = np.fft.rfft2(rng.normal(size=(8, 1, 192, 192))) / np.maximum(frequency, 1 / 192) ** 1.2
    clean = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * 0.4 * frequency) ** 2))
    clean *= 50 / clean.std()
    fine = ndimage.correlate1d(clean, noisefloor._FINEST, axis=-2).var()
    noisy = clean + np.sqrt(2 * fine) * rng.normal(size=clean.shape)
    floor = noisefloor.measure(list(noisy), -1)
    assert floor is not None
    assert floor.covariance[0, :, 0].mean() == pytest.approx(2 * fine, rel=0.25)
    assert 0.2 < floor.structure.mean() < noisefloor.GUESS


def test_noise_is_measured_where_the_image_is_flat():
    """A photograph: most of its finest scale is texture, but not everywhere. Texture is correlated along the rows."""
    rng = np.random.default_rng(8)
    clean = smooth(rng, sigma=6.0)
    texture = ndimage.gaussian_filter(rng.normal(size=clean.shape), (0, 0, 0.9, 2))
    clean += 20 * texture / texture.std() * (np.arange(192) >= 96)[:, None]
    floor = noisefloor.measure(list(clean + 5 * moving_average(rng, clean.shape, 0.2)), -1)
    assert floor is not None
    covariance = floor.covariance[0].mean(0)
    assert covariance[0] == pytest.approx(25, rel=0.1)
    assert covariance[1] / covariance[0] == pytest.approx(0.2 / 1.04, abs=0.03)
    assert np.abs(covariance[2:6] / covariance[0]).max() < 0.03
    assert floor.structure.mean() < 0.2


def test_where_nothing_varies_is_left_out():
    """Padding and masks have no noise, and would be the flattest of all."""
    rng = np.random.default_rng(9)
    noisy = smooth(rng) + 5 * rng.normal(size=(8, 1, 192, 192))
    noisy[:, :, :, :120] = 0
    floor = noisefloor.measure(list(noisy), -1)
    assert floor is not None
    variance = floor.covariance[0, :, 0]
    assert np.median(variance) == pytest.approx(25, rel=0.05)
    assert (np.abs(variance - 25) < 5).mean() > 0.8  # its rim is what is left


def test_texture_alone_is_called_structure():
    rng = np.random.default_rng(4)
    clean = smooth(rng, sigma=0.8)
    floor = noisefloor.measure(list(clean), -1)
    assert floor is not None
    assert floor.structure.mean() > noisefloor.GUESS


def test_too_few_lines_give_nothing():
    assert noisefloor.measure([np.zeros((1, 12, 100), np.float32)], -1) is None
    assert noisefloor.measure([np.zeros((1, 13, 100), np.float32)], -1) is not None


def test_no_lag_is_longer_than_the_rows():
    rng = np.random.default_rng(6)
    floor = noisefloor.measure(list(rng.normal(size=(4, 1, 96, 12))), -1)
    assert floor is not None
    assert floor.covariance.shape[-1] == 12


def test_lines_that_share_noise_show_as_negative_structure():
    """Where the coarser difference holds less than the finest, lines are not independent, and the weight says so."""
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(4, 1, 97, 96))
    floor = noisefloor.measure(list(noise[:, :, 1:] - 0.6 * noise[:, :, :-1]), -1)
    assert floor is not None
    assert (floor.structure < -0.1).all()


def test_channels_are_measured_apart():
    rng = np.random.default_rng(5)
    clean = smooth(rng, count=4, edge=96)[:, 0]
    noisy = np.stack([clean + 3 * rng.normal(size=clean.shape), clean + 9 * rng.normal(size=clean.shape)], 1)
    floor = noisefloor.measure(list(noisy), -1)
    assert floor is not None
    np.testing.assert_allclose(floor.covariance[..., 0].mean(-1), [9, 81], rtol=0.1)
