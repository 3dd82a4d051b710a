"""From noisy images alone: the right axis, the right numbers, and no alarm for white noise or structure."""

import functools
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cosdd import images, simulate
from cosdd.axes import Image
from cosdd.errors import InputError
from cosdd.inspection import Inspection, inspect_image, inspect_samples
from cosdd.specimen import specimen

DATA = Path(os.environ.get("COSDD_DATA", Path(__file__).parents[2] / "shared" / "data")) / "noisy"
SCENES = specimen(4, 192, seed=5)

# Noise of many kinds, strong to weak; the weakest has a correlated share of about 10 % of the variance.
RECIPES = {
    "stripe": (simulate.stripe, {}),
    "heavy": (simulate.heavy, {}),
    "row_ar positive": (simulate.row_ar, {"row_std": 0.03, "correlation": 0.8}),
    "row_ar negative": (simulate.row_ar, {"row_std": 0.04, "correlation": -0.6}),
    "shot negative": (simulate.row_ar, {"gain": 0.02, "shot_correlation": -0.15, "row_std": 0.0}),
    "checkerboard": (simulate.checkerboard, {}),
}


def one_frame(frame: np.ndarray) -> Inspection:
    return inspect_samples(frame[None, None])


def white(scene: np.ndarray, rng: np.random.Generator, std: float = 0.05) -> np.ndarray:
    return simulate.stripe(scene, rng, gain=0.01, read_std=std, white_std=0)


# ------------------------------------------------------------------------------------------------ simulated


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("kind", RECIPES)
def test_one_noisy_frame_of_a_structured_scene_tells_the_axis(kind, axis):
    recipe, options = RECIPES[kind]
    rng = np.random.default_rng(1)
    found = [one_frame(recipe(scene, rng, axis=axis, **options)).axis for scene in SCENES]
    assert found.count(axis) >= 3, found
    assert set(found) <= {axis, "none"}, found


def test_structure_in_white_noise_is_no_alarm():
    rng = np.random.default_rng(2)
    found = [one_frame(white(scene, rng, std)) for scene in SCENES for std in (0.01, 0.05, 0.2)]
    assert [f.axis for f in found] == ["none"] * 12
    assert all("white" in f.verdict for f in found)


def test_correlation_is_that_of_the_noise_and_not_of_the_scene():
    scene = specimen(1, 384, seed=1)[0]
    rng = np.random.default_rng(3)
    noisy = simulate.row_ar(scene, rng, gain=0, row_std=0.05, correlation=0.7)
    noisy += rng.normal(0, 0.05, noisy.shape).astype(np.float32)  # half of the variance
    found = one_frame(noisy)
    truth = 0.5 * 0.7 ** np.arange(1, 11)
    np.testing.assert_allclose(found.autocorrelation["x"], truth, atol=0.05)
    np.testing.assert_allclose(found.autocorrelation["y"], 0, atol=0.05)
    error = np.abs(found.autocorrelation["x"] - truth)
    assert np.mean(error < np.array(found.interval["x"])) >= 0.6
    assert found.evidence.variance == pytest.approx(0.005, rel=0.1)


def test_row_offsets_are_told_from_short_correlation():
    rng = np.random.default_rng(4)
    scene = SCENES[0]
    offsets = white(scene, rng) + rng.normal(0, 0.03, (len(scene), 1))
    found = one_frame(offsets)
    assert (found.axis, "row offsets only" in found.verdict) == ("x", True)
    assert found.evidence.offset_ratio["x"] > 5 > 2 > found.evidence.offset_ratio["y"]
    turned = one_frame(offsets.T)
    assert (turned.axis, "column offsets only" in turned.verdict) == ("y", True)
    assert "offsets" not in one_frame(simulate.heavy(scene, rng)).verdict


def test_noise_correlated_both_ways_is_refused_in_words():
    rng = np.random.default_rng(5)
    scene = specimen(1, 256, seed=2)[0]
    noisy = simulate.row_ar(scene, rng, gain=0, row_std=0.1, correlation=0.6, axis="x")
    noisy = noisy + simulate.row_ar(0 * scene, rng, gain=0, row_std=0.1, correlation=0.6, axis="y")
    assert "both axes" in one_frame(noisy).verdict


def test_frames_of_one_scene_are_subtracted_and_frames_of_many_are_not():
    rng = np.random.default_rng(6)
    still = white(np.repeat(SCENES[:1], 6, axis=0), rng, std=0.01)
    found = inspect_samples(still[:, None])
    assert (found.evidence.estimator, found.axis) == ("frame differences", "none")
    several = inspect_samples(white(SCENES, rng, std=0.01)[:, None])
    assert (several.evidence.estimator, several.axis) == ("single frames", "none")


