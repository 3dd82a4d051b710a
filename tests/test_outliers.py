"""Hot and dead pixels are found, noise and small structures are not; none leads training or denoising astray."""

import numpy as np
import pytest
from scipy import ndimage
from tiny import MODEL, stripes

import cosdd
from cosdd import data, outliers
from cosdd.data import Frames

SMALL = {"model": MODEL, "blind_row": {"features": (8, 12)}, "train": {"crop": 32, "validations": 1}}


def found(images: np.ndarray) -> np.ndarray:
    """Outliers of (n, y, x) images, from what is usual among them."""
    samples = images[:, None]
    return np.stack([outliers.measure(list(samples)).mask(image)[0] for image in samples])


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, ">u2"])
def test_hot_and_dead_pixels_are_found(offset, dtype):
    if offset and dtype == ">u2":
        offset = 3e4
    rng = np.random.default_rng(0)
    images = rng.normal(500 + offset, 10, (2, 200, 300))
    defects = rng.random(images.shape) < 5e-4
    defects[0, 0, 0] = defects[1, -1, 7] = True  # corners and borders too
    images[defects] += rng.choice([-400, 200, 1e4], defects.sum())
    np.testing.assert_array_equal(found(images.astype(dtype)), defects)


def test_a_defect_of_two_pixels_does_not_hide_itself():
    images = np.random.default_rng(1).normal(0, 1, (1, 100, 100))
    images[0, 40, 60:62] += 100
    assert list(zip(*np.nonzero(found(images)[0]), strict=True)) == [(40, 60), (40, 61)]


@pytest.mark.parametrize("flux", [0.001, 0.05, 0.3, 1, 5, 50])
def test_photon_noise_is_no_outlier(flux):
    assert not found(np.random.default_rng(2).poisson(flux, (4, 256, 256)).astype(np.uint16)).any()


def test_single_photons_of_a_multiplying_camera_are_no_outliers():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(4, 256, 256)) + 30 * rng.gamma(rng.poisson(0.02, (4, 256, 256)) + 1e-9)
    assert not found(images).any()


@pytest.mark.parametrize("width", [0.7, 1.0, 1.5])
def test_spots_that_optics_can_draw_stay(width):
    rng = np.random.default_rng(4)
    images = (rng.random((4, 256, 256)) < 1e-3).astype(float)
    images = ndimage.gaussian_filter(images, (0, width, width))
    images = rng.poisson(5 + images * 200 / images.max()) + rng.normal(size=images.shape)
    assert not found(images).any()


def test_planes_of_a_volume_and_channels_are_looked_at_one_by_one():
    volume = np.random.default_rng(5).normal(0, 1, (2, 3, 64, 64))
    volume[1, 2, 30, 30] = 100
    mask = outliers.measure([volume]).mask(volume)
    assert np.argwhere(mask).tolist() == [[1, 2, 30, 30]]
    assert np.abs(outliers.measure([volume]).without(volume)).max() < 6


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 3), (5, 8), (40, 31)])
def test_neighbours_of_all_pixels_are_those_of_each(shape, dtype):
    plane = np.random.default_rng(0).integers(0, 50, shape).astype(dtype)
    for lines in (slice(0, shape[0]), slice(1, shape[0] - 1), slice(shape[0] - 1, shape[0])):
        y, x = np.indices((lines.stop - lines.start, shape[1])).reshape(2, -1)
        one_by_one = outliers._neighbours(plane, y + lines.start, x)
        for each, all_of_them in zip(one_by_one, outliers._everywhere(plane, lines), strict=True):
            assert all_of_them.dtype == each.dtype
            np.testing.assert_array_equal(all_of_them.ravel(), each)


def test_strips_do_not_matter(monkeypatch):
    images = np.random.default_rng(6).normal(0, 1, (1, 97, 101))
    images[0, ::9, ::7] += 50
    images[0, ::9, 1::7] -= 50
    measured = outliers.Outliers(np.full((1, 7), np.inf), np.full((1, 8), 8.0), np.array([np.inf]))
    whole = measured.mask(images), measured.without(images)
    assert whole[0].sum() > 200
    monkeypatch.setattr(outliers, "BLOCK", 500)
    np.testing.assert_array_equal(measured.mask(images), whole[0])
    np.testing.assert_array_equal(measured.without(images), whole[1])


