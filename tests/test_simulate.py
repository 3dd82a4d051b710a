"""The recipes are measured: mean, variance against signal, correlation along and across the noise axis."""

import numpy as np
import pytest

from cosdd import simulate
from cosdd.errors import InputError
from cosdd.metrics import autocorrelation
from cosdd.specimen import specimen

FLAT = np.full((6, 256, 256), 0.4, np.float32)  # 393,216 pixels: correlations known to about 0.002
LAG = np.arange(5)


def noise_of(recipe, clean=FLAT, seed=0, **options):
    return recipe(clean, np.random.default_rng(seed), **options).astype(np.float64) - clean


# ---------------------------------------------------------------------------------------------- specimen


def test_specimen_is_a_picture_with_sharp_structure_and_range():
    images = specimen(6, 128, seed=3)
    assert images.shape == (6, 128, 128)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (np.ptp(images, axis=(-2, -1)) > 0.4).all()
    # Sharp: somewhere in every image neighbouring pixels differ by a good part of the range.
    assert (np.abs(np.diff(images, axis=-1)).max((-2, -1)) > 0.12).all()
    # Varied: no two images resemble each other.
    similarity = np.corrcoef(images.reshape(6, -1)) - np.eye(6)
    assert np.abs(similarity).max() < 0.5


def test_specimen_repeats_with_the_seed_and_does_not_depend_on_count():
    five = specimen(5, 48, seed=7)
    np.testing.assert_array_equal(five[:2], specimen(2, 48, seed=7))
    assert not np.array_equal(five, specimen(5, 48, seed=8))


@pytest.mark.parametrize("size", [16, 17, 200])
def test_specimen_of_any_size(size):
    assert specimen(1, size, seed=0).shape == (1, size, size)


@pytest.mark.parametrize(("count", "size", "seed"), [(0, 64, 0), (1, 8, 0), (1, 64, -1)])
def test_specimen_refuses_impossible_requests(count, size, seed):
    with pytest.raises(InputError):
        specimen(count, size, seed)


# ------------------------------------------------------------------------------------ all recipes together

RECIPES = [simulate.stripe, simulate.heavy, simulate.checkerboard, simulate.row_ar]