def test_a_pattern_fixed_to_the_sensor_is_not_noise_where_frames_can_be_compared():
    rng = np.random.default_rng(7)
    columns = rng.normal(0, 0.1, (1, 1, 192))
    found = inspect_samples((white(np.repeat(SCENES[:1], 6, axis=0), rng) + columns)[:, None])
    assert found.axis == "none"


def test_axis_of_a_volume_can_be_z():
    rng = np.random.default_rng(8)
    volume = np.repeat(SCENES[:1, :64, :64], 24, axis=0) + rng.normal(0, 0.03, (24, 64, 64))
    volume += rng.normal(0, 0.1, (25, 64, 64))[1:] + rng.normal(0, 0.1, (1, 64, 64))
    found = inspect_samples(volume[None, None], "ZYX")
    assert found.axis == "z"
    assert set(found.autocorrelation) == {"x", "y", "z"}


@pytest.mark.parametrize("frames", [1, 8])
def test_photon_transfer_of_a_simulated_camera(frames):
    rng = np.random.default_rng(9)
    clean = np.repeat(specimen(1, 256, seed=3), frames, axis=0)
    counts = 2.0 * rng.poisson(500 * clean) + 100 + rng.normal(0, 10, clean.shape)
    found = inspect_samples(counts[:, None].astype(">u2")).evidence
    assert found.gain == pytest.approx(2, rel=0.03 if frames > 1 else 0.2)
    assert found.offset is not None
    assert found.offset + 100 * found.gain == pytest.approx(
        100, abs=40 if frames > 1 else 100
    )  # 10^2 at the black level


def test_saturation_hot_pixels_and_periodic_patterns_are_reported():
    rng = np.random.default_rng(10)
    frame = white(SCENES[0], rng)
    clipped = one_frame(np.minimum(frame, np.quantile(frame, 0.97))).evidence
    assert clipped.saturated == pytest.approx(0.03, abs=0.003)
    assert one_frame(frame).evidence.saturated == 0
    frame[5::17, 5::23] += 3
    share = frame[5::17, 5::23].size / frame.size
    assert one_frame(frame).evidence.hot == pytest.approx(share, rel=0.1)
    pattern = simulate.checkerboard(SCENES[0], rng, axis="x")
    assert one_frame(pattern).evidence.period == {"x": pytest.approx(4, abs=0.1)}


def test_a_lag_that_stands_out_is_a_pattern_and_a_smooth_decay_is_none():
    rng = np.random.default_rng(14)
    white_noise = rng.normal(0, 0.05, (192, 200))
    every_fourth = (SCENES[0] + white_noise[:, 8:] + 0.4 * white_noise[:, 4:-4])[None]  # shares an amplifier
    assert one_frame(every_fourth[0]).evidence.period == {"x": 4.0}
    assert "every 4.0 pixels" in "\n".join(one_frame(every_fourth[0]).lines())
    assert one_frame(simulate.row_ar(SCENES[0], rng, row_std=0.05, correlation=0.8)).evidence.period == {}


def test_correlations_of_a_few_pixels_are_correlations_and_their_noise_is_rarely_called_correlated():
    rng = np.random.default_rng(15)
    found = [one_frame(rng.normal(size=(12, 12))) for _ in range(30)]
    assert all(abs(v) <= 1 for f in found for values in f.autocorrelation.values() for v in values)
    assert sum(f.axis != "none" for f in found) <= 5


def test_what_anybody_sees_in_two_small_frames_is_not_called_white():
    """One flat place decides there, so it is not beyond doubt."""
    rng = np.random.default_rng(100)
    clean = np.stack([ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3) for _ in range(2)])
    streaks = ndimage.gaussian_filter1d(rng.normal(size=clean.shape), 1, axis=2)
    noisy = 1000 + clean / clean.std() * 100 + streaks * 80 + rng.normal(size=clean.shape) * 20
    for frames, axis in ((noisy, "x"), (noisy.swapaxes(1, 2), "y")):
        found = inspect_samples(frames[:, None].astype(np.float32))
        assert found.axis == axis
        assert found.verdict.startswith(f"perhaps correlated along {axis} (+0.6")
        assert not found.sure


@pytest.mark.parametrize("edge", [64, 256])
def test_texture_that_runs_in_one_direction_is_no_noise_along_it(edge):
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.normal(size=(6, edge, edge)), (0, 1, 2))
    for image in texture / texture.std() * 100 + rng.normal(size=texture.shape) * 10:
        assert one_frame(1000 + image).axis == "none"


