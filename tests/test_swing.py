"""The benchmark that asks whether rows swing together, on images made with a swing and without."""

import numpy as np
import pytest

from benchmarks import swing
from benchmarks.real import streaks

ROWS, PERIOD, AMPLITUDE = 1024, 3.7, 0.8  # number, rows, pixels


def lattice(displaced: np.ndarray, brighter: np.ndarray, seed: int = 0) -> np.ndarray:
    """Spots every 20 pixels, rows displaced and brighter, and independent noise: (1, ROWS, 256)."""
    y, x = np.mgrid[:ROWS, :256].astype(float)
    spots = np.cos(2 * np.pi * (x - displaced[:, None]) / 20) * np.cos(2 * np.pi * y / 20)
    noise = np.random.default_rng(seed).normal(0, 0.3, x.shape)
    return (spots + brighter[:, None] + noise)[None]


SWING, STILL = np.sin(2 * np.pi * np.arange(ROWS) / PERIOD), np.zeros(ROWS)


def test_finds_displacements_that_swing():
    images = lattice(AMPLITUDE * SWING, STILL)
    shifts, lights = swing.displacements(images), swing.brightness(images)
    at, height = swing.hump(shifts)
    assert at == pytest.approx(1 / PERIOD, abs=0.01)
    assert height > 2 * swing.chance(shifts)
    assert swing.coherence(shifts, at) > 0.9
    assert swing.hump(lights)[1] < 1.2 * swing.chance(lights)


def test_finds_brightness_that_swings():
    lights = swing.brightness(lattice(STILL, 0.2 * SWING))
    at, height = swing.hump(lights)
    assert at == pytest.approx(1 / PERIOD, abs=0.01)
    assert height > 2 * swing.chance(lights)


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_are_independent_are_not_taken_for_a_swing(seed):
    generator = np.random.default_rng(seed)
    images = lattice(generator.normal(0, 0.8, ROWS), generator.normal(0, 0.2, ROWS), seed)
    for values in (swing.displacements(images), swing.brightness(images)):
        assert swing.hump(values)[1] < 1.2 * swing.chance(values)  # one in twenty is above chance


def test_stretches_that_swing_each_for_itself_are_not_coherent():
    values = np.random.default_rng(0).normal(size=(1, ROWS, 2))
    assert swing.coherence(values, 0.27) < 0.3


def test_a_swing_of_the_brightness_is_all_of_the_streaks():
    images = np.broadcast_to((0.2 * SWING)[:, None], (ROWS, 256))[None]
    assert swing.in_the_hump(images, 1 / PERIOD) == pytest.approx(streaks(images), rel=0.05)


def test_rows_are_displaced_by_what_is_asked():
    x = np.mgrid[:8, :64][1].astype(float)
    by = np.linspace(-1, 1, 8)[None]
    moved = swing.displaced(np.sin(x / 5)[None], by)
    np.testing.assert_allclose(moved[0, :, 4:-4], np.sin((x - by.T) / 5)[:, 4:-4], atol=1e-3)