@pytest.mark.parametrize("recipe", RECIPES)
def test_same_seed_same_noise_and_the_input_is_left_alone(recipe):
    clean = specimen(2, 32, seed=0)
    before = clean.copy()
    one, two = (recipe(clean, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(clean, before)
    assert one.dtype == np.float32
    assert one.shape == clean.shape
    assert not np.array_equal(one, recipe(clean, np.random.default_rng(6)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_noise_has_mean_zero_also_where_the_image_is_dark_or_bright(recipe):
    ramp = np.broadcast_to(np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None], (8, 4, 128, 128))
    noise = noise_of(recipe, ramp)
    spread = noise.std((1, 2, 3))
    # Correlated pixels average out more slowly: no recipe's mean wanders by more than 4 / sqrt(N / 6).
    assert (np.abs(noise.mean((1, 2, 3))) < 4 * spread / np.sqrt(ramp[0].size / 6)).all()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_lines_are_independent_of_each_other(recipe, axis):
    many_lines = np.full((96, 64, 64), 0.4, np.float32)  # a checkerboard line counts once, however long
    across = autocorrelation(noise_of(recipe, many_lines, axis=axis), 3, "y" if axis == "x" else "x")
    np.testing.assert_allclose(across[1:], 0, atol=0.03)


@pytest.mark.parametrize("recipe", RECIPES)
def test_axis_y_is_axis_x_transposed(recipe):
    clean = specimen(2, 32, seed=1)
    upright = recipe(clean, np.random.default_rng(0), axis="y")
    lying = recipe(clean.swapaxes(-1, -2), np.random.default_rng(0), axis="x")
    np.testing.assert_array_equal(upright, lying.swapaxes(-1, -2))


@pytest.mark.parametrize("recipe", RECIPES)
def test_images_need_not_be_square_nor_stacked(recipe):
    assert recipe(np.full((9, 21), 0.5), np.random.default_rng(0)).shape == (9, 21)
    with pytest.raises(InputError, match="shape"):
        recipe(np.zeros(9), np.random.default_rng(0))


# ----------------------------------------------------------------------------------------- stripe, heavy


@pytest.mark.parametrize("s", [0.0, 0.1, 0.5, 1.0])
def test_stripe_variance_grows_with_the_signal_as_in_the_paper(s):
    noise = noise_of(simulate.stripe, np.full((4, 256, 256), s, np.float32))
    by_hand = 0.002 * s + 0.02**2 + 0.025**2 / (2 * np.sqrt(np.pi))
    assert noise.var() == pytest.approx(by_hand, rel=0.015)
    assert simulate.stripe_variance(s) == pytest.approx(by_hand, rel=1e-4)


def test_stripe_correlation_is_the_blurred_part_of_the_variance():
    blurred = 0.025**2 / (2 * np.sqrt(np.pi))
    expected = np.exp(-(LAG**2) / 4) * blurred / float(simulate.stripe_variance(0.4))
    expected[0] = 1
    np.testing.assert_allclose(autocorrelation(noise_of(simulate.stripe), 4), expected, atol=0.008)


@pytest.mark.parametrize("blur", [0.7, 1.0, 2.5])
def test_blurred_part_alone_has_gaussian_autocorrelation(blur):
    noise = noise_of(simulate.stripe, gain=0, read_std=0, white_std=1, blur=blur)
    expected = np.exp(-(LAG**2) / (4 * blur**2))
    np.testing.assert_allclose(autocorrelation(noise, 4), simulate.blur_autocorrelation(4, blur), atol=0.015)
    if blur >= 1:  # a narrower kernel is too coarsely sampled to follow the formula
        np.testing.assert_allclose(simulate.blur_autocorrelation(4, blur), expected, atol=1e-3)


def test_blurred_noise_is_the_same_at_the_border():
    noise = noise_of(simulate.stripe, gain=0, read_std=0, white_std=1, blur=2)
    variance = noise.var((0, 1))
    assert variance[[0, -1]].mean() == pytest.approx(variance.mean(), rel=0.1)


def test_no_blur_leaves_white_noise():
    noise = noise_of(simulate.stripe, gain=0, read_std=0, white_std=0.3, blur=0)
    np.testing.assert_allclose(autocorrelation(noise, 2), [1, 0, 0], atol=0.008)
    assert noise.std() == pytest.approx(0.3, rel=0.01)


def test_heavy_is_stripe_with_other_numbers():
    options = {"gain": 1 / 20, "read_std": 0, "white_std": 0.2}
    np.testing.assert_array_equal(noise_of(simulate.heavy), noise_of(simulate.stripe, **options))
    expected = 0.4 / 20 + 0.2**2 / (2 * np.sqrt(np.pi))
    assert noise_of(simulate.heavy).var() == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(
    ("clean", "options", "message"),
    [
        (-FLAT, {}, "0 or more"),
        (FLAT, {"gain": -1.0}, "gain"),
        (FLAT, {"white_std": float("nan")}, "white_std"),
        (FLAT, {"blur": -1.0}, "blur"),
        (FLAT, {"axis": "rows"}, "axis"),
        (FLAT * np.float32("nan"), {}, "NaN"),
    ],
)
def test_stripe_names_the_wrong_value(clean, options, message):
    with pytest.raises(InputError, match=message) as error:
        noise_of(simulate.stripe, clean, **options)
    assert "\n" not in str(error.value)


def test_without_poisson_noise_negative_intensities_are_fine():
    assert noise_of(simulate.stripe, -FLAT, gain=0).std() > 0


# ------------------------------------------------------------------------------------------ checkerboard


@pytest.mark.parametrize("s", [0.0, 0.02, 0.5, 1.0])
def test_checkerboard_variance_falls_with_the_signal(s):
    noise = noise_of(simulate.checkerboard, np.full((4, 128, 256), s, np.float32))
    by_hand = 0.15 / max(255 * s, 1) + 0.1**2
    assert noise.var() == pytest.approx(by_hand, rel=0.02)
    assert simulate.checkerboard_variance(s) == pytest.approx(by_hand)


def test_checkerboard_pattern_repeats_down_the_columns_with_two_and_two():
    pattern = noise_of(simulate.checkerboard, strength=0)
    np.testing.assert_allclose(autocorrelation(pattern, 4, "y"), [1, 0, -1, 0, 1], atol=0.02)
    np.testing.assert_allclose(np.abs(pattern), 0.1, atol=1e-6)
    # The paper: two earlier pixels predict the pattern.
    np.testing.assert_allclose(pattern[:, 2:], -pattern[:, :-2], atol=1e-6)
    assert not np.allclose(pattern[:, :, 0], pattern[:, :, 1:].mean(2))


def test_checkerboard_with_one_phase_per_image_repeats_across_columns():
    pattern = noise_of(simulate.checkerboard, np.zeros((40, 8, 8), np.float32), strength=0, phase="image")
    np.testing.assert_allclose(np.ptp(pattern, axis=2), 0, atol=1e-6)
    assert len(np.unique(np.sign(pattern[:, :4, 0]), axis=0)) == 4  # every start occurs


def test_checkerboard_other_readings():
    std = noise_of(simulate.checkerboard, reading="std", amplitude=0).std()
    assert std == pytest.approx(0.15 / (0.4 * 255), rel=0.01)
    unit = noise_of(simulate.checkerboard, levels=1, floor=0.1, amplitude=0).var()
    assert unit == pytest.approx(0.15 / 0.4, rel=0.01)
    dark = noise_of(simulate.checkerboard, 0 * FLAT, floor=10, amplitude=0).var()
    assert dark == pytest.approx(0.015, rel=0.01)


@pytest.mark.parametrize("options", [{"reading": "sd"}, {"phase": "row"}, {"floor": 0.0}])
def test_checkerboard_names_the_wrong_value(options):
    with pytest.raises(InputError, match=next(iter(options))):
        noise_of(simulate.checkerboard, **options)


# ------------------------------------------------------------------------------------------------ row_ar


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.85])
def test_row_ar_correlation_falls_geometrically_from_the_first_pixel_on(correlation):
    noise = noise_of(simulate.row_ar, gain=0, row_std=0.3, correlation=correlation)
    np.testing.assert_allclose(autocorrelation(noise, 4), correlation**LAG, atol=0.015)
    assert noise[..., 0].std() == pytest.approx(0.3, rel=0.06)
    assert noise.std() == pytest.approx(0.3, rel=0.015)


@pytest.mark.parametrize("shot_correlation", [-0.11, 0.0, 0.2])
def test_row_ar_shot_noise_keeps_its_variance_when_correlated(shot_correlation):
    options = {"gain": 0.05, "row_std": 0, "shot_correlation": shot_correlation}
    noise = noise_of(simulate.row_ar, **options)
    np.testing.assert_allclose(autocorrelation(noise, 2), shot_correlation ** np.arange(3), atol=0.008)
    for s in (0.0, 0.1, 0.9):
        variance = noise_of(simulate.row_ar, np.full((4, 128, 128), s, np.float32), **options).var()
        assert variance == pytest.approx(0.05 * s, rel=0.03)


def test_row_ar_offsets_are_one_per_line():
    noise = noise_of(simulate.row_ar, gain=0, row_std=0, offset_std=0.2)
    np.testing.assert_allclose(np.ptp(noise, axis=-1), 0, atol=1e-6)
    assert noise.std() == pytest.approx(0.2, rel=0.06)


def test_row_ar_variances_add_up():
    options = {"gain": 0.02, "row_std": 0.1, "offset_std": 0.05}
    expected = 0.02 * 0.4 + 0.1**2 + 0.05**2
    assert noise_of(simulate.row_ar, **options).var() == pytest.approx(expected, rel=0.02)
    assert simulate.row_ar_variance(0.4, **options) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"correlation": 1.0}, {"shot_correlation": -2.0}, {"offset_std": -1.0}])
def test_row_ar_names_the_wrong_value(options):
    with pytest.raises(InputError, match=next(iter(options))):
        noise_of(simulate.row_ar, **options)
