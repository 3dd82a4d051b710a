"""The benchmark of the last step: its estimates are those of denoising, and its command runs."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import tiny

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import record, refining  # noqa: E402
from benchmarks.table.sets import SETS  # noqa: E402
from cosdd import config  # noqa: E402
from cosdd.checkpoint import Checkpoint  # noqa: E402
from cosdd.data import Statistics  # noqa: E402
from cosdd.denoise import Denoiser  # noqa: E402
from cosdd.model import Passes, blindrow, build  # noqa: E402

NOISY = tiny.stripes(2)[:, 0]


def model(method: str, mean: float, std: float) -> Denoiser:
    if method == "cosdd":
        return Denoiser(dataclasses.replace(tiny.checkpoint(mean, std), passes=Passes(1, 3)))
    settings = config.build("tiny", {"method": "blind-row", "blind_row": {"features": [4]}})
    return Denoiser(Checkpoint(settings, Statistics((mean,), (std,), 0.0), build(settings).eval(), (), 1, 1.0))


def test_passes_are_those_of_denoising():
    for method, way, passes, asked in (
        ("cosdd", "samples", 1, {}), ("cosdd", "direct", 3, {"direct": True}), ("blind-row", "auto", 1, {}),
    ):  # fmt: skip
        denoiser = model(method, 1000.0, 100.0)
        expected = denoiser.denoise(NOISY, axes="TYX", **asked).mean
        found = refining.passes(denoiser, NOISY, *refining.estimates(denoiser, NOISY)[way])
        assert len(found) == 1 + refining.MOST_PASSES
        np.testing.assert_allclose(found[passes], expected, rtol=1e-5)
        np.testing.assert_array_equal(denoiser.denoise(NOISY, axes="TYX", **asked).mean, expected)  # as it was


def test_one_command_measures_and_the_page_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(refining, "trained", lambda images, method, seconds: model(method, 0.3, 0.4))
    monkeypatch.setattr(refining, "NAMES", ("specimen-heavy",))
    monkeypatch.setattr(refining, "MORE", ())
    monkeypatch.setattr(refining, "TESTED", 1)
    assert {*refining.NAMES, *refining.MORE} <= set(SETS)
    monkeypatch.setattr(sys, "argv", ["refining"])
    refining.main()
    entry = json.loads((tmp_path / "refining.json").read_text())
    assert [*entry["results"]["passes"]["specimen-heavy"]] == [*refining.WAYS]
    bold = [
        line.split("|")[3:].index(cell) for line in refining.lines(entry) for cell in line.split("|") if "**" in cell
    ]
    assert bold == [1, 3, 1]  # those that the model takes; auto takes one
    for lines, rows in ((refining.lines(entry), len(refining.WAYS)), (refining.share_lines(entry), 1)):
        table = [line for line in lines if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1
        assert len(table) == 2 + rows


def test_the_share_of_the_model_is_among_those_tried():
    denoiser = model("blind-row", 1000.0, 100.0)
    (found,) = refining.estimates(denoiser, NOISY).values()
    assert blindrow.BY_ROW in refining.SHARES
    np.testing.assert_array_equal(
        refining.once(denoiser, NOISY, *found, blindrow.BY_ROW), refining.once(denoiser, NOISY, *found)
    )
