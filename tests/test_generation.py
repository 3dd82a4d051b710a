"""New noise for given images, and new images: what comes out is what the model learned, and repeatable."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from tiny import checkpoint, shaken, stripes
from torch import Tensor

from cosdd import checkpoint as files
from cosdd import cli, config, generation
from cosdd.checkpoint import Checkpoint
from cosdd.data import Statistics
from cosdd.denoise import Denoiser
from cosdd.errors import InputError
from cosdd.model import build
from cosdd.model.blindrow import BlindRow, RowNoise

CLEAN = stripes(3)[:, 0]


def blind_row(mean=1000.0, std=100.0, **model) -> Denoiser:
    torch.manual_seed(0)
    settings = config.build("tiny", {"method": "blind-row", "model": model, "blind_row": {"features": [4]}})
    statistics = Statistics((mean,) * settings.model.channels, (std,) * settings.model.channels, 0.0)
    return Denoiser(Checkpoint(settings, statistics, build(settings).eval(), ({"step": 1.0},), 1, 1.0))


def cosdd_model(**model) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(checkpoint(1000.0, 100.0, **model))


def some_noise(channels=1) -> RowNoise:
    """Of every kind: white and correlated, both changing with the signal, offsets and a wave."""
    noise = RowNoise(channels)
    with torch.no_grad():
        noise.kernel[:, 7:10] = Tensor([1.0, -0.7, 0.3])
        for parameter, value in (
            (noise.log_white, 0.3), (noise.log_white_gain, 0.2),
            (noise.log_correlated, 0.4), (noise.log_correlated_gain, 0.3), (noise.log_offset, 0.2),
        ):  # fmt: skip
            parameter.fill_(np.log(value))
        noise.bend[0, :, :4], noise.bend[1, :, 5:] = 0.5, -0.4
        noise.log_wave.fill_(np.log(0.2))
        noise.frequency.fill_(0.9)
    return noise


# ----------------------------------------------------------------------------------- noise of blind-row models


@torch.no_grad()
def test_drawn_noise_has_the_covariance_of_the_noise_model():
    noise, width = some_noise(channels=2), 9
    signal = torch.linspace(0, 2, width).expand(2, 20_000, width)
    drawn = noise.draw(signal, torch.Generator().manual_seed(1))
    expected = noise.covariance(signal[:, :1])[:, 0]
    for channel in range(2):
        found = torch.from_numpy(np.cov(drawn[channel].numpy().T)).float()
        torch.testing.assert_close(found, expected[channel], rtol=0, atol=0.03 * float(expected.max()))
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert abs(np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1]) < 0.02


@torch.no_grad()
@pytest.mark.parametrize(("axis", "dimensions"), [("x", 2), ("y", 2), ("none", 2), ("x", 3), ("y", 3), ("z", 3)])
def test_noise_is_correlated_along_its_own_axis_only(axis, dimensions):
    network = BlindRow(dimensions=dimensions, noise_axis=axis, features=(4,))
    network.noise = some_noise()
    space = (200, 200) if dimensions == 2 else (40, 40, 40)
    drawn = network.draw_noise(torch.zeros(1, 1, *space), torch.Generator().manual_seed(0))[0, 0]
    along = {"x": dimensions - 1, "none": dimensions - 1, "y": dimensions - 2, "z": 0}[axis]
    for place in range(dimensions):
        a, b = drawn.narrow(place, 1, space[place] - 1), drawn.narrow(place, 0, space[place] - 1)
        correlation = float((a * b).mean() / drawn.square().mean())
        if place == along:
            truth = float(network.noise.covariance(torch.zeros(1, 1, 2))[0, 0, 0, 1]) / 0.9
            assert correlation == pytest.approx(truth, abs=0.06)
        else:
            assert correlation == pytest.approx(0, abs=0.03)


def test_noise_in_grey_values_is_that_which_the_model_describes():
    """Variance against signal, on an offset where float32 has few digits left."""
    model = blind_row(mean=1e6, std=50.0)
    model.checkpoint.network.noise = some_noise()  # type: ignore[union-attr]
    model.checkpoint.network.noise.bend.data.zero_()  # type: ignore[union-attr]
    described = model.noise()[0]
    for grey in (1e6, 1e6 + 100):
        made = model.generate(np.full((300, 300), grey, np.float32), seed=3)
        expected = described.gain * grey + described.variance_at_zero
        assert (made.noisy[0] - grey).var() == pytest.approx(expected, rel=0.03)
        assert (made.clean == grey).all()


def test_a_blind_row_model_has_no_images_of_its_own():
    with pytest.raises(InputError, match="--method cosdd"):
        blind_row().generate()


# ---------------------------------------------------------------------------------------- any model


@pytest.mark.parametrize("make", [blind_row, cosdd_model])
def test_versions_are_repeatable_and_independent(make):
    model = make()
    one, again, other = (model.generate(CLEAN, count=2, seed=seed) for seed in (0, 0, 1))
    assert one.noisy.shape == (2, *CLEAN.shape)
    assert one.noisy.dtype == one.clean.dtype == np.float32
    np.testing.assert_array_equal(one.clean, CLEAN)
    np.testing.assert_array_equal(one.noisy, again.noisy)
    np.testing.assert_array_equal(model.generate(CLEAN, count=1).noisy[0], one.noisy[0])
    noise = [version - CLEAN for version in (*one.noisy, *other.noisy)]
    drawn = [part[frame].ravel() - part[frame].mean() for part in noise for frame in range(3)]
    shared = np.corrcoef(drawn) - np.eye(len(drawn))
    # Versions of one frame may share what decoder and image disagree about; nothing is the same.
    assert np.abs(shared).max() < 0.9


def test_how_many_versions_go_together_changes_nothing(monkeypatch):
    model = cosdd_model()
    results = []
    for pixels in (1, 2 * 32 * 32, 2**30):
        monkeypatch.setitem(generation.PIXELS_AT_ONCE, "cpu", pixels)
        results.append(model.generate(CLEAN[0], count=5).noisy)
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0, atol=1e-2)  # 100 grey values are one


def test_axes_come_back_as_they_were():
    image = np.stack([CLEAN, CLEAN + 50.0])  # c, t, y, x
    made = blind_row(channels=2).generate(image, axes="CTYX", count=2)
    assert made.noisy.shape == (2, *image.shape)
    np.testing.assert_array_equal(made.clean, image)
    for channel in range(2):
        assert made.noisy[:, channel].mean() == pytest.approx(image[channel].mean(), abs=10)


def test_the_noise_of_a_cosdd_model_is_that_of_its_decoder():
    """A decoder that says N(code-free 0, sigma): noise around a signal decoder that says 0, whatever the image."""
    model = cosdd_model(components=1)
    network = model.checkpoint.network
    with torch.no_grad():
        for part in (network.noise.head, network.signal):  # type: ignore[union-attr]
            for parameter in part.parameters():
                parameter.zero_()
    sigma = 100 * (np.log(2) + float(network.noise.smallest_sigma))  # type: ignore[union-attr, arg-type]
    made = model.generate(CLEAN, count=4)
    assert (made.noisy - made.clean).std() == pytest.approx(sigma, rel=0.05)
    assert (made.noisy - made.clean).mean() == pytest.approx(0, abs=0.05 * sigma)


@pytest.mark.parametrize("size", [(256,), (37, 21), (5, 9, 18)])
def test_new_images_of_any_size(size):
    made = cosdd_model(dimensions=len(size)).generate(size=size, count=2, seed=5)
    assert made.clean.shape == made.noisy.shape == (2, *size)
    assert np.isfinite(made.noisy).all()
    assert made.clean.std() > 0
    assert np.abs(made.clean[0] - made.clean[1]).max() > 0
    assert np.abs(made.clean - made.noisy).max() > 0


def test_new_images_have_all_channels():
    assert cosdd_model(channels=2).generate(size=(16, 16)).noisy.shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"size": (16,)}, "2 dimension"),
        ({"size": (0, 16)}, "0x16"),
        ({"size": (10**20, 16)}, "at most"),
        ({"count": 10**11}, "at most"),
        ({"count": 2 * 10**6}, "at most"),  # of the usual size
        ({"clean": CLEAN, "count": 5 * 10**6}, "do not fit into memory, expected at most 4194304"),
        ({"clean": CLEAN, "size": (16, 16)}, "keeps its own"),
    ],
)
def test_what_cannot_be_is_refused(asked, said):
    with pytest.raises(InputError, match=said):
        cosdd_model().generate(**asked)


# -------------------------------------------------------------------------------------- the command line


def run(*arguments: object) -> int:
    """The command line in this process; returns the exit code."""
    before, sys.argv = sys.argv, ["cosdd", "generate", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two models and a stack as Fiji writes it."""
    path = tmp_path_factory.mktemp("generate")
    for name, model in (("cosdd", cosdd_model()), ("blind-row", blind_row())):
        shaken(model.checkpoint.network, 0.05)
        files.save(model.checkpoint, path / f"{name}.safetensors")
    tifffile.imwrite(
        path / "clean.tif", CLEAN, imagej=True, resolution=(5.0, 5.0), metadata={"axes": "TYX", "unit": "um"}
    )
    return path


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_noise_for_a_file(folder, method, tmp_path, capsys):
    """Numbered files of the same axes, pixel size and, if asked for, integers; twice the same for the same seed."""
    command = (folder / f"{method}.safetensors", folder / "clean.tif", "--count", 2, "--dtype", "same", "--seed", 7)
    assert run(*command, "-o", tmp_path / "a") == 0
    assert "rounded" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["clean_1.tif", "clean_2.tif"]
    with tifffile.TiffFile(tmp_path / "a" / "clean_2.tif") as file:
        assert (file.series[0].axes, file.series[0].shape, file.series[0].dtype) == ("TYX", CLEAN.shape, np.uint16)
        assert file.pages.first.tags["XResolution"].value[0] / file.pages.first.tags["XResolution"].value[1] == 5
    before = tifffile.imread(tmp_path / "a" / "clean_1.tif")
    assert run(*command, "-o", tmp_path / "a") == 2  # exists already
    (tmp_path / "a" / "clean_2.tif").unlink()
    assert run(*command, "-o", tmp_path / "a", "--resume") == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / "clean_1.tif"), before)
    assert (tmp_path / "a" / "clean_2.tif").exists()


