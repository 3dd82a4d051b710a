"""Scores that can be believed: known truth, known noise, the real command line."""

import csv
import importlib.util
import json
import tracemalloc

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from cosdd import evaluation, metrics, simulate
from cosdd.cli import app
from cosdd.errors import InputError
from cosdd.specimen import specimen


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    clean = 100 + 50 * np.sin(np.arange(64) / 5)[:, None] * np.cos(np.arange(48) / 7)
    frames = clean + rng.normal(0, 20, (12, 64, 48))
    denoised = clean + rng.normal(0, 6, frames.shape)
    return clean, frames, denoised


def test_scores_are_those_of_the_metrics(scene):
    clean, noisy, denoised = scene
    found = evaluation.evaluate(denoised, clean[None], noisy, data_range=255)
    truth = np.broadcast_to(clean, denoised.shape)
    for name, stack in (("denoised", denoised), ("noisy", noisy)):
        scores = found.scores[name]
        assert scores["mse"].mean == pytest.approx(np.mean((stack - clean) ** 2))
        assert scores["psnr_range"].mean == pytest.approx(metrics.psnr(stack, truth, 255))
        assert scores["psnr"].mean == pytest.approx(metrics.psnr(stack, truth, "reference"))
        assert scores["si_psnr"].mean == pytest.approx(metrics.scale_invariant_psnr(stack, truth))
        assert scores["ssim"].mean == pytest.approx(metrics.ssim(stack, truth, 255))
    assert found.scores["gaussian"]["mse"].mean < found.scores["noisy"]["mse"].mean
    assert found.gaussian_sigma > 0


def test_microssim_is_shown_where_it_is_installed(scene):
    clean, _, denoised = scene
    found = evaluation.evaluate(denoised[:2], clean[None])
    if importlib.util.find_spec("microssim") is None:
        assert "microssim" not in found.scores["denoised"]
        pytest.skip("package microssim is not here")
    brighter = evaluation.evaluate(denoised[:2] * 3 + 500, clean[None])
    assert found.scores["denoised"]["microssim"].mean == pytest.approx(
        brighter.scores["denoised"]["microssim"].mean, abs=0.02
    )
    assert any(line.startswith("microssim: ") for line in found.lines())


def test_other_frames_give_the_error_against_the_clean_image_without_bias(scene):
    """The noise of the mean of 11 frames is 36 grey values squared, as much as the error it has to measure."""
    clean, frames, denoised = scene
    found = evaluation.evaluate(denoised, frames, frames=True)
    for name, stack in (("denoised", denoised), ("noisy", frames)):
        truth = np.mean((stack - clean) ** 2)
        assert found.scores[name]["mse"].mean == pytest.approx(truth, rel=0.03)
        truth = metrics.affine_mse(stack, np.broadcast_to(clean, stack.shape))
        assert found.scores[name]["affine_mse"].mean == pytest.approx(truth, rel=0.03)
    plain = np.mean([np.mean((d - np.delete(frames, i, 0).mean(0)) ** 2) for i, d in enumerate(denoised)])
    assert plain > 1.8 * np.mean((denoised - clean) ** 2)


def test_swapped_arguments_are_asked_about_and_the_filter_is_compared_with_in_decibels(scene):
    _, frames, denoised = scene
    found = evaluation.evaluate(denoised, frames, frames=True)
    assert found.doubt() is None
    scores = {name: found.scores[name]["mse"].mean for name in ("gaussian", "denoised")}
    better = 10 * np.log10(scores["gaussian"] / scores["denoised"])
    said = f"{abs(better):.2f} dB {'better' if better > 0 else 'worse'} by mse"
    assert any(line.startswith(f"denoised against that filter: {said}") for line in found.lines())
    swapped = evaluation.evaluate(frames, denoised, frames=True)
    assert "were the two swapped" in (swapped.doubt() or "")