def test_answer_repeats_and_becomes_json_and_words():
    frames = simulate.heavy(np.repeat(specimen(1, 128, seed=0), 12, axis=0), np.random.default_rng(11))
    first, second = (inspect_samples(frames[:, None]) for _ in range(2))
    assert first == second
    stated = json.loads(json.dumps(first.to_json()))
    assert (stated["axis"], stated["verdict"]) == ("x", first.verdict)
    assert [len(stated["autocorrelation"][a]) for a in "xy"] == [10, 10]
    text = "\n".join(first.lines())
    assert first.verdict in text
    assert "along y" in text


def test_a_huge_file_is_sampled_and_not_loaded():
    base = np.random.default_rng(12).integers(90, 110, (4, 2, 1, 512, 512)).astype(">u2")
    huge = np.broadcast_to(base, (4, 2, 1000, 512, 512))  # 4 GB, of which 4 MB exist
    tracemalloc.start()
    found = inspect_image(images.from_array(huge, "ZCTYX"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
    assert found.evidence.pixels <= 1 << 21


def test_file_axes_are_understood():
    rng = np.random.default_rng(13)
    noisy = simulate.heavy(np.repeat(SCENES[:1], 6, axis=0), rng).reshape(3, 2, 192, 192)
    for axes, order in (("TCYX", (0, 1, 2, 3)), ("CTYX", (1, 0, 2, 3)), ("TZYX", (0, 1, 2, 3)), ("YXTC", (2, 3, 0, 1))):
        assert inspect_image(images.from_array(np.transpose(noisy, order), axes)).axis == "x"
    swapped = images.from_array(np.transpose(noisy, (0, 1, 3, 2)), "TZXY")
    assert inspect_image(swapped).axis == "x"
    lines = simulate.heavy(SCENES[0], rng)[:, None]
    assert inspect_samples(lines, "X").axis == "x"


@pytest.mark.parametrize(
    ("samples", "spatial", "message"),
    [
        (np.zeros((1, 1, 64, 64)), "YX", "no noise found"),
        (np.zeros((64, 64)), "YX", "expected"),
        (np.full((1, 1, 64, 64), np.nan), "YX", "NaN"),
        (np.zeros((1, 1, 6, 64)), "YX", "6 x 64 pixels .*at least 12 x 12"),
        (np.zeros((3, 1, 64)), "X", "3 x 64 .lines x pixels.*at least 12 x 12"),
        (np.zeros((1, 1, 64, 64), complex), "YX", "complex"),
    ],
)
def test_impossible_requests_are_refused(samples, spatial, message):
    with pytest.raises(InputError, match=message):
        inspect_samples(samples, spatial)


# ------------------------------------------------------------------------------------------- real recordings


def recording(name: str) -> Image:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"test recording {name} is not here; set COSDD_DATA to the folder that has noisy/")
    return images.read(path, "PTYX" if "pairs" in name else None)


@functools.cache
def inspected(name: str) -> Inspection:
    return inspect_image(recording(name))


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [
        ("twophoton_neurons_20x128x256.tif", "x", 1),
        ("twophoton_calcium_1000x30x40.tif", "x", 1),
        ("stem_srtio3_1024x1024.tif", "x", 1),
        ("stem_dso_1024x1024.tif", "x", 1),
        ("emccd_aurora_2x512x512.tif", "x", -1),
        ("emccd_fielddiaphragm_1024x1024.tif", "x", -1),
        ("camera_rownoise_5x512x512.tif", "x", 1),
        ("ccd_flat_pairs_11x2x480x640.tif", "none", 0),
        ("confocal_counts/well1_cell1_after_25nM.tif", "none", 0),
    ],
)
def test_axis_and_sign_of_real_recordings(name, axis, sign):
    found = inspected(name)
    assert found.axis == axis
    lag1 = found.autocorrelation["x"][0]
    assert np.sign(lag1) == sign if sign else abs(lag1) < 0.02
    assert abs(found.autocorrelation["y"][0]) < 0.04


def test_dark_frames_of_a_ccd_show_row_offsets_only():
    found = inspected("ccd_dark_50x480x640.tif")
    assert found.axis == "x"
    assert "row offsets only" in found.verdict
    assert found.evidence.offset_ratio["x"] > 3


def test_photon_transfer_of_a_ccd():
    found = inspected("ccd_flat_pairs_11x2x480x640.tif").evidence
    assert found.gain == pytest.approx(0.28, rel=0.03)
    assert found.offset == pytest.approx(5, abs=2)


def test_a_single_frame_of_photon_counts_is_white():
    image = recording("confocal_counts/well1_cell3_before_25nM.tif")
    found = [inspect_image(images.from_array(np.asarray(image.data[t]), "YX")).axis for t in (0, 20, 40)]
    assert found == ["none"] * 3