def test_integers_are_asked_for_in_vain_where_the_file_has_floats(folder, tmp_path, capsys):
    np.save(tmp_path / "floats.npy", CLEAN[0].astype(np.float32))
    asked = (tmp_path / "floats.npy", folder / "clean.tif", "--dtype", "same", "-o", tmp_path / "a")
    assert run(folder / "blind-row.safetensors", *asked) == 0
    assert capsys.readouterr().out.count("note: the file holds floats") == 1
    assert np.load(tmp_path / "a" / "floats.npy").dtype == np.float32


def test_an_interrupt_says_what_is_kept_and_resume_what_is_there(folder, tmp_path, capsys, monkeypatch):
    versions = generation.noisy_versions

    def until(frames, *given):
        for made in versions(*given):
            if not frames:
                raise KeyboardInterrupt
            frames -= isinstance(made, generation.Generated)
            yield made

    command = (folder / "blind-row.safetensors", folder / "clean.tif", "-o", tmp_path / "a")
    for frames, said in ((0, "none of 3 frame(s) was finished yet"), (1, "1 of 3 frame(s) are kept")):
        with monkeypatch.context() as patch:
            patch.setattr(generation, "noisy_versions", partial(until, frames))
            assert run(*command) == cli.INTERRUPTED
        told = capsys.readouterr()
        assert said in told.out
        assert told.err == "cosdd: interrupted\n"
    for said in ("no file has all its results yet\n", "1 of 1 file(s) have their results already\n"):
        assert run(*command, "--resume") == 0
        assert said in capsys.readouterr().out


