"""The paper's experiments: what they measure is what they say, and each runs from one command."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import tiny
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from benchmarks.paper import __main__ as command  # noqa: E402
from benchmarks.paper import controls, figures, latents, models, noise, page, samples  # noqa: E402
from benchmarks.table import sets  # noqa: E402
from cosdd.denoise import Denoiser  # noqa: E402
from cosdd.errors import InputError  # noqa: E402

SMALL = replace(
    models.QUICK,
    settings={
        "cosdd": {"model": tiny.MODEL, "train": tiny.TRAIN}, "blind-row": {"blind_row": {"features": [4], "anchor": 0}}
    },
    steps={"cosdd": 2, "blind-row": 2}, control_steps={"cosdd": 1, "blind-row": 1},
    tested=2, samples=(1, 2, 4), drawn=4, draws=2,
)  # fmt: skip


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Small images, small networks, and nothing that is written leaves the folder."""
    clean = np.random.default_rng(1).random((16, 32, 32), np.float32)
    dark = np.random.default_rng(0).normal(15, 3, (44, 24, 40)).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    monkeypatch.setattr(sets, "clean_images", lambda source: clean)
    monkeypatch.setattr(sets, "TESTED", 4)
    monkeypatch.setattr(noise, "stored", lambda *parts: tmp_path / "dark.tif")
    monkeypatch.setattr(models, "QUICK", SMALL)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(figures, "IMAGES", tmp_path)
    monkeypatch.setattr(noise, "NAMES", ("bsd400-row-ar", "dark"))
    monkeypatch.setattr(controls, "NAMES", ("streaks x", "streaks y"))
    return tmp_path


def go(folder: Path, name: str, **given) -> dict:
    asked = {"steps": None, "methods": None, "sets": None} | given
    table = command.go(Namespace(experiment=name, full=False, models=folder / "models", **asked))
    assert len({line.count("|") for line in table}) == 1, "a row of the table has other columns"
    return json.loads((folder / f"paper_{name}.json").read_text())


PICTURES = {
    "latents": ["latents.png"],
    "samples": ["samples.svg"],
    "noise": ["noise.svg", "generated_noise.png"],
    "controls": ["controls_blind-row.png", "controls_cosdd.png"],
}


@pytest.mark.parametrize("name", page.EXPERIMENTS)
def test_one_command_measures_and_draws_and_the_page_tells_it(name, laboratory):
    entry = go(laboratory, name)
    module = page.EXPERIMENTS[name]
    assert list(entry["results"]) == [f"{of} {by}" for of in module.NAMES for by in module.METHODS]
    assert entry["command"] == f"python -m benchmarks.paper {name} --quick"
    for picture in PICTURES[name]:
        if picture.endswith(".svg"):
            assert ElementTree.parse(laboratory / picture).getroot().tag.endswith("svg")
        else:
            assert np.asarray(Image.open(laboratory / picture)).std() > 5
    told = page.lines(name)
    assert all(f"(images/paper/{picture})" in "".join(told) for picture in PICTURES[name])
    table = told[told.index("", told.index(next(line for line in told if line.startswith("`")))) + 1 : -2]
    assert table == module.table(entry["results"])
    words = f"`{entry['command']}`; {record.circumstances(entry)}. Models of method cosdd: "
    assert any(words in line for line in told)


def test_models_are_used_again_and_rows_measured_again_alone(laboratory):
    first = go(laboratory, "noise", methods="blind-row", sets="bsd400-row-ar")
    kept = {path: path.stat().st_mtime_ns for path in (laboratory / "models").iterdir()}
    second = go(laboratory, "noise", methods="blind-row", sets="dark")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(second["results"]) == ["bsd400-row-ar blind-row", "dark blind-row"]
    assert second["results"]["bsd400-row-ar blind-row"] == first["results"]["bsd400-row-ar blind-row"]


def test_what_is_not_measured_is_said(laboratory):
    assert page.lines("samples") == ["Not measured yet: `python -m benchmarks.paper samples`."]


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="set 'moon' is unknown: choose from specimen-heavy"):
        command.chosen("moon", latents.NAMES, "set")


# --- what is measured ---------------------------------------------------------------------------------------------


