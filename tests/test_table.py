"""The comparison of methods: its frame records what happened, and the methods in it do what they claim."""

import copy
import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scipy.signal import lfilter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record  # noqa: E402
from benchmarks.table import classical, controls, ours, page, run, scores, sets, verdict  # noqa: E402
from benchmarks.table.methods import METHODS, Method  # noqa: E402
from benchmarks.table.task import Task  # noqa: E402
from cosdd import training  # noqa: E402
from cosdd.errors import InputError  # noqa: E402

PROTOCOL = run.Protocol(budget=60, limit=60)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    truth = rng.random((3, 16, 20)).astype(np.float32)
    noisy = truth + rng.normal(0, 0.1, truth.shape).astype(np.float32)
    judge = partial(sets.against_truth, truth)
    return sets.Set("tiny", noisy, noisy, 0, judge, clean=truth, truth=truth)


def attempt(function: str, images, *needs: str, **protocol) -> dict:
    method = Method(f"table_methods:{function}", "", needs)
    return run.attempt(method, images, 5, replace(PROTOCOL, **protocol))


def test_a_row_says_what_was_reached_and_what_it_took(images):
    row = attempt("halved", images)
    assert row["status"] == "done"
    assert row["scores"]["same"]["psnr"] == pytest.approx(20, abs=1)
    assert row["scores"]["half"]["psnr"] < row["scores"]["same"]["psnr"]
    assert (row["steps"], row["facts"]) == (7, {"seed": 5})
    assert row["training_seconds"] >= 0
    assert set(row["denoising_seconds"]) == {"half", "same"}
    assert 0.01 < row["peak_memory_gb"]["process"] < 5
    assert row["versions"]["numpy"] == np.__version__


def test_what_goes_wrong_is_a_row_too(images):
    assert attempt("crashes", images)["status"] == "failed with exit code 1: RuntimeError: no such luck"
    assert attempt("dies", images)["status"] == "failed with exit code 3: it said nothing"
    assert attempt("lacks", images)["status"] == "not installed: no module a_package_that_nobody_has"
    assert attempt("crops", images)["status"] == "failed: estimate cropped has shape (3, 15, 20)"
    assert attempt("not_finite", images)["status"] == "failed: estimate nothing is not finite"


def test_a_method_past_its_time_is_ended_with_what_it_started(images, tmp_path, monkeypatch):
    mark = tmp_path / "still here"
    monkeypatch.setattr(run, "interpreter", lambda _: Path(sys.executable))
    method = Method("table_methods:sleeps", "")
    row = run.attempt(method, images, str(mark), replace(PROTOCOL, limit=1.5))  # type: ignore[arg-type]
    assert row["status"] == "timed out after 2 s"
    time.sleep(3)
    assert not mark.exists()


def test_a_method_sees_the_truth_only_where_it_must(images):
    assert attempt("cheats", images)["status"].startswith("failed")
    assert attempt("cheats", images, "truth")["scores"]["truth"]["ssim"] == 1
    without = replace(images, truth=None)
    assert attempt("cheats", without, "truth")["status"] == "not applicable: needs the clean test images"


def test_an_estimate_may_not_have_the_name_of_another_method(images, monkeypatch):
    monkeypatch.setitem(METHODS, "half", Method("table_methods:cheats", ""))
    assert attempt("halved", images)["status"] == "failed: estimate half has the name of another method"


