"""Rows that swing together, and the benchmark that asks which methods leave a swing."""

import sys

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from benchmarks import swing as benchmark
from benchmarks.real import streaks
from cosdd import cli, preparation, simulate, swing
from cosdd.specimen import specimen

ROWS, PERIOD, AMPLITUDE, LENGTH = 1024, 3.7, 0.8, 128  # number, rows, pixels, pixels
SWING, STILL = np.sin(2 * np.pi * np.arange(ROWS) / PERIOD), np.zeros(ROWS)


def lattice(displaced: np.ndarray, brighter: np.ndarray, seed: int = 0) -> np.ndarray:
    """Spots every 20 pixels, rows displaced and brighter, and independent noise: (1, ROWS, 256)."""
    y, x = np.mgrid[:ROWS, :256].astype(float)
    spots = np.cos(2 * np.pi * (x - displaced[:, None]) / 20) * np.cos(2 * np.pi * y / 20)
    noise = np.random.default_rng(seed).normal(0, 0.3, x.shape)
    return (spots + brighter[:, None] + noise)[None]


@pytest.mark.parametrize("period", [2.0, 2.3, 3.7, 4.2])
@pytest.mark.parametrize("what", ["displaced", "brighter"])
def test_finds_a_swing_and_what_it_does(period, what):
    turn = np.sin(2 * np.pi * np.arange(ROWS) / period + 1)
    found = swing.found([lattice(AMPLITUDE * turn, STILL) if what == "displaced" else lattice(STILL, 0.2 * turn)])
    assert found
    assert found.what == what
    assert found.period == pytest.approx(period, abs=0.1)
    assert found.coherence > 0.9


@pytest.mark.parametrize("period", [6.0, 10.0])
def test_a_slower_swing_is_not_told_with_another_period(period):
    turn = np.sin(2 * np.pi * np.arange(ROWS) / period)
    for images in (lattice(AMPLITUDE * turn, STILL), lattice(STILL, 0.2 * turn)):
        assert swing.found([images]) is None


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_are_independent_are_not_taken_for_a_swing(seed):
    """Neither where whole rows jump, which all their stretches do alike."""
    generator = np.random.default_rng(seed)
    assert swing.found([lattice(generator.normal(0, 0.8, ROWS), generator.normal(0, 0.2, ROWS), seed)]) is None


def test_stretches_that_swing_each_for_itself_are_not_coherent():
    values = np.random.default_rng(0).normal(size=(1, ROWS, 2))
    assert swing.coherence(values, 0.27) < 0.3


@pytest.mark.parametrize("inside", [np.s_[:, :256], np.s_[:, :, :100]])
def test_of_few_pixels_nothing_is_said(inside):
    assert swing.found([lattice(AMPLITUDE * SWING, STILL)[inside]]) is None


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("swings", [True, False])
def test_inspect_says_that_rows_swing(capsys, tmp_path, monkeypatch, axis, swings):
    generator = np.random.default_rng(0)
    clean = specimen(8, 256, 0)
    by = (AMPLITUDE * np.sqrt(2) * SWING[:256] if swings else STILL[:256])[None].repeat(8, 0)
    noisy = simulate.row_ar(benchmark.displaced(clean, by), generator, gain=0.01, row_std=0.05, correlation=0.6)
    grey = (1000 + 1000 * noisy).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", grey if axis == "x" else grey.swapaxes(1, 2), metadata={"axes": "TYX"})
    monkeypatch.setattr(sys, "argv", ["cosdd", "inspect", str(tmp_path / "a.tif")])
    with pytest.raises(SystemExit):
        cli.main()
    said = " ".join(capsys.readouterr().out.split())
    assert f"noise axis {axis}" in said
    assert (f"note: {'rows' if axis == 'x' else 'columns'} are displaced in turn" in said) == swings


def test_training_is_warned_of_a_swing_across_the_axis_it_is_given(tmp_path):
    images = np.concatenate([lattice(AMPLITUDE * SWING, STILL)] * 2).astype(np.float32)
    for axis, number in (("x", 1), ("y", 0)):
        notes = preparation.prepare([images], "TYX", axis, "tiny").notes
        assert sum("rows are displaced in turn" in note for note in notes) == number


def test_a_swing_of_the_brightness_is_all_of_the_streaks():
    images = np.broadcast_to((0.2 * SWING)[:, None], (ROWS, 256))[None]
    assert benchmark.in_the_hump(images, PERIOD) == pytest.approx(streaks(images), rel=0.05)


def test_rows_are_displaced_by_what_is_asked():
    x = np.mgrid[:8, :64][1].astype(float)
    by = np.linspace(-1, 1, 8)[None]
    moved = benchmark.displaced(np.sin(x / 5)[None], by)
    np.testing.assert_allclose(moved[0, :, 4:-4], np.sin((x - by.T) / 5)[:, 4:-4], atol=1e-3)


def test_a_blur_keeps_nothing_of_displacements_and_the_displaced_image_all():
    truth = specimen(2, 64, 0)
    by = np.random.default_rng(0).normal(0, 0.6, (2, 64))
    blurred = ndimage.gaussian_filter(truth, (0, 1, 1))
    assert benchmark.kept(blurred, truth, by) == pytest.approx(0, abs=0.03)
    assert benchmark.kept(benchmark.displaced(truth, by), truth, by) == pytest.approx(1, abs=0.05)