def test_grey_values_of_another_scale_are_noted(folder, tmp_path, capsys):
    np.save(tmp_path / "unit.npy", CLEAN[0] / 65535)
    assert run(folder / "blind-row.safetensors", tmp_path / "unit.npy", folder / "clean.tif", "-o", tmp_path / "a") == 0
    assert capsys.readouterr().out.count("note: mean grey value 0.0") == 1


def test_new_images_by_the_command_line(folder, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "cosdd", "generate", str(folder / "cosdd.safetensors")]
    command += ["--size", "20x28", "--count", "3", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("generated_clean.tif", "generated_noisy.tif"):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert (file.series[0].axes, file.series[0].shape) == ("TYX", (3, 20, 28))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["blind-row.safetensors"], "name images"),
        (["cosdd.safetensors", "--size", "a few"], "256x256"),
        (["cosdd.safetensors", "--size", "8x8x8"], "2 dimension"),
        (["cosdd.safetensors", "clean.tif", "--size", "8x8"], "--size"),
        (["cosdd.safetensors", "--dtype", "same"], "float32"),
        (["cosdd.safetensors", "--count", "0"], "at least 1"),
        (["cosdd.safetensors", "--count", "99999999999"], "at most"),
        (["cosdd.safetensors", "clean.tif", "--count", "10001"], "at most 10,000"),
        (["cosdd.safetensors", "clean.tif", "-o", "."], "replace the input"),
    ],
)
def test_faults_are_told_in_one_line_and_nothing_is_written(folder, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run(*arguments) == 2
    complaint = capsys.readouterr().err
    assert len(complaint.splitlines()) == 1
    assert said in complaint
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("model", [blind_row, cosdd_model])
def test_an_image_that_holds_the_noise_already_is_told(model):
    """What comes out is taken for noise over a truth; of a noisy image it would be noise over noise."""
    y, x = np.mgrid[:96, :96]
    clean = (1000 + 80 * np.sin(x / 15) * np.cos(y / 13))[None, None].astype(np.float32)
    known = model().checkpoint
    noise = next(
        made for made in generation.noisy_versions(known, clean, generation.Settings()) if not isinstance(made, float)
    )
    assert generation.doubts(known, clean) == []
    assert generation.doubts(known, clean + 0.3 * (noise.noisy - clean)) == []  # what a denoiser leaves
    (line,) = generation.doubts(known, noise.noisy[:1] + 0 * clean)
    assert line.startswith("holds noise itself, of standard deviation")
    assert generation.doubts(known, clean[..., :9, :]) == []  # too few rows to tell
