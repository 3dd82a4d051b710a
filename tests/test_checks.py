"""The lights turn red for what is wrong, and stay green for what is right."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cosdd import checkpoint, checks, likeness, metrics, simulate
from cosdd.data import measure
from cosdd.specimen import specimen

CLEAN = specimen(8, 128, 3)
NOISY = simulate.heavy(CLEAN, np.random.default_rng(0))


def examined(denoised, noisy=NOISY, axis="x", std=None, trained_on=None):
    noisy = noisy[:, None]
    spread = None if std is None else std[:, None]
    statistics = trained_on or measure([noisy])
    return checks.examine(noisy, denoised[:, None], spread, axis, statistics)


def light(found, word):
    return next(check for check in found.answers if word in check.question).light


def test_the_truth_is_green_in_every_point():
    found = examined(CLEAN)
    assert checks.worst(found.answers) == "green", found.answers
    true_noise = NOISY - CLEAN
    lag_one = (true_noise[..., 1:] * true_noise[..., :-1]).mean() / true_noise.var()
    assert found.along[1] == pytest.approx(lag_one, abs=0.01)
    assert found.across[1] == pytest.approx(0, abs=0.02)


def test_an_image_that_kept_its_noise_is_caught():
    assert light(examined(0.7 * NOISY + 0.3 * CLEAN), "noise gone") == "red"


def test_what_is_unsure_counts_as_noise_that_was_understood():
    """A posterior mean takes away less than the noise, by the variance that it states."""
    keep = 0.3
    denoised = CLEAN + keep * (NOISY - CLEAN)
    noise = NOISY - CLEAN
    std = np.sqrt(1 - (1 - keep) ** 2) * ndimage.gaussian_filter(np.abs(noise), (0, 5, 5)) * np.sqrt(np.pi / 2)
    shares = [examined(denoised, std=given).answers[0].figure for given in (None, std)]
    assert shares[0] < 0.6
    assert shares[1] == pytest.approx(1, abs=0.1)


def test_an_oversmoothed_image_is_caught():
    assert light(examined(ndimage.gaussian_filter(CLEAN, (0, 4, 4))), "structure") == "red"


def test_shifted_brightness_is_caught():
    assert light(examined(CLEAN), "brightness") == "green"
    assert light(examined(0.8 * CLEAN), "brightness") == "red"
    assert light(examined(CLEAN + 0.15 * NOISY.std()), "brightness") != "green"


def test_noise_along_columns_is_examined_along_columns():
    columns = examined(CLEAN.swapaxes(1, 2), NOISY.swapaxes(1, 2), "y")
    np.testing.assert_allclose(columns.along, examined(CLEAN).along)
    assert checks.worst(columns.answers) == "green"
    assert light(examined(CLEAN.swapaxes(1, 2), NOISY.swapaxes(1, 2), "x"), "structure") == "red"


def test_the_wrong_axis_is_named():
    from cosdd.images import from_array

    noisy = simulate.heavy(np.repeat(CLEAN[:1], 8, 0), np.random.default_rng(1))
    inspected = checks.inspected(from_array(noisy, "TYX"))
    found = checks.examine(noisy[:, None], noisy[:, None] * 0.9, None, "y", measure([noisy[:, None]]), inspected)
    assert light(found, "axis") == "red"
    assert "--noise-axis x" in found.answers[-1].answer


def test_white_noise_is_said_where_the_model_has_an_axis():
    from cosdd.images import from_array

    noisy = np.repeat(CLEAN[:1], 8, 0) + np.random.default_rng(2).normal(0, 0.2, (8, 128, 128))
    inspected = checks.inspected(from_array(noisy, "TYX"))
    lights = []
    for axis in ("x", "none"):
        found = checks.examine(noisy[:, None], noisy[:, None] * 0.9, None, axis, measure([noisy[:, None]]), inspected)
        lights.append(light(found, "axis"))
    assert lights == ["yellow", "green"]


def test_the_gain_is_estimated_from_measured_noise_and_stated_uncertainty():
    noise = NOISY - CLEAN
    std = np.full_like(CLEAN, noise.std() / 10)
    assert examined(CLEAN, std=std).gain == pytest.approx(20, abs=0.5)
    assert examined(CLEAN).gain is None


def test_the_error_of_the_best_blur_is_known_without_the_clean_image():
    blurred, _ = metrics.best_gaussian(NOISY, CLEAN)
    error = float(np.sqrt(np.mean((blurred - CLEAN) ** 2)))
    for times, expected in ((0.5, "green"), (1.1, "yellow"), (1.5, "red")):
        found = examined(CLEAN, std=np.full_like(CLEAN, times * error))
        (check,) = (check for check in found.answers if "blur" in check.question)
        assert check.figure == pytest.approx(-20 * np.log10(times), abs=0.9)
        assert check.light == expected, check
    assert light(examined(CLEAN), "blur") == "grey"  # nothing is stated


def test_what_a_barely_trained_model_states_is_not_believed():
    noisy, std = NOISY[:, None], np.full_like(CLEAN, 1e-3)[:, None]
    for steps, expected in ((checkpoint.FEW_STEPS - 1, "yellow"), (checkpoint.FEW_STEPS, "green")):
        assert light(checks.examine(noisy, CLEAN[:, None], std, "x", measure([noisy]), steps=steps), "blur") == expected


@pytest.mark.parametrize(("strength", "frames"), [(3.0, 1), (10.0, 8), (30.0, 8)])
def test_where_noise_hides_the_error_of_a_blur_nothing_is_said_against_a_good_result(strength, frames):
    """Few spots on an even ground: their noise is many times stronger than any error."""
    rng = np.random.default_rng(5)
    points = np.zeros((frames, 128, 128))
    points[:, rng.integers(8, 120, 6), rng.integers(8, 120, 6)] = 1
    clean = ndimage.gaussian_filter(points, (0, 2, 2))
    clean = 100 + 10 * clean / clean.max()
    noisy = clean + rng.normal(0, strength, clean.shape)
    blurred, _ = metrics.best_gaussian(noisy, clean)
    error = float(np.sqrt(np.mean((blurred - clean) ** 2))) / 2**0.5  # 3 dB better
    found = examined(clean, noisy, std=np.full_like(clean, error))
    assert not [check for check in found.answers if "blur" in check.question and check.light in ("yellow", "red")]


@pytest.mark.parametrize(("steps", "expected"), [(checkpoint.FEW_STEPS - 1, "yellow"), (checkpoint.FEW_STEPS, "green")])
def test_a_model_that_is_barely_trained_is_named(steps, expected):
    noisy = NOISY[:, None]
    found = checks.examine(noisy, CLEAN[:, None], None, "x", measure([noisy]), steps=steps)
    assert light(found, "trained") == expected


def test_images_unlike_the_training_images_are_named():
    other = measure([NOISY[:, None] * 10 + 50])
    assert light(examined(CLEAN, trained_on=other), "made for") == "red"


def test_few_rows_are_no_evidence_but_no_fault():
    found = examined(CLEAN[:, :8], NOISY[:, :8])
    assert light(found, "noise gone") == "yellow"
    assert np.isfinite(found.across).all()


def test_the_worst_channel_speaks():
    noisy = np.stack([NOISY, NOISY], 1)
    denoised = np.stack([CLEAN, 0.7 * NOISY + 0.3 * CLEAN], 1)
    found = checks.examine(noisy, denoised, None, "x", measure([noisy]))
    assert light(found, "noise gone") == "red"


def test_the_page_on_the_report_names_the_limits_in_use():
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| ")]
    limits = {row[1]: (row[3], row[4]) for row in rows}
    assert limits["Is the noise gone?"] == (f"a factor {checks.REMOVED[0]} either way", f"{checks.REMOVED[1]}")
    assert limits["Is the structure intact?"] == tuple(f"{limit:.2f}".lstrip("0") for limit in checks.STRUCTURE)
    assert limits["Is the brightness kept?"] == tuple(f"{limit:g}".lstrip("0") for limit in checks.BIAS)
    assert limits["Is it better than a blur?"] == (
        f"{-checks.BLUR[0]} dB better".lstrip("0"),
        f"{checks.BLUR[1]:g} dB worse",
    )
    assert limits["Was it trained?"][0] == f"fewer than {checkpoint.FEW_STEPS} updates"
    yellow, red = limits["Was the model made for this image?"]
    assert yellow == f"{likeness.OTHER_MEAN[0]:g} standard deviations, a factor {likeness.OTHER_SPREAD[0]:g}".lstrip(
        "0"
    )
    assert red == f"{likeness.OTHER_MEAN[1]:g}, {likeness.OTHER_SPREAD[1]:g}"
