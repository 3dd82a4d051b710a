"""What a user does, through the real command line."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import cosdd as cosdd_module
from cosdd import checkpoint as files
from cosdd import cli, images, lazy, preview, simulate, training
from cosdd.specimen import specimen

TINY = [  # a network that trains in a second
    "--set", "model.levels=2", "--set", "model.features=8", "--set", "model.max_features=8",
    "--set", "model.noise_features=8", "--set", "model.direct_features=8", "--set", "blind_row.features=[8, 8]",
    "--set", "train.crop=16", "--set", "train.batch=2", "--set", "train.steps=6",
]  # fmt: skip


def cosdd(*arguments: object) -> int:
    """Run the command line in this process; returns the exit code."""
    before = sys.argv
    sys.argv = ["cosdd", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def process(*arguments: object) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "cosdd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Path:
    """An ImageJ stack as Fiji writes it (big-endian, odd size, pixel size) of row-noisy frames."""
    rng = np.random.default_rng(0)
    clean = specimen(12, 48, 0)[:, :37, :45]
    noisy = np.clip(simulate.heavy(clean, rng) * 200 + 300, 0, 65535).astype(">u2")
    path = tmp_path_factory.mktemp("data") / "my stack.tif"
    tifffile.imwrite(
        path, noisy, imagej=True, byteorder=">", resolution=(5.0, 5.0), metadata={"axes": "TYX", "unit": "um"}
    )
    return path


@pytest.fixture(scope="module", params=["blind-row", "cosdd"])
def trained(request, stack, tmp_path_factory) -> tuple[str, Path]:
    model = tmp_path_factory.mktemp("model") / "model.safetensors"
    assert cosdd("train", stack, "-o", model, "--method", request.param, "--noise-axis", "x", *TINY) == 0
    return request.param, model


def test_train_then_denoise_keeps_name_axes_and_pixel_size(trained, stack, tmp_path, capsys):
    _, model = trained
    assert cosdd("denoise", model, stack, "-o", tmp_path / "out", "--samples", 3, "--std") == 0
    with tifffile.TiffFile(tmp_path / "out" / "my stack.tif") as file:
        series = file.series[0]
        assert (series.axes, series.shape, series.dtype) == ("TYX", (12, 37, 45), np.float32)
        assert file.pages.first.tags["XResolution"].value[0] / file.pages.first.tags["XResolution"].value[1] == 5
        denoised = series.asarray()
    noisy = tifffile.imread(stack).astype(float)
    assert abs(denoised.mean() - noisy.mean()) < 0.2 * noisy.std()
    std = tifffile.imread(tmp_path / "out" / "my stack_std.tif")
    assert std.shape == noisy.shape
    assert (std > 0).all()


def test_the_end_of_training_says_what_to_run_next_and_it_runs(stack, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cosdd("train", stack, *TINY, "--seed", 1) == 0
    printed = capsys.readouterr().out
    assert "12 x 37 x 45 (TYX), uint16, pixel size 0.2 x 0.2 micrometer" in printed
    assert "learned noise: variance = " in printed
    assert (tmp_path / "my stack.safetensors").exists()
    history = (tmp_path / "my stack.history.csv").read_text().splitlines()
    assert "nll" in history[0]
    assert len(history) > 1
    line = next(line for line in printed.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    command = f"{sys.executable} -m {line} --samples 2"
    assert subprocess.run(command, shell=True, capture_output=True).returncode == 0
    assert (tmp_path / "denoised" / "my stack.tif").exists()


def test_a_folder_is_trained_on_again_beside_the_picture_of_the_first_training(stack, tmp_path, monkeypatch, capsys):
    shutil.copy(stack, tmp_path / "a.tif")
    command = ("train", tmp_path, "-o", tmp_path / "a.safetensors", "--noise-axis", "x", *TINY)
    assert cosdd(*command) == 0
    picture = tmp_path / "a.preview.png"
    first = picture.read_bytes()
    assert "look at" in capsys.readouterr().out

    def poor(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(preview, "write", poor)
    assert cosdd(*command, "--overwrite") == 0
    assert "note: CUDA out of memory" in capsys.readouterr().out
    assert picture.read_bytes() == first


def test_same_steps_and_seed_give_the_same_pixels(stack, tmp_path):
    for run in ("a", "b"):
        assert cosdd("train", stack, "-o", tmp_path / run / "m.safetensors", "--noise-axis", "x", *TINY) == 0
        assert cosdd("denoise", tmp_path / run / "m.safetensors", stack, "-o", tmp_path / run, "--samples", 2) == 0
    first, second = (tifffile.imread(tmp_path / run / "my stack.tif") for run in ("a", "b"))
    np.testing.assert_array_equal(first, second)


def test_long_and_narrow_images_are_finite_and_the_same_again(trained, tmp_path):
    """In bfloat16 on some processors they were neither: see `device.sound`."""
    _, model = trained
    np.save(tmp_path / "narrow.npy", np.random.default_rng(1).normal(450, 30, (1000, 3)).astype(np.float32))
    for run in ("a", "b"):
        assert cosdd("denoise", model, tmp_path / "narrow.npy", "-o", tmp_path / run, "--samples", 2) == 0
    first, second = (np.load(tmp_path / run / "narrow.npy") for run in ("a", "b"))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_model_that_makes_no_sense_writes_nothing(trained, stack, tmp_path, capsys, value):
    method, model = trained
    network = files.load(model)
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.fill_(value)
    files.save(network, tmp_path / "bad.safetensors")
    capsys.readouterr()
    assert cosdd("denoise", tmp_path / "bad.safetensors", stack, "-o", tmp_path / "out", "--samples", 2) == 2, method
    said = capsys.readouterr().err
    assert "what the model gives is not finite" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_scores_never_replace_an_image(stack, tmp_path, capsys):
    image = tmp_path / "a.tif"
    image.write_bytes(stack.read_bytes())
    assert cosdd("evaluate", image, stack, "--csv", image, "--overwrite") == 2
    assert "expected a name that ends in .csv" in capsys.readouterr().err
    assert image.read_bytes() == stack.read_bytes()


def test_dtype_same_rounds_clips_and_says_so(trained, stack, tmp_path, capsys):
    method, model = trained
    assert cosdd("denoise", model, stack, "-o", tmp_path, "--samples", 2, "--tile", 32, "--dtype", "same") == 0
    assert tifffile.imread(tmp_path / "my stack.tif").dtype == np.uint16
    told = capsys.readouterr().out
    assert "rounded" in told
    for option in ("--samples", "--tile"):
        assert (f"note: {option} changes nothing" in told) == (method == "blind-row")


def test_samples_and_direct_denoiser(trained, stack, tmp_path, capsys):
    method, model = trained
    code = cosdd("denoise", model, stack, "-o", tmp_path / "s", "--samples", 4, "--save-samples", 2)
    direct = cosdd("denoise", model, stack, "-o", tmp_path / "d", "--direct", "--tile", "none")
    if method == "cosdd":
        assert (code, direct) == (0, 0)
        one, two = (tifffile.imread(tmp_path / "s" / f"my stack_sample{i}.tif") for i in (1, 2))
        assert np.abs(one - two).max() > 0
        assert (tmp_path / "d" / "my stack.tif").exists()
    else:
        assert (code, direct) == (2, 2)
        assert "--method cosdd" in capsys.readouterr().err
        assert not list(tmp_path.rglob("*.tif"))


def test_samples_as_many_as_it_takes_unless_somebody_says(trained, stack, tmp_path, capsys):
    """Said with the results; a blind-row model draws none, and its plain result is the closed form, not refined."""
    method, model = trained
    capsys.readouterr()
    for name, asked in (("auto", ()), ("few", ("--samples", 3)), ("plain", ("--plain", "--samples", 3))):
        assert cosdd("denoise", model, stack, "-o", tmp_path / name, *asked) == 0
        said = re.findall(r"mean of (\d+)(?: to \d+)? samples", capsys.readouterr().out)
        assert said == ([] if method == "blind-row" else ["8" if name == "auto" else "3"])
    few, plain = (tifffile.imread(tmp_path / name / "my stack.tif") for name in ("few", "plain"))
    assert np.abs(few - plain).max() > 0


def test_a_bad_file_in_a_folder_does_not_stop_the_others(trained, stack, tmp_path, capsys):
    _, model = trained
    folder = tmp_path / "in"
    folder.mkdir()
    good = tifffile.imread(stack)[0]
    tifffile.imwrite(folder / "a.tif", good)
    (folder / "b.tif").write_bytes(b"II*\0 this is no image")
    tifffile.imwrite(folder / "c.tif", good[:20, :23])
    assert cosdd("denoise", model, folder, "-o", tmp_path / "out", "--samples", 2) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "b.tif" in errors[0]


def test_demo_writes_pictures_model_and_summary(tmp_path):
    done = process("demo", "-o", tmp_path / "demo", *TINY, "--set", "train.steps=30", "--samples", 2)
    assert done.returncode == 0, done.stderr
    assert "only 30 steps: barely trained" in done.stdout
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    for name in ("psnr_noisy", "psnr_denoised", "psnr_gaussian", "train_seconds", "total_seconds"):
        assert summary[name] > 0
    assert 14.5 < summary["psnr_noisy"] < 16.5
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {
        "before_after.png",
        "report.html",
        "model.safetensors",
        "denoised.tif",
        "noisy_test.tif",
        "clean_test.tif",
    } <= names
    line = next(line for line in done.stdout.splitlines() if "cosdd evaluate" in line)
    assert "for a longer training, give the same command with a longer --time and --overwrite" in done.stdout
    scores = json.loads(process(*shlex.split(line.split("cosdd ")[1]), "--json").stdout)["scores"]["denoised"]
    assert scores["psnr_range"]["mean"] == pytest.approx(summary["psnr_denoised"], abs=0.01)
    again = process("demo", "-o", tmp_path / "demo", *TINY)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_interrupted_training_keeps_the_best_model(stack, tmp_path):
    model = tmp_path / "m.safetensors"
    command = [sys.executable, "-m", "cosdd", "train", stack, "-o", model, "--noise-axis", "x", *TINY]
    command += ["--set", "train.steps=1000000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while "budget" not in running.stdout.readline():
        assert running.poll() is None
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    assert "keeping the best model" in out
    assert cosdd("denoise", model, stack, "-o", tmp_path / "out", "--samples", 2) == 0


def test_what_an_interrupted_training_lacks_is_said(stack, tmp_path, monkeypatch, capsys):
    fit = training.fit

    def interrupted(run):
        for record in fit(run):
            yield record
            if record.step == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    command = ("train", stack, "-o", tmp_path / "m.safetensors", "--noise-axis", "x", "--method", "cosdd", *TINY)
    assert cosdd(*command, "--set", "train.steps=20") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "only 3 steps: barely trained" in said
    assert "to go on with this run, give the same command with --resume" in said
    assert "note: the direct denoiser had too little time to learn" in said


def _save(path: Path, array: np.ndarray) -> Path:
    tifffile.imwrite(path, array, photometric="minisblack")
    return path


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(100, 10, shape).astype(np.float32)


def _with(array: np.ndarray, value: float) -> np.ndarray:
    array[..., 3, 3] = value
    return array


BAD_TRAINING = {
    "missing file": (lambda d: [d / "none.tif"], "none.tif"),
    "not an image": (lambda d: [(d / "a.txt").write_text("hello") and d / "a.txt"], "a.txt"),
    "broken tiff": (lambda d: [(d / "a.tif").write_bytes(b"hello") and d / "a.tif"], "a.tif"),
    "jpeg": (lambda d: [(d / "a.jpg").write_bytes(b"hello") and d / "a.jpg"], "use the raw data"),
    "cut short": (lambda d: [_cut(_save(d / "a.tif", _noise(3, 40, 40)))], "a.tif: cannot be read: the file is cut"),
    "one of a folder": (
        lambda d: [_cut(_save(d / "a.tif", _noise(40, 40))) and _save(d / "b.tif", _noise(40, 40)) and d],
        "a.tif: cannot be read: the file is cut short; expected a complete image file; copy it again, or open it in "
        "Fiji and save it as TIFF, or leave it out; nothing is learned from the others alone: remove this file, or "
        "name those to learn from",
    ),
    "empty folder": (lambda d: [d], "in"),
    "wrong axes": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--axes", "YX"], "--axes"),
    "repeated axes": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--axes", "YYX"], "YYX"),
    "nan": (lambda d: [_save(d / "a.tif", _with(_noise(3, 40, 40), np.nan))], "NaN"),
    "infinite": (lambda d: [_save(d / "a.tif", _with(_noise(3, 40, 40), np.inf))], "nfinit"),
    "constant": (lambda d: [_save(d / "a.tif", np.full((3, 40, 40), 7, np.uint8))], "every pixel is 7"),
    "unknown setting": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--set", "train.lrr=1"], "train.lr"),
    "bad setting": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--set", "train.lr=fast"], "train.lr"),
    "bad time": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--time", "soon"], "--time 'soon'"),
    "no time": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--time", "0s"], "--time '0s'"),
    "bad seed": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--seed", -1], "--seed -1"),
    "two seeds": (
        lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--seed", 5, "--set", "train.seed=6"],
        "--seed 5 and --set train.seed=6 contradict each other",
    ),
    "two times": (
        lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--time", "1m", "--set", "train.time=61"],
        "--time 1m and --set train.time=61 contradict each other",
    ),
    "two noise axes": (
        lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--noise-axis", "x", "--set", "model.noise_axis=y"],
        "--noise-axis x and --set model.noise_axis=y contradict each other",
    ),
    "other channels than there are": (
        lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--set", "model.channels=2"],
        "a.tif: 1 channel(s), but model.channels is given as 2",
    ),
    "a section twice": (
        lambda d: [
            _save(d / "a.tif", _noise(3, 40, 40)), "--config",
            (d / "c.yaml").write_text("train: {seed: 1}\nmodel: {levels: 2}\ntrain: {lr: 0.1}\n") and d / "c.yaml",
        ],
        "train is given twice",
    ),
    "unknown preset": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--preset", "huge"], "huge"),
    "unknown method": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--method", "magic"], "method"),
    "unknown noise axis": (lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--noise-axis", "w"], "noise axis"),
    "noise axis that is not there": (
        lambda d: [_save(d / "a.tif", _noise(3, 40, 40)), "--noise-axis", "z", "--axes", "TYX"],
        "axis Z is missing",
    ),
    "too small": (lambda d: [_save(d / "a.tif", _noise(6, 6))], "small"),
    "single row": (lambda d: [_save(d / "a.tif", _noise(1, 400)), "--axes", "YX"], "small"),
    "different channels": (
        lambda d: [
            _save(d / "a.tif", _noise(2, 40, 40)), _save(d / "b.tif", _noise(3, 40, 40)), "--axes", "CYX",
        ],
        "channel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_training_input_is_one_line_and_leaves_nothing(case, tmp_path, capsys):
    arguments, told = BAD_TRAINING[case]
    folder = tmp_path / "in"
    folder.mkdir()
    output = tmp_path / "out" / "m.safetensors"
    code = cosdd("train", *arguments(folder), "-o", output, "--set", "train.steps=1")
    error = capsys.readouterr().err
    assert code == 2, error
    assert len(error.strip().splitlines()) == 1, error
    assert told.lower() in error.lower()
    assert not output.parent.exists()


def test_one_value_said_in_two_ways_is_no_contradiction(stack, tmp_path):
    twice = ["--time", "60s", "--set", "train.time=1m", "--seed", 5, "--set", "train.seed=5", *TINY, *TINY]
    assert cosdd("train", stack, "-o", tmp_path / "m.safetensors", "--noise-axis", "x", *twice) == 0


def test_samples_asked_of_a_model_that_draws_none_are_said_to_change_nothing(trained, stack, tmp_path, capsys):
    method, model = trained
    assert cosdd("denoise", model, stack, "-o", tmp_path, "--samples", 2) == 0
    assert ("--samples changes nothing" in capsys.readouterr().out) == (method == "blind-row")


def test_what_is_not_read_of_a_folder_is_said(tmp_path, capsys):
    _save(tmp_path / "a.tif", _noise(3, 40, 40))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "deeper").mkdir()
    told = "1 subfolder and 1 other file not read"
    assert cosdd("inspect", tmp_path) == 0
    assert capsys.readouterr().out.count(told) == 1
    assert cosdd("inspect", tmp_path, "--json") == 0
    json.loads(capsys.readouterr().out)
    assert cosdd("train", tmp_path, "-o", tmp_path / "m.safetensors", "--method", "blind-row", *TINY) == 0
    assert capsys.readouterr().out.count(told) == 1


BAD_DENOISING = {
    "missing model": (lambda d, m, s: [d / "none.safetensors", s], "none.safetensors"),
    "not a model": (lambda d, m, s: [s, s], "expected a model file"),
    "no model": (lambda d, m, s: [s], "the model comes first"),
    "no model, a folder": (lambda d, m, s: [d], "the model comes first"),
    "images first": (lambda d, m, s: [s, m], "the model comes first, as in cosdd denoise MODEL IMAGES"),
    "folder first": (lambda d, m, s: [d, m], "the model comes first"),
    "a file to write": (lambda d, m, s: [m, s, "-o", d / "a.ome.tif"], "-o is a folder"),
    "other channels": (lambda d, m, s: [m, _save(d / "c.tif", _noise(2, 40, 40)), "--axes", "CYX"], "channel"),
    "no rows": (lambda d, m, s: [m, _save(d / "l.tif", _noise(1, 400)), "--axes", "TX"], "axes TX for"),
    "nan": (lambda d, m, s: [m, _save(d / "n.tif", _with(_noise(40, 40), np.nan))], "NaN"),
    "no samples": (lambda d, m, s: [m, s, "--samples", 0], "samples"),
    "bad samples": (lambda d, m, s: [m, s, "--samples", "some"], "--samples some"),
    "bad dtype": (lambda d, m, s: [m, s, "--dtype", "uint7"], "uint7"),
    "bad tile": (lambda d, m, s: [m, s, "--tile", "big"], "--tile big"),
    "no tile": (lambda d, m, s: [m, s, "--tile", "0"], "tile is 0"),
    "std without samples": (lambda d, m, s: [m, s, "--direct", "--std"], "--std"),
    "output is input": (lambda d, m, s: [m, s, "-o", s.parent, "--overwrite"], "replace the input"),
}


@pytest.mark.parametrize("case", BAD_DENOISING)
def test_bad_denoising_input_is_one_line_and_leaves_nothing(case, trained, stack, tmp_path, capsys):
    arguments, told = BAD_DENOISING[case]
    _, model = trained
    capsys.readouterr()
    data = tmp_path / "in"
    data.mkdir()
    before = stack.read_bytes()
    code = cosdd("denoise", "-o", tmp_path / "out", *arguments(data, model, stack))
    error = capsys.readouterr().err
    assert code == 2, error
    assert len(error.strip().splitlines()) == 1, error
    assert told.lower() in error.lower()
    assert not (tmp_path / "out").exists()
    assert stack.read_bytes() == before


def test_existing_outputs_are_not_replaced_unasked(trained, stack, tmp_path, capsys):
    _, model = trained
    (tmp_path / "my stack.tif").write_text("precious")
    assert cosdd("denoise", model, stack, "-o", tmp_path, "--samples", 2) == 2
    assert cosdd("train", stack, "-o", model) == 2
    assert (tmp_path / "my stack.tif").read_text() == "precious"
    assert capsys.readouterr().err.count("--overwrite") == 2
    assert cosdd("denoise", model, stack, "-o", tmp_path, "--samples", 2, "--overwrite") == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_version_and_help():
    assert process("--version").stdout.startswith("cosdd ")
    done = process("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("train", "denoise", "inspect", "demo"))


def test_a_killed_batch_goes_on_where_it_was(trained, stack, tmp_path):
    _, model = trained
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = tifffile.imread(stack)
    for index in range(4):
        tifffile.imwrite(folder / f"{index}.tif", np.roll(pixels, index, 0), metadata={"axes": "TYX"})
    assert cosdd("denoise", model, folder, "-o", tmp_path / "whole", "--std") == 0

    out = tmp_path / "out"
    command = [sys.executable, "-m", "cosdd", "denoise", model, folder, "-o", out, "--std"]
    running = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while not (out / "0.tif").exists() and running.poll() is None:
        time.sleep(0.002)
    running.kill()
    running.wait()
    assert not (out / "3_std.tif").exists()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("0*.tif")} if (out / "0_std.tif").exists() else {}
    broken = (folder / "2.tif").read_bytes()
    (folder / "2.tif").write_bytes(broken[:200])
    assert cosdd("denoise", model, folder, "-o", out, "--std", "--resume") == 1  # the others are done
    (folder / "2.tif").write_bytes(broken)
    assert cosdd("denoise", model, folder, "-o", out, "--std", "--resume") == 0
    for path in (tmp_path / "whole").iterdir():
        np.testing.assert_array_equal(tifffile.imread(out / path.name), tifffile.imread(path))
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())


def test_images_unlike_the_training_images_are_named(trained, stack, tmp_path, capsys):
    _, model = trained
    pixels = tifffile.imread(stack)
    for name, array in (("same", pixels), ("other", (pixels * 5.0 + 4000).astype(np.float32))):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, metadata={"axes": "TYX"})
        assert cosdd("denoise", model, tmp_path / f"{name}.tif", "-o", tmp_path / "out", "--samples", 2) == 0
        assert ("train a model on them" in capsys.readouterr().out) == (name == "other")


# ---- OME-Zarr


@pytest.fixture(scope="module")
def store(stack, tmp_path_factory) -> Path:
    """The same frames as an OME-Zarr store."""
    image = images.read(stack)
    path = tmp_path_factory.mktemp("data") / "my stack.zarr"
    images.write(path, np.asarray(image.data), like=image)
    return path


@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_a_store_goes_through_every_verb(trained, stack, store, tmp_path, capsys):
    """With the results that the same frames give as TIFF, and as a store again."""
    _, model = trained
    asked = ("--samples", 2, "--std")
    assert cosdd("denoise", model, stack, "-o", tmp_path / "tif", *asked) == 0
    assert cosdd("denoise", model, store, "-o", tmp_path / "zarr", *asked, "--dtype", "same") == 0
    assert cosdd("denoise", model, stack, "-o", tmp_path / "other", *asked, "--format", "ome.zarr") == 0
    assert sorted(p.name for p in (tmp_path / "zarr").iterdir()) == ["my stack.zarr", "my stack_std.zarr"]
    for name in ("my stack", "my stack_std"):
        expected = tifffile.imread(tmp_path / "tif" / f"{name}.tif")
        found = images.read(tmp_path / "other" / f"{name}.ome.zarr")
        np.testing.assert_array_equal(np.asarray(found.data), expected)
        assert found.describe().endswith("12 x 37 x 45 (TYX), float32, pixel size 0.2 x 0.2 micrometer")
    rounded = images.read(tmp_path / "zarr" / "my stack.zarr")
    assert rounded.data.dtype == np.uint16
    np.testing.assert_allclose(np.asarray(rounded.data), tifffile.imread(tmp_path / "tif" / "my stack.tif"), atol=0.6)

    asked = ("--noise-axis", "x", *TINY)
    for source in (stack, store):
        assert cosdd("train", source, "-o", tmp_path / source.suffix / "m.safetensors", *asked) == 0
    a, b = (cosdd_module.load(tmp_path / suffix / "m.safetensors").checkpoint for suffix in (".tif", ".zarr"))
    assert a.statistics == b.statistics
    weights = b.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in a.network.state_dict().items())
    capsys.readouterr()
    found = []
    for source in (stack, store):
        assert cosdd("inspect", source, "--json") == 0
        found.append(json.loads(capsys.readouterr().out) | {"file": ""})
    assert found[0] == found[1]
    assert [note.partition(" pixels")[0] for note in found[0]["notes"]] == ["only 19,980"]
    assert cosdd("report", model, store, "-o", tmp_path / "r.html") == 0
    assert cosdd("evaluate", tmp_path / "other" / "my stack.ome.zarr", store, "--frames", "--json") == 0
    assert cosdd("simulate", "stripe", store, "-o", tmp_path / "s") == 0
    assert images.read(tmp_path / "s" / "noisy" / "my stack.zarr").data.shape == (12, 37, 45)


@pytest.mark.skipif(os.name == "nt", reason="links")
@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_resume_names_a_store_that_cannot_be_read_and_does_the_others(trained, store, tmp_path, capsys):
    _, model = trained
    for name in "abc":
        shutil.copytree(store, tmp_path / "in" / f"{name}.zarr")
    (tmp_path / "in" / "b.zarr" / "0" / "more").symlink_to("nowhere")
    for made, begun in ((2, 0), (1, 1), (0, 2)):  # results that are missing, and that are there
        capsys.readouterr()
        assert cosdd("denoise", model, tmp_path / "in", "-o", tmp_path / "out", "--resume") == 1
        said = capsys.readouterr()
        assert (f"{begun} of 3 file(s) have their results already" if begun else "no file has all") in said.out
        assert f"denoised {made} of {made + 1} file(s)" in said.out
        assert len(said.err.strip().splitlines()) == 1
        assert "b.zarr: cannot be read" in said.err
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.zarr", "c.zarr"]
        if made == 2:
            shutil.rmtree(tmp_path / "out" / "c.zarr")


@pytest.mark.parametrize("kind", ["tif", "npy", "zarr"])
@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_a_disk_that_fails_for_a_moment_costs_no_frame(kind, trained, stack, tmp_path, capsys, monkeypatch):
    _, model = trained
    noisy, out = tmp_path / f"noisy.{kind}", tmp_path / "out"
    image = images.read(stack)
    images.write(tmp_path / "noisy.zarr", np.asarray(image.data), image)
    tifffile.imwrite(tmp_path / "noisy.tif", image.data, compression="zlib", metadata={"axes": "TYX"})
    np.save(tmp_path / "noisy.npy", image.data)
    monkeypatch.setattr(lazy, "LARGE", 0)
    monkeypatch.setattr(lazy._KEPT, "most", 0)
    command = ("denoise", model, noisy, "--axes", "TYX", "-o")

    def failing(path, *given, works=open, **more):
        if str(path).startswith(str(noisy)) and len(list(out.glob(".*.frames/*.npz"))) == 3:
            raise OSError(errno.EIO, "Input/output error")
        return works(path, *given, **more)

    assert cosdd(*command, tmp_path / "whole") == 0
    monkeypatch.setattr("io.open" if kind == "zarr" else "builtins.open", failing)
    assert cosdd(*command, out) == 2
    said = capsys.readouterr()
    assert "Input/output error" in said.err
    assert "check the disk" in said.err
    assert "3 of 12 frame(s) are kept" in said.out
    monkeypatch.undo()
    assert cosdd(*command, out, "--resume") == 0
    assert "3 of 12 frame(s) are there already" in capsys.readouterr().out
    found, whole = (np.asarray(images.read(place / noisy.name, "TYX").data) for place in (out, tmp_path / "whole"))
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_a_store_in_a_folder_of_images_counts_as_one(trained, stack, store, tmp_path):
    _, model = trained
    (tmp_path / "in").mkdir()
    shutil.copytree(store, tmp_path / "in" / "b.zarr")
    shutil.copy(stack, tmp_path / "in" / "a.tif")
    assert cosdd("denoise", model, tmp_path / "in", "-o", tmp_path / "out", "--samples", 2) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "b.zarr"]
    assert cosdd("denoise", model, tmp_path / "in", "-o", tmp_path / "out", "--samples", 2) == 2
    assert cosdd("denoise", model, tmp_path / "in" / "b.zarr", "-o", tmp_path / "in" / "b.zarr") == 2
    assert cosdd("denoise", model, tmp_path / "in" / "b.zarr", "-o", tmp_path / "in", "--overwrite") == 2


BAD_STORES = {
    "cut chunk": (lambda p: os.truncate(next(f for f in p.rglob("*") if f.name == "0" and f.is_file()), 60), "cut off"),
    "no metadata of the array": (lambda p: (p / "0" / "zarr.json").unlink(), "no array"),
    "no array": (lambda p: shutil.rmtree(p / "0"), "no array"),
    "no metadata": (lambda p: (p / "zarr.json").unlink(), "without an image"),
    "half of the metadata": (lambda p: os.truncate(p / "zarr.json", 300), "cannot be read"),
    "names of axes": (lambda p: _replace(p / "zarr.json", '"name": "y"', '"name": "x"'), "axes unclear"),
    "version": (lambda p: _replace(p / "zarr.json", '"0.5"', '"0.9"'), "0.9"),
    "link": (lambda p: _link(p / "0" / "c"), "link"),
    "escape": (lambda p: _replace(p / "zarr.json", '"path": "0"', '"path": "../b.zarr/0"'), "inside the store"),
    "objects": (lambda p: _replace(p / "0" / "zarr.json", '"uint16"', '"string"'), "integers or floats"),
}


def _replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def _link(folder: Path) -> None:
    folder.rename(folder.parent.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent.parent / "elsewhere")


@pytest.mark.parametrize("case", BAD_STORES)
@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_a_bad_store_is_one_line_and_leaves_nothing(case, trained, store, tmp_path, capsys):
    spoil, told = BAD_STORES[case]
    _, model = trained
    path = tmp_path / "bad.zarr"
    shutil.copytree(store, path)
    spoil(path)
    new = tmp_path / "m.safetensors"
    for command in (("denoise", model, path, "-o", tmp_path / "out"), ("train", path, "-o", new, *TINY)):
        capsys.readouterr()
        assert cosdd(*command) == 2
        error = capsys.readouterr().err
        assert len(error.strip().splitlines()) == 1
        assert told in error
        assert "bad.zarr" in error
    assert not (tmp_path / "out").exists()
    assert not new.exists()


@pytest.mark.parametrize("trained", ["blind-row"], indirect=True)
def test_a_killed_run_leaves_no_part_of_a_store(trained, store, tmp_path):
    """What is there under its name is whole; the same command with --resume ends with the same pixels."""
    _, model = trained
    for index in range(2):
        shutil.copytree(store, tmp_path / "in" / f"{index}.zarr")
    command = ["denoise", model, tmp_path / "in", "--samples", 2, "--std", "-o"]
    assert cosdd(*command, tmp_path / "whole") == 0
    expected = {p.name: np.asarray(images.read(p).data) for p in (tmp_path / "whole").iterdir()}
    assert len(expected) == 4
    out, rng = tmp_path / "out", np.random.default_rng(0)
    for _ in range(2):
        running = subprocess.Popen([sys.executable, "-m", "cosdd", *map(str, command), out, "--resume"])
        while running.poll() is None and not out.exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.4))
        running.kill()
        running.wait()
        for path in out.glob("[!.]*"):
            np.testing.assert_array_equal(np.asarray(images.read(path).data), expected[path.name])
    assert cosdd(*command, out, "--resume") == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(expected)
    for name, pixels in expected.items():
        np.testing.assert_array_equal(np.asarray(images.read(out / name).data), pixels)