def test_environments_that_are_not_there_are_rows(images, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ENVIRONMENTS", tmp_path)
    row = run.attempt(Method("table_methods:halved", "", environment="peers"), images, 0, PROTOCOL)
    assert row == {"status": "not installed: python -m benchmarks environment peers"}
    with pytest.raises(InputError, match="environment 'nowhere' is unknown: choose from"):
        run.make_environment("nowhere")


def test_what_is_done_is_not_run_again(images, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "SETS", {"tiny": lambda seed, tested: images})
    named = {"good": Method("table_methods:halved", "", learns=True), "bad": Method("table_methods:crashes", "")}
    monkeypatch.setattr(run, "METHODS", named)
    ran = []
    real = run.attempt
    monkeypatch.setattr(run, "attempt", lambda method, *rest: ran.append(method.call) or real(method, *rest))

    def go(**protocol):
        ran.clear()
        run.run(["good", "bad"], ["tiny"], 1, replace(PROTOCOL, **protocol), "a command")
        return [call.split(":")[1] for call in ran]

    assert go() == ["halved", "crashes"]
    assert go() == ["crashes"]
    assert go(budget=30.0) == ["halved", "crashes"]
    entry = json.loads((tmp_path / "table.json").read_text())
    assert [row["method"] for row in entry["results"]["rows"]] == ["good", "bad"]
    assert entry["results"]["rows"][0]["protocol"]["budget"] == 30

    # Elsewhere it takes another time; a failure there leaves what was measured.
    elsewhere = record.machine() | {"cpu": "another"}
    monkeypatch.setattr(record, "machine", lambda: elsewhere)
    assert go(budget=30.0) == ["halved", "crashes"]
    assert json.loads((tmp_path / "table.json").read_text())["results"]["rows"][0]["protocol"]["cpu"] == "another"
    monkeypatch.setitem(named, "good", Method("table_methods:crashes", "", learns=True))
    assert go(budget=60.0) == ["crashes", "crashes"]
    kept = json.loads((tmp_path / "table.json").read_text())["results"]["rows"][0]
    assert (kept["status"], kept["protocol"]["budget"]) == ("done", 30)

    # Asked for again, it runs again; in a folder of its own it leaves ours alone; a method that is gone stays a row.
    monkeypatch.setitem(named, "good", Method("table_methods:halved", "", learns=True))
    assert go(budget=30.0, folder=tmp_path / "mine") == ["halved", "crashes"]
    assert go(budget=30.0, folder=tmp_path / "mine") == ["crashes"]
    assert go(budget=30.0, folder=tmp_path / "mine", again=True) == ["halved", "crashes"]
    monkeypatch.delitem(named, "bad")
    run.run(["good"], ["tiny"], 1, replace(PROTOCOL, folder=tmp_path / "mine", again=True), "a command")
    assert json.loads((tmp_path / "mine" / "table.json").read_text())["results"]["rows"][1]["method"] == "bad"
    named |= {"good": Method("table_methods:crashes", "", learns=True), "bad": Method("table_methods:crashes", "")}
    assert json.loads((tmp_path / "table.json").read_text())["results"]["rows"][0] == kept

    # Another budget may have a file of its own.
    assert go(budget=60.0, results="table_long") == ["crashes", "crashes"]
    assert json.loads((tmp_path / "table.json").read_text())["results"]["rows"][0] == kept
    assert len(json.loads((tmp_path / "table_long.json").read_text())["results"]["rows"]) == 2


def test_the_page_says_which_method_was_trained_where():
    def row(method: str, name: str, cpu: str, amx: bool) -> dict:
        terms = {"tested": 8, "budget": 60, "clock": "wall", "cores": 2, "cpu": cpu, "amx_bfloat16": amx, "gpu": None}
        return {"method": method, "set": name, "seed": 0, "status": "done", "protocol": terms}

    rows = [row("auto", "a", "old", False), row("N2V", "a", "new", True), row("N2V", "b", "new", True)]
    rows.append(row("auto", "b", "new", True))
    told = page.conditions({"command": "c", "date": "d"}, rows)
    assert told[2:4] == [
        "- 60 s of wall-clock on 2 cores of new with AMX bfloat16: all but what follows.",
        "- 60 s of wall-clock on 2 cores of old: auto on a.",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--sets", "moon"], "error: set 'moon' is unknown: choose from bsd400-stripe,"),
        (["run", "--data", "/nowhere", "--sets", "bsd400-white"], "error: /nowhere/clean/bsd400: not there, expected"),
        (["run", "--budget", "soon"], "not a duration: 'soon'"),
        (["run", "--seeds", "0"], "0: expected 1 or more"),
        (["run", "--sets", "specimen-heavy", "--methods", "noisy, moon"], "error: method 'moon' is unknown"),
        (["run", "--sets", "specimen-heavy", "--out", "README.md"], "README.md/table.json: cannot be written"),
    ],
)
def test_wrong_words_are_answered_in_one_line(words, said):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]


# --- sets -----------------------------------------------------------------------------------------------------


