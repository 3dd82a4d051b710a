"""The benchmark of blending: its weights are those of the law, and its command runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import blend, record  # noqa: E402
from cosdd.denoise import Denoiser  # noqa: E402


def test_the_formula_finds_the_best_weight_where_one_part_is_off_and_the_other_noisy():
    rng = np.random.default_rng(0)
    clean = rng.random((4, 64, 64))
    direct, mean = clean + rng.normal(0, 0.1, clean.shape), clean + rng.normal(0, 0.05, clean.shape)
    found = blend.weights(direct, mean, np.full(4, 0.05**2), clean)
    np.testing.assert_allclose(found["formula"], 0.2, atol=0.02)  # .05^2 / (.05^2 + .1^2)
    np.testing.assert_allclose(found["best"], found["formula"], atol=0.02)
    assert (found["half"] == 0.5).all()
    scores = blend.compared(direct, mean, np.full(4, 0.05**2), clean)
    assert scores["samples"] > scores["direct"]
    assert scores["formula"]["ahead"] == pytest.approx(10 * np.log10(1 / 0.8), abs=0.05)
    assert scores["half"]["ahead"] < 0 < scores["best"]["ahead"]


def test_one_command_measures_and_the_page_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(blend, "trained", lambda *_, **given: Denoiser(tiny.checkpoint(mean=0.3, std=0.4)))
    monkeypatch.setattr(blend, "COUNT", 6)
    monkeypatch.setattr(blend, "SIZE", 32)
    monkeypatch.setattr(blend, "TESTED", 2)
    monkeypatch.setattr(sys, "argv", ["blend"])
    blend.main()
    entry = json.loads((tmp_path / "blend.json").read_text())
    assert [*entry["results"]] == ["stripe", "heavy"]
    for run in entry["results"].values():
        for count in blend.SAMPLES:
            assert run[count]["best"]["ahead"] >= max(run[count][rule]["ahead"] for rule in blend.RULES) - 1e-3
            assert 0 < run[count]["formula"]["weight"] <= 1
    table = [line for line in blend.lines(entry) if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + 2 * len(blend.SAMPLES)
