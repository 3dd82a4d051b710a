"""The benchmark that asks whether rows swing together, on images made with a swing and without."""

import numpy as np
import pytest

from benchmarks import swing

ROWS, PERIOD, AMPLITUDE = 1024, 3.7, 0.8  # number, rows, pixels


def lattice(displaced: np.ndarray, brighter: np.ndarray) -> np.ndarray:
    """Spots every 20 pixels, rows displaced and brighter, and independent noise: (1, ROWS, 256)."""
    y, x = np.mgrid[:ROWS, :256].astype(float)
    spots = np.cos(2 * np.pi * (x - displaced[:, None]) / 20) * np.cos(2 * np.pi * y / 20)
    noise = np.random.default_rng(0).normal(0, 0.3, x.shape)
    return (spots + brighter[:, None] + noise)[None]


def test_finds_displacements():
    swung = AMPLITUDE * np.sin(2 * np.pi * np.arange(ROWS) / PERIOD)
    images = lattice(swung, np.zeros(ROWS))
    at, height = swing.hump(swing.displacements(images))
    assert at == pytest.approx(1 / PERIOD, abs=0.01)
    assert height > swing.SWING > swing.hump(swing.segments(images, swing.SEGMENT).mean(-1))[1]


def test_finds_brightness_that_swings():
    images = lattice(np.zeros(ROWS), 0.2 * np.sin(2 * np.pi * np.arange(ROWS) / PERIOD))
    at, height = swing.hump(swing.segments(images, swing.SEGMENT).mean(-1))
    assert at == pytest.approx(1 / PERIOD, abs=0.01)
    assert height > swing.SWING


def test_rows_that_are_independent_have_no_swing():
    generator = np.random.default_rng(1)
    images = lattice(generator.normal(0, 0.8, ROWS), generator.normal(0, 0.2, ROWS))
    assert swing.hump(swing.displacements(images))[1] < swing.SWING
    assert swing.hump(swing.segments(images, swing.SEGMENT).mean(-1))[1] < swing.SWING


def test_what_is_left_of_a_swing():
    swung = 0.2 * np.sin(2 * np.pi * np.arange(ROWS) / PERIOD)
    noisy, half = lattice(np.zeros(ROWS), swung), lattice(np.zeros(ROWS), swung / 2)
    assert swing.excess(half, 1 / PERIOD) / swing.excess(noisy, 1 / PERIOD) == pytest.approx(0.25, abs=0.03)