def test_simulated_sets_keep_test_images_and_second_noise_apart(monkeypatch):
    clean = np.random.default_rng(0).random((50, 32, 32)).astype(np.float32)
    monkeypatch.setattr(sets, "clean_images", lambda source: clean)
    found = sets.simulated("any", "stripe", 0, 8)
    assert found.clean is not None
    assert found.second is not None
    assert len(found.train) == 10
    assert len(found.test) == 8
    np.testing.assert_array_equal(found.truth, clean[np.linspace(10, 49, 8).round().astype(int)])
    one, other = found.train - found.clean, found.second - found.clean
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05
    # Fewer test images are some of the same ones, with the same noise.
    np.testing.assert_array_equal(sets.simulated("any", "stripe", 0, 40).test[[0, -1]], found.test[[0, -1]])
    assert found.judge(found.truth)["ssim"] == 1  # type: ignore[arg-type]


def test_removed_structure_shows_without_a_reference():
    rng = np.random.default_rng(0)
    scene = np.cumsum(rng.normal(size=(64, 64)), 0)
    noisy = scene + rng.normal(size=scene.shape)
    assert abs(sets.by_itself(noisy, scene)["residual_y1"]) < 0.05
    assert sets.by_itself(noisy, 0.5 * scene)["residual_y1"] > 0.5
    assert sets.by_itself(noisy, noisy) == {"streaks": sets.streaks(noisy), "rows": np.diff(noisy, axis=0).var()}


# --- methods --------------------------------------------------------------------------------------------------


def test_the_masked_network_never_sees_a_pixel_of_its_own_row():
    torch.manual_seed(0)
    network = controls.RowMasked().double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    x = torch.randn(1, 1, 12, 16, dtype=torch.float64, requires_grad=True)
    for row in (0, 5, 11):
        (seen,) = torch.autograd.grad(network(x)[0, 0, row].sum(), x)
        assert not seen[0, 0, row].any()
        assert seen[0, 0, row - 1].any()


@pytest.mark.parametrize("fit", [controls.row_split, controls.row_masked])
def test_controls_learn_until_their_budget_is_used(fit, monkeypatch):
    rng = np.random.default_rng(0)
    scene = np.sin(np.linspace(0, 3, 32))[:, None] + np.zeros(32)
    noisy = (scene + rng.normal(0, 0.5, (12, 32, 32))).astype(np.float32)
    looks = itertools.count()
    monkeypatch.setattr(Task, "start", lambda self: lambda: next(looks) / 120)  # the same on every machine
    fitted = fit(Task(noisy, noisy[:2], budget=1, clock="wall", seed=0, extent=0))
    denoise, refined = fitted.estimates.values()
    assert fitted.steps == 60  # the clock is looked at twice in a step
    before, after, last = (np.mean((x - scene) ** 2) for x in (noisy[:2], denoise(noisy[:2]), refined(noisy[:2])))
    assert after < 0.7 * before
    assert last < after  # 60 steps leave something for the last step to do


def test_what_ours_measures_before_training_is_paid_for_from_the_budget(monkeypatch):
    noisy = np.random.default_rng(0).normal(100, 10, (4, 32, 32)).astype(np.float32)
    seen = []
    monkeypatch.setattr(Task, "start", lambda self: lambda: 0.75)  # of the budget is used when training begins
    monkeypatch.setattr(training, "fit", lambda run: seen.append(run.settings.train.time) or iter(()))
    monkeypatch.setattr(training, "finish", lambda run: tiny.checkpoint(100.0, 10.0))
    ours.auto(Task(noisy, noisy, budget=80, clock="processor", seed=0, extent=0))
    assert seen == [20]


def test_the_row_spectrum_is_that_of_the_noise():
    rng = np.random.default_rng(0)
    noise = lfilter([0.8], [1, -0.6], rng.normal(size=(8, 64, 96)), axis=-1)[..., 32:].astype(np.float32)
    window = np.sin(np.pi * (np.arange(16) + 0.5) / 16)
    expected = classical.RowSpectrum(noise).at(0.0, window)
    measured = (np.abs(np.fft.fft(noise[..., :16] * window)) ** 2).mean((0, 1))
    np.testing.assert_allclose(expected, measured, rtol=0.35)