@pytest.mark.parametrize("shape", [(1, 500), (1, 2, 400), (1, 1, 1)])
def test_images_without_neighbours_have_none(shape):
    image = np.zeros(shape)
    image.flat[-1] = 1e6
    measured = outliers.measure([image])
    assert not measured.mask(image).any()


def test_saturation_is_a_wall_and_not_the_brightest_pixel():
    rng = np.random.default_rng(7)
    images = rng.normal(1000, 100, (1, 200, 200))
    assert np.isinf(outliers.measure([images]).ceiling)
    assert outliers.measure([images.clip(None, 1150)]).ceiling == 1150
    assert np.isinf(outliers.measure([rng.poisson(0.1, (1, 200, 200))]).ceiling)


def test_crops_and_statistics_leave_them_out():
    clean = stripes(12)
    spoiled = clean.copy()
    spoiled[:, 0, 5, 9] = 65_535
    kept, left = Frames.split([spoiled], 0.1, 0, leave_out=False), Frames.split([spoiled], 0.1, 0)
    assert left.statistics.std[0] == pytest.approx(data.measure([clean]).std[0], rel=0.02)
    assert kept.statistics.std[0] > 10 * left.statistics.std[0]
    crops = left.batch(0, 0, 8, (32, 32), "y")
    assert np.isnan(crops).mean() == pytest.approx(1 / 32**2)
    # Flipped with the image.
    assert {tuple(np.argwhere(np.isnan(crop[0]))[0]) for crop in crops} == {(5, 9), (26, 9)}
    assert not np.isnan(kept.batch(0, 0, 8, (32, 32), "y")).any()
    assert np.isfinite(left.windows()).all()


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_a_hot_pixel_neither_stays_nor_leads_its_neighbours_astray(method):
    noisy = stripes(12)[:, 0]
    spoiled = noisy.copy()
    spoiled[:, 20, 11] = 60_000
    model = cosdd.train(noisy, noise_axis="x", method=method, steps=10, seed=0, quiet=True, settings=SMALL)
    right, given = model.denoise(noisy[:2], samples=2), model.denoise(spoiled[:2], samples=2)
    difference = np.abs(given.mean - right.mean)
    assert difference.max() < 3 * noisy.std()
    assert difference[:, :8].max() < 1  # far away nothing changes
    assert given.std is not None
    assert right.std is not None
    if method == "blind-row":  # it knows that it knows less there
        assert (given.std[:, 20, 11] > right.std[:, 20, 11]).all()


def test_a_model_from_a_file_denoises_as_the_one_that_was_saved(tmp_path):
    spoiled = stripes(12)[:, 0]
    spoiled[:, 20, 11] = 60_000
    model = cosdd.train(spoiled, noise_axis="x", steps=2, quiet=True, settings=SMALL)
    model.save(tmp_path / "model.safetensors")
    loaded = cosdd.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.denoise(spoiled).mean, model.denoise(spoiled).mean)


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_training_learns_the_same_whatever_a_hot_pixel_says(method):
    """Weights of two runs whose defects differ in value alone are equal."""
    runs = []
    for value in (30_000, 60_000):
        spoiled = stripes(12)[:, 0]
        spoiled[:, 20, 11] = value
        model = cosdd.train(spoiled, noise_axis="x", method=method, steps=3, seed=0, quiet=True, settings=SMALL)
        runs.append(model.denoise(stripes(1)[:, 0], samples=1).mean)
    np.testing.assert_allclose(*runs, rtol=1e-6)


def test_what_is_left_out_is_said_and_can_be_kept(tmp_path, capsys):
    spoiled = stripes(12)[:, 0]
    spoiled[:, 20, 11] = 60_000
    cosdd.train(spoiled, noise_axis="x", steps=1, settings=SMALL)
    said = " ".join(capsys.readouterr().out.split())
    assert "0.098% of the pixels stand out from all their neighbours" in said
    assert "--set train.outliers=false keeps them" in said
    kept = cosdd.train(spoiled, noise_axis="x", steps=1, quiet=True, settings={"train": {"outliers": False}})
    assert kept.checkpoint.statistics.std[0] > 1000
