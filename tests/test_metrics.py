"""Every metric against a value worked out by hand."""

import numpy as np
import pytest

from cosdd import metrics
from cosdd.errors import InputError


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# -------------------------------------------------------------------------------------------------- psnr


def test_psnr_by_hand_in_each_convention():
    reference = np.array([[0.0, 0.5], [0.25, 0.25]])
    image = reference + 0.05
    assert metrics.psnr(image, reference, 1.0) == pytest.approx(20 * np.log10(1 / 0.05))
    assert metrics.psnr(image, reference, "unit") == metrics.psnr(image, reference, 1.0)
    assert metrics.psnr(image, reference, "reference") == pytest.approx(20 * np.log10(0.5 / 0.05))
    assert metrics.psnr(255 * image, 255 * reference, 255) == pytest.approx(20 * np.log10(1 / 0.05))


def test_psnr_of_a_stack_is_the_mean_of_its_images_each_with_its_own_range():
    reference = np.stack([np.eye(4), 10 * np.eye(4)])
    image = reference + np.array([0.1, 0.1])[:, None, None]
    assert metrics.psnr(image, reference, "reference") == pytest.approx((20 + 40) / 2)
    assert metrics.psnr(image[:1, None], reference[:1, None], "reference") == pytest.approx(20)


def test_psnr_of_unsigned_integers_does_not_wrap_around():
    assert metrics.psnr(np.full((2, 2), 1, np.uint8), np.full((2, 2), 3, np.uint8), 20) == pytest.approx(20)


def test_psnr_of_equal_images_is_infinite():
    assert metrics.psnr(np.eye(3), np.eye(3), 1.0) == np.inf


@pytest.mark.parametrize("data_range", ["max", 0, -1.0, float("nan"), "reference"])
def test_psnr_refuses_a_range_that_means_nothing(data_range):
    with pytest.raises(InputError, match="range"):
        metrics.psnr(np.zeros((3, 3)), np.ones((3, 3)), data_range)


def test_shapes_must_agree():
    for metric in (metrics.psnr, metrics.ssim, metrics.scale_invariant_psnr):
        with pytest.raises(InputError, match="shape"):
            metric(np.zeros((2, 16, 16)), np.zeros((16, 16)), 1.0)
    with pytest.raises(InputError, match="shape"):
        metrics.affine_mse(np.zeros((2, 16, 16)), np.zeros((16, 16)))


# ------------------------------------------------------------------------------------------------ affine


def test_affine_fit_by_hand():
    scale, offset = metrics.affine_fit(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 8.0]))
    assert (scale, offset) == pytest.approx((3.5, 0.5))
    assert metrics.affine_fit(np.ones(3), np.array([1.0, 3.0, 8.0])) == pytest.approx((0.0, 4.0))


def test_affine_mse_forgets_gain_and_offset_of_every_image():
    reference = draw(3, 8, 8)
    image = reference * np.array([2, -1, 0.1])[:, None, None] + np.array([5, 0, -3])[:, None, None]
    assert metrics.affine_mse(image, reference) == pytest.approx(0, abs=1e-20)
    assert metrics.affine_mse(np.zeros_like(image), reference) == pytest.approx(
        reference.var((1, 2)).mean()
    )  # a constant explains nothing


def test_affine_mse_is_the_unexplained_variance():
    reference = draw(40, 50)
    image = reference + 0.5 * draw(40, 50, seed=1)
    r = np.corrcoef(image.ravel(), reference.ravel())[0, 1]
    assert metrics.affine_mse(image, reference) == pytest.approx(reference.var() * (1 - r**2))


def test_scale_invariant_psnr_maps_first_and_takes_the_range_of_the_reference():
    reference, image = draw(2, 20, 20), draw(2, 20, 20, seed=1)
    image += reference
    expected = np.mean(
        [10 * np.log10(np.ptp(r) ** 2 / metrics.affine_mse(i, r)) for i, r in zip(image, reference, strict=True)]
    )
    assert metrics.scale_invariant_psnr(image, reference) == pytest.approx(expected)
    assert metrics.scale_invariant_psnr(7 * image - 2, reference) == pytest.approx(expected)


# -------------------------------------------------------------------------------------------------- ssim


def test_ssim_of_equal_images_is_one():
    image = draw(2, 16, 20)
    assert metrics.ssim(image, image, "reference") == pytest.approx(1)