def test_the_wiener_filter_uses_that_the_noise_is_row_correlated():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    scene = (np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)
    noise = lfilter([0.4], [1, -0.8], rng.normal(size=(6, 64, 96)), axis=-1)[..., 32:]
    noisy = (scene + noise).astype(np.float32)
    spectrum = classical.RowSpectrum(noisy)
    white = copy.copy(spectrum)
    white.covariance = spectrum.covariance * (np.arange(spectrum.covariance.shape[1]) == 0)

    def error(noise):
        return np.mean((classical.shrunk(noisy[0], noise) - scene) ** 2)

    assert error(spectrum) < 0.7 * error(white) < 0.7 * np.mean((noisy[0] - scene) ** 2)


def test_destriping_takes_offsets_and_leaves_columns():
    pytest.importorskip("pywt")
    offsets = np.where(np.arange(64) % 2, 1.0, -1.0)[:, None]
    columns = np.sin(np.arange(64) / 3)
    left = classical._destriped((offsets + np.zeros(64))[None], 4.0)[0]
    assert left[8:-8].std() < 0.1
    np.testing.assert_allclose(
        classical._destriped((columns + np.zeros((64, 1)))[None], 4.0)[0] - columns, 0, atol=1e-6
    )


def test_every_method_is_where_the_table_says():
    for name, method in METHODS.items():
        module, function = method.call.split(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert f"def {function}(task: Task) -> Fitted" in source, name
        assert "," not in name  # names are given after commas


# --- the page -------------------------------------------------------------------------------------------------


def row(method: str, images: str, psnr: float, seed: int = 0, **estimates: float) -> dict:
    scores = {name: {"psnr": value} for name, value in (estimates or {method: psnr}).items()}
    return {"set": images, "method": method, "seed": seed, "status": "done", "scores": scores}


def test_the_page_says_first_who_beats_ours():
    rows = [
        row("auto", "bsd400-white", 30.0),
        row("N2V", "bsd400-white", 30.5),
        row("CARE", "bsd400-white", 32.0),
        row("auto", "bsd400-stripe", 31.0),
        row("N2V", "bsd400-stripe", 28.0),
    ]
    first, *others = verdict.verdict(rows, scores.method_of(rows))
    assert first == "- **N2V beats `auto` on bsd400-white**: +0.50 dB."
    assert others == [
        "",
        "- CARE, which sees clean training images, beats `auto` on bsd400-white: +2.00 dB.",
    ]
    rows[1] = row("N2V", "bsd400-white", 29.5)
    first, *others = verdict.verdict(rows, scores.method_of(rows))
    assert first.startswith("On all 2 sets with a reference, no method of others and no control that sees noisy images")
    assert others[1:3] == [
        f"- bsd400-{kind}: N2V, {gap} dB." for kind, gap in (("stripe", "-3.00"), ("white", "-0.50"))
    ]


def test_the_page_says_whom_it_did_not_measure():
    rows = [row(method, "bsd400-white", 30.0 - n) for n, method in enumerate(METHODS)]
    assert verdict.coverage(rows) == []
    rows = [*(r for r in rows if r["method"] not in ("CARE", "N2V2")), row("auto", "bsd400-stripe", 31.0)]
    (told,) = verdict.coverage(rows)
    assert told.startswith("Not measured on all of these sets, which are 2: published COSDD (1), ")
    assert told.endswith(" Noise2Noise (1). Not at all: N2V2, CARE.")
    (told,) = verdict.coverage([row("auto", "bsd400-white", 30.0), row("N2V", "bsd400-stripe", 29.0)])
    assert " N2V, " in told


def test_what_one_seed_does_not_decide_is_not_told_as_decided():
    rows = [row("auto", "bsd400-white", 30.0), row("row Wiener", "bsd400-white", 29.95)]
    assert "- bsd400-white: row Wiener, -0.05 dB, which one seed does not decide." in verdict.verdict(
        rows, scores.method_of(rows)
    )
    rows += [row("auto", "bsd400-white", 30.0, 1), row("row Wiener", "bsd400-white", 29.95, 1)]
    assert "- bsd400-white: row Wiener, -0.05 dB (2 seeds)." in verdict.verdict(rows, scores.method_of(rows))


def test_scores_that_look_alike_are_not_told_as_better():
    rows = [row("auto", "bsd400-white", 30.0), row("cosdd", "bsd400-white", 29.0)]
    for one, similarity in zip(rows, (0.8908, 0.8910), strict=True):
        (scores_of,) = one["scores"].values()
        scores_of["ssim"] = similarity
    told = verdict.verdict(rows, scores.method_of(rows))
    assert "- `cosdd` on bsd400-white in structural similarity: 0.891 both, which one seed does not tell apart." in told


def test_of_methods_that_had_hardly_begun_it_is_told_how_far_they_came():
    rows = [row("noisy", "bsd400-white", 20.0), row("auto", "bsd400-white", 30.0), row("N2V", "bsd400-white", 18.0)]
    rows[2] |= {"steps": 10}
    (told,) = verdict._few_updates(rows)
    assert told.endswith("N2V (10, worse than the noisy images on 1 of 1 sets).")


def test_the_picture_has_a_dot_for_each_estimate_and_a_hollow_one_for_what_is_too_far(tmp_path):
    rows = [
        row("auto", "bsd400-white", 30.0),
        row("row Wiener", "bsd400-white", 29.0),
        row("N2V", "bsd400-white", 10.0),
    ]
    rows += [row("noisy", "bsd400-white", 20.0), row("CARE", "bsd400-white", 31.0)]
    page.picture(rows, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn.count("<circle") == 3
    assert drawn.count('fill="#ffffff" stroke') == 1
    page.picture([*rows, row("N2V2", "bsd400-white", 40.0)], tmp_path / "b.svg")  # much better than ours
    drawn = (tmp_path / "b.svg").read_text(encoding="utf-8")
    width = float(re.findall(r'width="(\d+)"', drawn)[0])
    assert max(map(float, re.findall(r'cx="([\d.]+)"', drawn))) < width - 4


def test_what_is_said_under_a_picture_is_of_the_seed_that_it_shows(tmp_path):
    (tmp_path / "auto.png").touch()
    rows = [row("auto", page.SHOWN, value, seed) for seed, value in enumerate((24.6, 24.5))]
    *_, shown, after = page.gallery(rows, tmp_path, "pictures")
    assert shown.startswith("| ![auto](pictures/auto.png)<br>auto: 24.6 dB |")
    assert not after  # what follows would be taken for a row of the table


def test_the_page_tells_what_more_time_is_worth_by_the_same_table():
    rows = [row("auto", "bsd400-white", 30.0), row("N2V", "bsd400-white", 29.5)]
    terms = {"tested": 8, "budget": 600.0, "clock": "wall", "cores": 2, "cpu": "c", "amx_bfloat16": False, "gpu": None}
    entry = {"command": "c", "date": "d", "results": {"rows": [one | {"protocol": terms} for one in rows]}}
    title, *lines = page.longer(entry)
    assert title == "### With 10 minutes each: PSNR (dB, range 1)"
    assert "- bsd400-white: N2V, -0.50 dB." in lines
    assert lines[-4:-1] == page.table(scores.gathered(rows, "psnr"), scores.method_of(rows), scores.HIGHER, 2)[-3:]


def test_lower_errors_beat_ours_too():
    rows = [row("auto", "confocal", 0), row("median", "confocal", 0), row("N2V2", "confocal", 0)]
    for one, error in zip(rows, (2.0, 1.0, 1.5), strict=True):
        one["scores"] = {one["method"]: {"mse": error}}
    assert verdict.verdict(rows, scores.method_of(rows)) == [
        "- **N2V2 beats `auto` on confocal**: 1.500 for 2.000.",
        "",
        "- median, which sees the clean test images, beats `auto` on confocal: 1.000 for 2.000.",
    ]


def test_the_table_shows_the_spread_of_seeds_and_marks_the_best_that_sees_no_more_than_we():
    rows = [row("auto", "bsd400-white", value, seed) for seed, value in enumerate((30.0, 30.2, 29.9))]
    rows += [row("CARE", "bsd400-white", 33.0), row("N2V", "bsd400-white", 29.0)]
    lines = page.table(scores.gathered(rows, "psnr"), scores.method_of(rows), scores.HIGHER, 1)
    assert lines[2:] == [
        "| `auto` |  | **30.0 (29.9 to 30.2)** |",
        "| CARE | clean training images | 33.0 |",
        "| N2V |  | 29.0 |",
    ]


def test_what_else_may_be_said_against_our_default_is_said():
    rows = [row("auto", "bsd400-white", 30.0), row("cosdd", "bsd400-white", 30.3), row("N2V", "bsd400-white", 29.0)]
    for one, similarity in zip(rows, (0.8, 0.7, 0.9), strict=True):
        one["scores"][one["method"]]["ssim"] = similarity
    rows[2]["steps"] = 7
    without = [row(method, "stem", 0) for method in ("auto", "row Wiener", "N2V", "median")]
    for one, left, column in zip(without, (2000.0, 1000.0, 1.0, 3000.0), (-0.1, 0.12, 0.9, 0.0), strict=True):
        one["scores"] = {one["method"]: {"streaks": left, "residual_y1": column}}
    said = verdict.verdict(rows + without, scores.method_of(rows + without))
    assert "- **N2V beats `auto` on bsd400-white in structural similarity**: 0.900 for 0.800." in said
    assert "- `cosdd` on bsd400-white: +0.30 dB." in said
    assert "- stem, for `auto` (2,000, -0.10): row Wiener (1,000, +0.12)." in said
    assert any("hardly begun" in line and "N2V (7)" in line for line in said)


def test_differences_that_seeds_do_not_bear_out_are_told_as_such():
    rows = [row("auto", "bsd400-white", value, seed) for seed, value in enumerate((30.0, 30.4))]
    rows += [row("N2V", "bsd400-white", value, seed) for seed, value in enumerate((29.0, 30.1))]
    rows += [row("N2V2", "bsd400-white", value, seed) for seed, value in enumerate((29.0, 29.1))]
    gaps = {rival.estimate: rival.gap for rival in verdict.rivals(rows, scores.method_of(rows))}
    assert gaps == {"N2V": "-0.65 dB (2 seeds, which overlap)", "N2V2": "-1.15 dB (2 seeds)"}


def test_seeds_of_other_terms_are_not_averaged():
    rows = [row("auto", "bsd400-white", value, seed) for seed, value in enumerate((30.0, 31.0, 32.0))]
    for one, budget in zip(rows, (60, 600, 60), strict=True):
        one["protocol"] = {"tested": 8, "budget": budget}
    assert [one["seed"] for one in scores.comparable(rows)] == [0, 2]


def test_what_was_measured_under_other_terms_does_not_count():
    terms = {"tested": 8, "budget": 60, "clock": "wall", "cores": 2, "cpu": "a"}
    rows = [row(name, "bsd400-white", 30.0) for name in ("auto", "N2V", "N2V2", "median", "row Wiener", "gone")]
    changes: list[dict] = [{}, {"budget": 30}, {"cpu": "b"}, {"tested": 4}, {}, {}]
    for one, change in zip(rows, changes, strict=True):
        one["protocol"] = terms | change
    rows[4]["protocol"] = {"tested": 8}
    assert [one["method"] for one in scores.comparable(rows)] == ["row Wiener", "auto", "N2V2"]


def test_our_default_alone_is_told_too():
    rows = [row("auto", "bsd400-white", 30.0)]
    assert "not measured yet" not in " ".join(verdict.verdict(rows, scores.method_of(rows)))
    assert verdict.verdict([row("N2V", "bsd400-white", 30.0)], {"N2V": "N2V"}) == ["Our default is not measured yet."]


def test_a_table_made_elsewhere_gets_a_page_of_its_own(tmp_path):
    (tmp_path / "auto.png").touch()
    rows = [row("auto", page.SHOWN, 24.6) | {"protocol": {"tested": 8}}, row("median", page.SHOWN, 21.0)]
    for one in rows:
        one |= {"protocol": {"tested": 8}, "training_seconds": 1.0, "denoising_seconds": {one["method"]: 0.01}}
        one |= {"steps": 5, "peak_memory_gb": {"process": 1.0}, "versions": {"numpy": "2"}}
    record.write("table", "command", {"rows": rows}, tmp_path)
    said = page.write("table", tmp_path).read_text(encoding="utf-8")
    assert "![auto](./auto.png)" in said
    assert "With more time" not in said
    assert "under 0.1 s" in said
