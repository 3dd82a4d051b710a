"""What speaks against a good result is said by the command that is about to make it, and what to do about it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiny
from scipy import ndimage

from cosdd import checkpoint, cli, preparation, simulate
from cosdd.specimen import specimen

CLEAN = specimen(8, 128, 3)


def noise(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "white":
        return rng.normal(0, 0.2, CLEAN.shape)
    if kind == "along both axes":
        return ndimage.gaussian_filter(rng.normal(0, 0.8, CLEAN.shape), (0, 1, 1))
    return simulate.row_ar(CLEAN, rng, gain=0.01, row_std=0.2, correlation=0.6) - CLEAN


def grey(image: np.ndarray) -> np.ndarray:
    return (1000 + 500 * image).round().astype(np.uint16)


NOISY = grey(CLEAN + noise("streaks"))
DIM = 500 * (CLEAN + noise("streaks")) - 100  # after the subtraction of a background that was a little too much


def written(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["cosdd", *map(str, command)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    both = capsys.readouterr()
    assert end.value.code in (0, None), both.err
    return both.out


def said(capsys: pytest.CaptureFixture[str], *command: object) -> list[str]:
    """What a command notes, without the word."""
    return re.split("note: |warning: ", " ".join(written(capsys, *command).split()))[1:]


def trained(capsys: pytest.CaptureFixture[str], folder: Path, pixels: np.ndarray, *options: str) -> list[str]:
    tifffile.imwrite(folder / "a.tif", pixels, metadata={"axes": "TYX"})
    budget = ("--set", "train.steps=2", "--set", "train.crop=32")
    notes = said(capsys, "train", folder / "a.tif", "-o", folder / "a.safetensors", *budget, *options)
    return [note for note in notes if "barely trained" not in note]


def test_good_images_are_no_reason_for_a_word(capsys, tmp_path):
    assert trained(capsys, tmp_path, NOISY, "--noise-axis", "x") == []
    assert trained(capsys, tmp_path, NOISY, "--overwrite") == []
    assert said(capsys, "denoise", tmp_path / "a.safetensors", tmp_path / "a.tif", "-o", tmp_path / "out") == []


@pytest.mark.parametrize(
    ("pixels", "options", "fault", "advice"),
    [
        (grey(CLEAN + noise("white")), ["--noise-axis", "x"], "looks white", "--noise-axis none"),
        (NOISY, ["--noise-axis", "y"], "given as y", "try --noise-axis x"),
        (NOISY, ["--noise-axis", "none"], "given as none", "try --noise-axis x"),
        (grey(CLEAN + noise("along both axes")), [], "correlated along both axes", "removes a part"),
        (np.minimum(NOISY, np.quantile(NOISY, 0.95)).astype(np.uint16), [], "saturated", "less light"),
        (np.maximum(DIM, 0), [], "lowest value", "as they were before"),
        (np.maximum(DIM, 0).round().astype(np.uint16), [], "lowest value", "as they were before"),
        (NOISY[:2], ["--noise-axis", "x"], "only 32,768 pixels", "give more images"),
    ],
)
def test_what_will_not_go_well_is_said_with_advice(capsys, tmp_path, pixels, options, fault, advice):
    notes = trained(capsys, tmp_path, pixels, *options)
    assert any(fault in note and advice in note for note in notes), notes


def test_both_ends_are_said_where_different_images_are_clipped(capsys, tmp_path):
    bright = np.minimum(NOISY, np.quantile(NOISY, 0.95)).astype(np.uint16)
    for name, pixels in (("bright", bright), ("dark", np.maximum(DIM, 0).round().astype(np.uint16))):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, metadata={"axes": "TYX"})
    ready = preparation.prepare([tmp_path], None, "x", "tiny", {"train": {"steps": 2}})
    notes = " ".join(ready.notes)
    assert re.search(r"bright\.tif: [\d.]+% of the pixels are saturated", notes)
    assert re.search(r"dark\.tif: [\d.]+% of the pixels have the lowest value", notes)


def test_clipping_is_said_of_each_of_many_files(capsys, tmp_path):
    clipped = np.minimum(NOISY, np.quantile(NOISY, 0.95)).astype(np.uint16)
    for name, pixels in (("clipped", clipped), ("good", NOISY)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, metadata={"axes": "TYX"})
    (note,) = said(capsys, "inspect", tmp_path)
    assert "pixels are saturated" in note.partition("good.tif")[0]
    (note,) = said(capsys, "inspect", tmp_path / "clipped.tif")
    assert "less light" in note
    (found, _) = (json.loads(line) for line in written(capsys, "inspect", "--json", tmp_path).splitlines())
    assert "pixels are saturated" in found["notes"][0]


def test_images_unlike_those_of_the_training_are_said(capsys, tmp_path):
    trained(capsys, tmp_path, NOISY, "--noise-axis", "x")
    tifffile.imwrite(tmp_path / "other.tif", NOISY // 8, metadata={"axes": "TYX"})
    command = ("denoise", tmp_path / "a.safetensors", tmp_path / "other.tif", "-o", tmp_path / "out")
    note, at_the_end = said(capsys, *command)
    assert "not like the training images: train a model on them" in note
    assert "other.tif" in at_the_end
    assert "do not trust" in at_the_end


def test_a_model_of_other_grey_values_altogether_is_told_in_few_digits(capsys, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", NOISY[0])
    command = (tmp_path / "m.safetensors", tmp_path / "a.tif", "-o", tmp_path / "out", "--overwrite")
    checkpoint.save(tiny.checkpoint(0.0, 1e17), tmp_path / "m.safetensors")
    note = said(capsys, "denoise", *command, "--samples", "1")[0]
    assert re.search(r"contrast \d(\.\d+)?e\+14-fold", note)
    checkpoint.save(tiny.checkpoint(1e17, 1e-9), tmp_path / "m.safetensors", overwrite=True)
    assert "trained on images of 1e+17" in said(capsys, "generate", *command)[0]
    checkpoint.save(tiny.checkpoint(1e7, 100.0), tmp_path / "m.safetensors", overwrite=True)
    for verb, *given in (("denoise", *command), ("report", *command[:2], "-o", tmp_path / "page.html")):
        with pytest.raises(AssertionError, match=r"a\.tif: grey values 9.999e\+04 standard deviations away"):
            said(capsys, verb, *given)
    assert not list(tmp_path.rglob("*.html"))


def test_noise_along_another_axis_than_the_model_learned_is_said(capsys, tmp_path):
    """Rows taken for columns, or a scan turned by a quarter: brightness and contrast are as ever."""
    trained(capsys, tmp_path, NOISY, "--noise-axis", "x")
    model, turned = tmp_path / "a.safetensors", tmp_path / "turned.tif"
    tifffile.imwrite(turned, np.ascontiguousarray(NOISY.swapaxes(1, 2)), metadata={"axes": "TYX"})
    (note,) = said(capsys, "denoise", model, turned, "-o", tmp_path / "wrong")
    assert note.startswith("the noise here is correlated along y, and the model learned noise along x: see what")
    assert said(capsys, "denoise", model, turned, "--axes", "TXY", "-o", tmp_path / "right") == []
    trained(capsys, tmp_path, NOISY, "--noise-axis", "none", "--overwrite")
    (note,) = said(capsys, "denoise", model, tmp_path / "a.tif", "-o", tmp_path / "white")
    assert "along x, and the model learned white noise" in note


def test_what_rounding_loses_is_said(capsys, tmp_path):
    few = np.random.default_rng(2).poisson(0.5 * CLEAN / CLEAN.max()).astype(np.uint8)
    trained(capsys, tmp_path, few, "--noise-axis", "none")
    command = ("denoise", tmp_path / "a.safetensors", tmp_path / "a.tif", "-o", tmp_path / "out", "--overwrite")
    (note,) = said(capsys, *command, "--dtype", "same")
    assert "leave out --dtype same" in note
    assert said(capsys, *command) == []


def test_many_images_of_few_pixels_are_wondered_at(capsys, tmp_path):
    frames = np.tile(NOISY, (3, 1, 1))[:20, :, :64]
    notes = trained(capsys, tmp_path, frames, "--noise-axis", "none", "--axes", "XYT")
    assert any("X 20 pixels long and T a count of 64" in note and "swap X and T" in note for note in notes)
    notes = trained(capsys, tmp_path, frames, "--noise-axis", "none", "--axes", "TYX", "--overwrite")
    assert not any("swap" in note for note in notes)


def test_a_folder_is_inspected_in_a_line_for_each_file(capsys, tmp_path, monkeypatch):
    for name, pixels in (("a", NOISY), ("b", grey(CLEAN + noise("white")))):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, metadata={"axes": "TYX"})
    for options, long in (((), False), (("--details",), True)):
        monkeypatch.setattr(sys, "argv", ["cosdd", "inspect", str(tmp_path), *options])
        with pytest.raises(SystemExit):
            cli.main()
        shown = capsys.readouterr().out.splitlines()
        assert (len(shown) > 3) == long
        assert "2 files: noise axis" in shown[-1]


def test_colour_pixels_are_said_to_be_interpolated(capsys, tmp_path):
    rgb = np.stack([NOISY[0] // 16] * 3, -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    budget = ("--set", "train.steps=1", "--set", "train.crop=32", "--noise-axis", "x")
    notes = said(capsys, "train", tmp_path / "rgb.tif", "-o", tmp_path / "rgb.safetensors", *budget)
    assert any("correlated along both axes" in note and "use the raw data" in note for note in notes)


def test_dark_pixels_of_photon_counters_are_no_wall(capsys, tmp_path):
    counts = np.random.default_rng(1).poisson(1.5 * CLEAN).astype(np.uint8)
    assert (counts == 0).mean() > 0.5
    assert not any("lowest" in note for note in trained(capsys, tmp_path, counts, "--noise-axis", "none"))