def test_another_scene_or_another_scale_is_asked_about():
    clean = specimen(4, 96, 0)
    noisy = clean + np.random.default_rng(1).normal(0, 0.05, clean.shape)
    assert evaluation.evaluate(noisy, clean).doubt() is None
    assert "same scenes, in the same order" in (evaluation.evaluate(noisy[::-1], clean).doubt() or "")
    assert "another scale" in (evaluation.evaluate(noisy + 1, clean).doubt() or "")
    assert "another scale" in (evaluation.evaluate(100 * noisy, clean).doubt() or "")
    much_noise = noisy + np.random.default_rng(2).normal(0, 0.5, clean.shape)
    nearly = clean + 0.005 + np.random.default_rng(2).normal(0, 0.002, clean.shape)
    for fine in (np.zeros_like(clean), clean, much_noise, nearly):
        assert evaluation.evaluate(fine, clean).doubt() is None
    dots = (np.random.default_rng(3).random(clean.shape) < 0.01).astype(float)
    assert evaluation.evaluate(np.stack([metrics.gaussian(each, 1.0) for each in dots]), dots).doubt() is None  # a blur
    clean[0, 0, 0] = np.nan
    assert "same scenes" in (evaluation.evaluate(noisy[::-1], clean).doubt() or "")


def test_the_interval_holds_the_mean_of_more_images():
    rng = np.random.default_rng(1)
    clean, held = np.zeros((1, 16, 16)), 0
    for _ in range(100):
        spread = rng.uniform(1, 3, 20)  # images differ; the mean error of all that could be is 13/3
        score = evaluation.evaluate(rng.normal(size=(20, 16, 16)) * spread[:, None, None], clean).scores["denoised"][
            "mse"
        ]
        held += score.low < 13 / 3 < score.high
    assert 85 <= held <= 99


def test_one_image_has_no_interval(scene):
    clean, _, denoised = scene
    found = evaluation.evaluate(denoised[:1], clean[None])
    assert found.scores["denoised"]["mse"].low is None
    assert "interval" not in found.lines()[0]


def test_a_blank_reference_still_has_an_error():
    found = evaluation.evaluate(np.ones((2, 16, 16)), np.zeros((2, 16, 16)))
    assert found.scores["denoised"] == {"mse": evaluation.Score(1.0, 1.0, 1.0)}


def test_equal_images_have_no_error_to_show(scene):
    clean, *_ = scene
    found = evaluation.evaluate(np.stack([clean, clean]), clean[None], data_range=255)
    assert found.scores["denoised"]["psnr_range"].mean == np.inf
    assert any("inf" in line for line in found.lines())


def test_misfits_are_refused_in_a_line(scene):
    clean, frames, denoised = scene
    with pytest.raises(InputError, match="reference"):
        evaluation.evaluate(denoised, frames[:5])
    with pytest.raises(InputError, match="at least 3"):
        evaluation.evaluate(denoised[:2], frames[:2], frames=True)
    with pytest.raises(InputError, match="range"):
        evaluation.evaluate(denoised, clean[None], data_range=0)


@pytest.fixture
def files(tmp_path, scene, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean, frames, denoised = scene
    for name, stack in (("clean", clean[None]), ("noisy", frames), ("denoised", denoised)):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack.astype(np.float32), metadata={"axes": "TYX"})
    return tmp_path


def cosdd(*line):
    return CliRunner().invoke(app, ["evaluate", *line])