def test_both_ways_to_the_mean_of_the_noise_decoder_agree():
    """Mean of samples, mean of mixtures' means, and the expectation itself where there is only one pixel in a row."""
    network = tiny.checkpoint().network
    code = torch.randn(1, network.ladder.code_channels, 40, 1, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        drawn, expected = latents.averaged(network, code, 4000, torch.Generator().manual_seed(1))
        logits, means, sigmas = network.noise(torch.zeros(1, 1, 40, 1), code)
    truth = (logits.softmax(2) * means).sum(2)[0, 0].numpy()
    np.testing.assert_allclose(expected, truth, atol=1e-5)
    assert np.sqrt(np.mean((drawn - truth) ** 2)) < 3 * float(sigmas.max()) / 4000**0.5 + 0.05


def test_chance_is_told_from_what_is_wrong():
    """A decoder that is right has a ratio of 0 without chance; one that is off by half a difference has a half."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 64, 64))
    halves = truth[:, None] + rng.normal(0, 0.7, (2, 2, 64, 64))
    draws = {"signal": truth, "samples": halves.mean(1), "halves": halves}
    right = latents.measured([draws])
    assert right["ratio"]["without_chance"] < 0.15
    assert right["ratio"]["mixture_means"] > 0.3
    assert right["reached"]["limit"]
    off = latents.measured([draws | {"signal": truth + (truth[0] - truth[1]) / 2}])
    assert off["ratio"]["without_chance"] == pytest.approx(0.5, abs=0.03)
    assert not off["reached"]["limit"]


def test_the_law_holds_for_independent_samples_and_its_parts_are_bias_and_spread(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.random((2, 32, 32))

    class Result:
        samples = None

    def denoise(self, image, *, axes, samples, save_samples, plain):
        assert plain  # the law is one of independent samples
        Result.samples = image + 0.1 * rng.normal(size=(samples, *image.shape))
        return Result

    monkeypatch.setattr(Denoiser, "denoise", denoise)
    model = Denoiser(tiny.checkpoint())
    mse = samples.errors(model, truth + 0.05, truth, (1, 10, 100))  # off by .05 everywhere
    a, b = samples.law(mse)
    assert a == pytest.approx(0.0025, rel=0.05)
    assert b == pytest.approx(0.01, rel=0.05)
    assert mse[100] == pytest.approx(a + b / 100, rel=0.02)


def test_noise_of_another_kind_is_told_apart():
    rng = np.random.default_rng(0)
    clean = np.broadcast_to(rng.random((4, 64, 1)), (4, 64, 64))

    def streaks(share: float, width: float = 1.0):
        white = rng.normal(size=(8, 4, 64, 65))
        return width * (0.3 + clean) * (white[..., 1:] + share * white[..., :-1])

    same = noise.compared(streaks(0.5), streaks(0.5), clean)
    assert same["reached"]["limit"]
    assert same["along_truth"][0] == pytest.approx(0.4, abs=0.03)
    assert not noise.compared(streaks(0.5), streaks(0.4), clean)["reached"]["limit"]
    wider = noise.compared(streaks(0.5), streaks(0.5, 1.1), clean)
    assert wider["variance_worst"] == pytest.approx(0.21, abs=0.05)
    assert not wider["reached"]["limit"]


def test_controls_know_failure_from_success():
    def row(psnr: float, kept: float) -> dict:
        return {"psnr_noisy": 15.0, "psnr_denoised": psnr, "noise_kept": kept}

    rows = {"streaks x m": row(24, 0.1), "streaks y m": row(18, 0.5), "streaks none m": row(23.5, 0.1),
            "white x m": row(23, 0.1), "white none m": row(24, 0.1)}  # fmt: skip
    controls.summarise(rows)
    judged = {name: run["as_it_should"] for name, run in rows.items()}
    assert judged == {"streaks x m": True, "streaks y m": True, "streaks none m": False,
                      "white x m": False, "white none m": True}  # fmt: skip


def test_ticks_are_round_and_within():
    assert figures.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert figures.ticks(-0.31, 0.02) == [-0.3, -0.2, -0.1, 0]
    assert figures.ticks(21.3, 24.9) == [22, 23, 24]