def test_ssim_of_constant_images_is_the_luminance_term():
    dark, bright = np.full((12, 12), 0.2), np.full((12, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(dark, bright, 1.0) == pytest.approx(expected)


def test_ssim_of_an_image_the_size_of_the_window_by_hand():
    image, reference = draw(11, 11), draw(11, 11, seed=1)
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    mi, mr = (window * image).sum(), (window * reference).sum()
    vi, vr = (window * (image - mi) ** 2).sum(), (window * (reference - mr) ** 2).sum()
    covariance = (window * (image - mi) * (reference - mr)).sum()
    c1, c2 = (0.01 * 3) ** 2, (0.03 * 3) ** 2
    expected = (2 * mi * mr + c1) * (2 * covariance + c2) / ((mi**2 + mr**2 + c1) * (vi + vr + c2))
    assert metrics.ssim(image, reference, 3.0) == pytest.approx(expected)


def test_ssim_of_a_stack_is_the_mean_of_its_images():
    image, reference = draw(3, 16, 16), draw(3, 16, 16, seed=1)
    each = [metrics.ssim(i, r, "reference") for i, r in zip(image, reference, strict=True)]
    assert metrics.ssim(image, reference, "reference") == pytest.approx(np.mean(each))


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(InputError, match="11"):
        metrics.ssim(np.zeros((10, 30)), np.zeros((10, 30)), 1.0)


# ----------------------------------------------------------------------------------------- best Gaussian


def wave(period):
    """A stack of two images whose only frequency is 1 / period, so the best filter is known."""
    x = np.arange(240)
    return np.broadcast_to(np.cos(2 * np.pi * (x + 0.5) / period), (2, 240, 240)).astype(np.float32)


def test_best_gaussian_finds_the_minimum_of_the_error():
    # White noise of variance v after a filter of width s keeps v / (4 pi s^2); a wave loses the part
    # 1 - exp(-(2 pi s / period)^2 / 2) of its height. The sum of the two errors has its minimum at:
    clean, v = wave(40), 1.0
    s = np.linspace(0.5, 6, 5501)
    error = v / (4 * np.pi * s**2) + 0.5 * (1 - np.exp(-((2 * np.pi * s / 40) ** 2) / 2)) ** 2
    noisy = clean + draw(*clean.shape).astype(np.float32)
    filtered, sigma = metrics.best_gaussian(noisy, clean)
    assert sigma == pytest.approx(s[error.argmin()], rel=0.05)
    assert np.mean((filtered - clean) ** 2) == pytest.approx(error.min(), rel=0.1)
    assert filtered.shape == noisy.shape
    assert filtered.dtype == np.float32


def test_best_gaussian_filters_each_image_by_itself():
    clean = np.stack([np.zeros((32, 32)), np.ones((32, 32))])
    filtered, sigma = metrics.best_gaussian(clean + 0.01 * draw(2, 32, 32), clean, max_sigma=4)
    assert sigma > 2
    np.testing.assert_allclose(filtered, clean, atol=0.02)  # nothing leaks from one to the other


def test_best_gaussian_leaves_a_clean_image_alone():
    clean = draw(2, 32, 32).astype(np.float32)
    filtered, sigma = metrics.best_gaussian(clean, clean)
    assert sigma == 0
    np.testing.assert_array_equal(filtered, clean)


def test_best_gaussian_by_a_score_of_ones_own():
    clean = wave(40)[:, :96, :120]
    noisy = clean + draw(*clean.shape).astype(np.float32)
    mse_sigma = metrics.best_gaussian(noisy, clean)[1]
    # The same truth with another gain and offset: only a score that forgets them finds a good filter.
    other = 300 * clean + 1000
    filtered, sigma = metrics.best_gaussian_by(noisy, lambda image: metrics.affine_mse(image, other))
    # A free gain undoes the loss of height, so the best filter is wider.
    assert mse_sigma < sigma < 8
    assert metrics.affine_mse(filtered, other) < metrics.affine_mse(noisy, other) / 10


# --------------------------------------------------------------------------------------- autocorrelation


def test_autocorrelation_by_hand():
    residual = np.array([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    # Row 0: lag 1 gives -1 -1 -1; row 1: 1 -1 1. Six pairs, sum -2. Lag 2: (1 + 1) + (-1 - 1) = 0.
    np.testing.assert_allclose(metrics.autocorrelation(residual, 2, "x"), [1, -1 / 3, 0])
    # Columns: 1*1, -1*1, 1*-1, -1*-1.
    np.testing.assert_allclose(metrics.autocorrelation(residual, 1, "y"), [1, 0])


def test_autocorrelation_ignores_gain_and_offset_and_sees_the_offset_of_a_line():
    residual = draw(2, 40, 50)
    np.testing.assert_allclose(
        metrics.autocorrelation(5 * residual + 100, 4), metrics.autocorrelation(residual, 4), atol=1e-9
    )
    offsets = np.broadcast_to(draw(2, 40, 1), (2, 40, 50))
    np.testing.assert_allclose(metrics.autocorrelation(offsets, 3), 1)


def test_autocorrelation_does_not_join_the_images_of_a_stack():
    stack = np.stack([np.ones((4, 4)), -np.ones((4, 4))])
    np.testing.assert_allclose(metrics.autocorrelation(stack, 2, "y"), 1)
    np.testing.assert_allclose(metrics.autocorrelation(stack, 1, "z"), [1, -1])


@pytest.mark.parametrize(
    ("residual", "max_lag", "axis"),
    [
        (draw(4, 5), 5, "x"),
        (draw(4, 5), -1, "x"),
        (draw(4, 5), 1, "z"),
        (draw(4, 5), 1, "rows"),
        (np.ones((4, 5)), 1, "x"),
    ],
)
def test_autocorrelation_refuses_what_it_cannot_measure(residual, max_lag, axis):
    with pytest.raises(InputError):
        metrics.autocorrelation(residual, max_lag, axis)