def test_the_command_prints_a_table_and_writes_every_image(files):
    done = cosdd("denoised.tif", "clean.tif", "--noisy", "noisy.tif", "--range", "255", "--csv", "scores.csv")
    assert done.exit_code == 0, done.output
    for word in ("denoised", "noisy", "gaussian", "psnr_range", "peak = 255", "ssim", "scores.csv"):
        assert word in done.output
    with (files / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 12
    assert float(rows[0]["mse"]) == pytest.approx(36, rel=0.2)
    again = cosdd("denoised.tif", "clean.tif", "--csv", "scores.csv")
    assert isinstance(again.exception, InputError)


def test_json_is_one_object_and_knows_no_infinity(files):
    done = cosdd("clean.tif", "clean.tif", "--json")
    found = json.loads(done.output, parse_constant=lambda name: pytest.fail(name))
    assert found["scores"]["denoised"]["psnr"]["mean"] is None
    done = cosdd("denoised.tif", "noisy.tif", "--frames", "--json")
    found = json.loads(done.output)
    assert found["reference"] == "frames"
    assert found["scores"]["denoised"]["mse"]["mean"] == pytest.approx(36, rel=0.05)


def test_folders_are_matched_by_name(files, scene):
    denoised = scene[2]
    for folder, stack in (("a", denoised), ("b", denoised)):
        (files / folder).mkdir()
        for index in range(3):
            name = f"{2 - index if folder == 'b' else index}.tif"
            plane = stack[2 - index if folder == "b" else index]
            tifffile.imwrite(files / folder / name, plane.astype(np.float32), metadata={"axes": "YX"})
    done = cosdd("a", "b", "--json")
    assert json.loads(done.output)["scores"]["denoised"]["mse"]["mean"] == 0
    (files / "b" / "1.tif").rename(files / "b" / "1.ome.tif")  # of another format, such as denoise --format
    done = cosdd("a", "b", "--json")
    assert json.loads(done.output)["scores"]["denoised"]["mse"]["mean"] == 0
    tifffile.imwrite(files / "b" / "1.tif", denoised[1].astype(np.float32), metadata={"axes": "YX"})
    done = cosdd("a", "b")
    assert "several formats" in str(done.exception)
    (files / "b" / "1.tif").unlink()
    (files / "b" / "1.ome.tif").rename(files / "b" / "other.tif")
    done = cosdd("a", "b")
    assert isinstance(done.exception, InputError)
    assert "1" in str(done.exception)


def test_memory_holds_a_few_images_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 10)
    noisy = np.random.default_rng(0).normal(100, 9, (100, 32, 32)).astype(np.float32)
    np.save(tmp_path / "noisy.npy", noisy)
    np.save(tmp_path / "clean.npy", noisy + 1)
    stacks = [evaluation.read_planes(tmp_path / f"{name}.npy", axes="TYX") for name in ("clean", "noisy", "noisy")]
    tracemalloc.start()
    found = evaluation.evaluate(*stacks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.images == 100
    assert peak < noisy.nbytes / 2


def test_frames_of_different_scenes_are_no_reference(files):
    rng = np.random.default_rng(5)
    scenes = 500 * specimen(8, 64, 0)
    for name, clean in (("moving", scenes), ("still", np.repeat(scenes[:1], 8, 0))):
        noisy = simulate.row_ar(clean, rng, gain=0, row_std=100, correlation=0.6, offset_std=50)
        tifffile.imwrite(files / f"{name}.tif", noisy.astype(np.float32), metadata={"axes": "TYX"})
    done = cosdd("moving.tif", "moving.tif", "--frames")
    assert done.exit_code == 0
    assert "warning: these frames do not show one still scene" in done.output
    assert "warning" not in cosdd("still.tif", "still.tif", "--frames").output
    assert "one still scene" in json.loads(cosdd("moving.tif", "moving.tif", "--frames", "--json").output)["doubt"]
    assert json.loads(cosdd("still.tif", "still.tif", "--frames", "--json").output)["doubt"] is None


def test_an_error_below_zero_is_doubted(files, scene):
    _, frames, _ = scene
    drifting = frames.mean(0) + 30 * np.random.default_rng(6).normal(size=(12, 1, 48)) + 0 * frames  # columns share it
    tifffile.imwrite(files / "drifting.tif", drifting.astype(np.float32), metadata={"axes": "TYX"})
    tifffile.imwrite(files / "mean.tif", (0 * frames + drifting.mean(0)).astype(np.float32), metadata={"axes": "TYX"})
    done = cosdd("mean.tif", "drifting.tif", "--frames")
    assert "below zero" in done.output
    assert "warning" not in cosdd("denoised.tif", "noisy.tif", "--frames").output


def test_what_denoise_wrote_beside_is_not_scored(files, scene):
    _, frames, denoised = scene
    for folder, stack, ends in (("out", denoised, ("", "_std", "_sample1", "_sample12")), ("in", frames, ("",))):
        (files / folder).mkdir()
        for index, end in ((index, end) for index in range(3) for end in ends):
            name = files / folder / f"{index}{end}.tif"
            tifffile.imwrite(name, stack[index].astype(np.float32), metadata={"axes": "YX"})
    assert json.loads(cosdd("out", "in", "--frames", "--json").output)["images"] == 3
    assert json.loads(cosdd("out/*.tif", "in", "--json").output)["images"] == 3
    (files / "out" / "2.tif").unlink()  # alone it is an image like others
    assert "no partner for" in str(cosdd("out", "in", "--frames").exception)
