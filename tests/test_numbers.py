"""Numbers that stay right: from release to release, from run to run, however the work is split."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import cosdd
from cosdd import config, sampling, training

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = sorted(FIXTURES.glob("*.safetensors"))
NAMED = [path.stem for path in MODELS]
SAMPLES = 8
# Of the training images' standard deviation. float32 sums in another order differ by some 1e-6 of it; other
# releases of torch and other processors by a little more.
SAME_MACHINE, ANY_MACHINE = 1e-5, 1e-3


def denoised(path: Path, noisy: np.ndarray | None = None, plain: bool = False) -> np.ndarray:
    """(2, n, y, x): mean and standard deviation, in units of the training images' standard deviation.

    plain: of independent samples, which are those of the earliest releases.
    """
    model = cosdd.load(path)
    noisy = np.load(FIXTURES / "noisy.npy") if noisy is None else noisy
    found = model.denoise(noisy, samples=SAMPLES, plain=plain)
    return np.stack([found.mean, found.std]) / model.checkpoint.statistics.std[0]


@pytest.mark.parametrize("path", MODELS, ids=NAMED)
def test_a_model_of_an_earlier_release_gives_what_it_gave(path):
    assert path.stat().st_size < 300_000
    expected = np.load(path.with_suffix(".npy")) / cosdd.load(path).checkpoint.statistics.std[0]
    assert expected[0].std() > 20 * ANY_MACHINE  # it shows something
    np.testing.assert_allclose(denoised(path, plain=True), expected, rtol=0, atol=ANY_MACHINE)


def test_there_is_one_of_each_method():
    assert {name.rsplit("-", 1)[0] for name in NAMED} == {"blind-row", "cosdd"}


@pytest.mark.parametrize("path", MODELS, ids=NAMED)
def test_threads_and_batches_make_no_difference(path, monkeypatch):
    threads, found = torch.get_num_threads(), []
    try:
        for count, pixels in ((1, 2**16), (2, 2**16), (2, 1), (1, 48 * 48 * 3)):
            torch.set_num_threads(count)
            monkeypatch.setattr(sampling, "PIXELS_AT_ONCE", {"cpu": pixels})
            found.append(denoised(path))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=SAME_MACHINE)


@pytest.mark.parametrize("path", MODELS, ids=NAMED)
def test_the_same_again_is_the_same_to_the_last_bit(path):
    np.testing.assert_array_equal(denoised(path), denoised(path))


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_training_again_gives_the_same_weights_to_the_last_bit(method):
    settings = config.build("tiny", tiny_settings(method))
    found = []
    for _ in range(2):
        run = training.start(settings, tiny.frames())
        for _ in training.fit(run):
            pass
        found.append(training.finish(run).network.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def tiny_settings(method: str) -> dict:
    return {"method": method, "model": tiny.MODEL, "blind_row": {"features": [4]}, "train": tiny.TRAIN}


@pytest.mark.skipif(os.environ.get("COSDD_GAUNTLET") != "full", reason="compiles everything anew: make gauntlet")
def test_python_without_assertions_gives_the_same(tmp_path):
    """`python -O` strips assertions: nothing may depend on one."""
    path, noisy = MODELS[0], np.load(FIXTURES / "noisy.npy")[0]
    np.save(tmp_path / "noisy.npy", noisy)
    line = [sys.executable, "-O", "-m", "cosdd", "denoise", path, tmp_path / "noisy.npy", "-o", tmp_path / "out"]
    line += ["--samples", str(SAMPLES)]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    scale = cosdd.load(path).checkpoint.statistics.std[0]
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "noisy.npy") / scale, denoised(path, noisy)[0], rtol=0, atol=SAME_MACHINE
    )
