"""``cosdd simulate``: noisy files with clean partners, by recipes that can be looked up afterwards."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from cosdd import images, metrics, simulate, simulation
from cosdd.cli import app
from cosdd.errors import InputError
from cosdd.specimen import specimen


@pytest.fixture
def clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stack = np.round(specimen(6, 64, 0) * 255).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "scene.tif", stack, imagej=True, metadata={"axes": "TYX", "unit": "um"}, resolution=(5, 5)
    )
    return stack


def cosdd(*line):
    return CliRunner().invoke(app, ["simulate", *line])


@pytest.mark.parametrize("recipe", list(simulate.RECIPES))
def test_the_command_does_what_the_recipe_says(clean, recipe):
    done = cosdd(recipe, "scene.tif", "-o", "out", "--seed", "3")
    assert done.exit_code == 0, done.output
    noisy, partner = images.read("out/noisy/scene.tif"), images.read("out/clean/scene.tif")
    np.testing.assert_array_equal(partner.data, clean)
    assert (noisy.axes, noisy.data.dtype) == ("TYX", np.float32)
    assert noisy.pixel_size["X"] == pytest.approx(0.2)
    for number, plane in enumerate(clean):
        expected = simulate.RECIPES[recipe](plane / np.float32(255), np.random.default_rng((3, 0, number)))
        np.testing.assert_allclose(noisy.data[number], expected * 255, rtol=1e-5, atol=1e-4)
    assert json.loads(Path("out/simulation.json").read_text())["options"] == simulate.options(recipe, {})


def test_options_reach_the_recipe_and_are_written_down(clean):
    done = cosdd("row-ar", "scene.tif", "--set", "axis=y", "--set", "correlation=-0.5", "--set", "gain=0")
    assert done.exit_code == 0, done.output
    assert "grey value 255 is intensity 1; --full-scale sets it" in done.output
    noise = images.read("simulated/noisy/scene.tif").data - clean.astype(np.float64)
    assert metrics.autocorrelation(noise, 1, "y")[1] == pytest.approx(-0.5, abs=0.03)
    assert metrics.autocorrelation(noise, 1, "x")[1] == pytest.approx(0, abs=0.03)
    written = json.loads(Path("simulated/simulation.json").read_text())
    assert written["options"]["correlation"] == -0.5
    assert (written["recipe"], written["full_scale"]) == ("row-ar", 255.0)


def test_the_same_seed_gives_the_same_noise_and_each_file_its_own(clean, tmp_path):
    tifffile.imwrite(tmp_path / "scene2.tif", clean, metadata={"axes": "TYX"})
    for folder in ("a", "b"):
        assert cosdd("stripe", "scene.tif", "scene2.tif", "-o", folder).exit_code == 0
    first, again = (images.read(f"{folder}/noisy/scene.tif").data for folder in ("a", "b"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, images.read("a/noisy/scene2.tif").data)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (("fog", "scene.tif"), "stripe"),
        (("stripe", "scene.tif", "--set", "gian=1"), "gain"),
        (("stripe", "scene.tif", "--set", "gain=much"), "a number"),
        (("stripe", "scene.tif", "--set", "gain=-1"), "0 or more"),
        (("stripe", "scene.tif", "--set", "gain"), "option=value"),
        (("stripe", "scene.tif", "--full-scale", "0"), "more than 0"),
        (("stripe", "scene.tif", "--full-scale", "1e-320"), "more than 0"),
        (("stripe", "scene.tif", "--full-scale", "1e300"), "1e-18 to 1e+18"),
        # What only the recipe can know is said of the file by name.
        (("row-ar", "scene.tif", "--full-scale", "1e-17"), "scene.tif: clean image goes up to 2.39e+19"),
        (("row-ar", "scene.tif", "--set", "row_std=1e36"), "scene.tif: the noise goes beyond"),
        (("row-ar", "scene.tif", "--set", "row_std=1e39"), "the noise goes beyond"),
        (("row-ar", "scene.tif", "--set", "correlation=1"), "between -1 and 1"),
        (("stripe", "none.tif"), "no such file"),
    ],
)
def test_faults_are_said_before_anything_is_written(clean, tmp_path, line, word):
    done = cosdd(*line)
    assert isinstance(done.exception, InputError)
    assert word in str(done.exception)
    assert not (tmp_path / "simulated").exists()


def test_nothing_is_replaced_unasked(clean):
    assert cosdd("stripe", "scene.tif").exit_code == 0
    assert isinstance(cosdd("stripe", "scene.tif").exception, InputError)
    assert cosdd("stripe", "scene.tif", "--overwrite").exit_code == 0
    again = cosdd("stripe", "simulated/clean/scene.tif", "--overwrite")
    assert "replace the input" in str(again.exception)


def test_full_scale_is_that_of_the_type_or_the_largest_value(tmp_path):
    for name, array, scale in (
        ("a.npy", np.full((16, 16), 7, np.uint8), 255),
        ("b.npy", np.linspace(0, 0.5, 256, dtype=np.float32).reshape(16, 16), 1),
        ("c.npy", np.full((16, 16), 900, np.uint16), 900),
    ):
        np.save(tmp_path / name, array)
        assert simulation.full_scale([tmp_path / name], None) == scale


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_memory_holds_a_plane_however_many_there_are(tmp_path, kind):
    path, planes, edge = tmp_path / f"a.{kind}", 64, 256
    pixels = np.broadcast_to(np.float32(0.5), (planes, edge, edge))
    images.write(path, pixels, images.from_array(pixels, "TYX"))
    tracemalloc.start()
    for _ in simulation.write_all([path], tmp_path, "stripe", {}, axes="TYX"):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < pixels.nbytes / 2
