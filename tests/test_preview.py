"""A run can be watched: a picture of a held-out image, without a trace in what is trained."""

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from cosdd import config, preview, training
from cosdd.data import Frames

SMALL = {
    "levels": 2, "features": 4, "max_features": 4, "latents": 2, "final_latents": 2, "noise_features": 4,
    "signal_features": 4, "direct_features": 4,
}  # fmt: skip


def begun(method, shape=(12, 1, 40, 48), **model):
    noisy = 1000 + 100 * np.random.default_rng(0).normal(size=shape)
    model = {**SMALL, "noise_axis": "x", **model, "channels": shape[1], "dimensions": len(shape) - 2}
    asked = {"method": method, "model": model, "blind_row": {"features": [4]}}
    train = {"steps": 6, "batch": 2, "crop": 16, "validations": 2}
    settings = config.build("tiny", asked, {"train": train})
    return training.start(settings, Frames.split([noisy], 0.1, 0))


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_watching_changes_nothing(method, tmp_path):
    watched, alone = begun(method), begun(method)
    for _ in training.fit(watched):
        preview.of_run(watched, tmp_path / "model.preview.png")
    for _ in training.fit(alone):
        pass
    for name, value in watched.network.state_dict().items():
        torch.testing.assert_close(value, alone.network.state_dict()[name], rtol=0, atol=0)
    assert watched.history[-1]["nll"] == alone.history[-1]["nll"]


@pytest.mark.parametrize("shape", [(12, 1, 40, 48), (3, 2, 300, 280), (3, 1, 12, 32, 40)])
def test_the_picture_shows_the_middle_of_an_image_in_grey_values(shape, tmp_path):
    run = begun("blind-row", shape)
    next(training.fit(run))
    noisy, denoised = preview.look(training.finish(run), run.frames)
    assert noisy.shape == denoised.shape == tuple(min(size, 256 if len(shape) == 4 else 128) for size in shape[-2:])
    assert abs(noisy.mean() - 1000) < 20
    assert abs(denoised.mean() - 1000) < 100
    path = preview.path_for(tmp_path / "model.safetensors")
    preview.of_run(run, path)
    assert path.name == "model.preview.png"
    with Picture.open(path) as picture:
        assert picture.width > 3 * noisy.shape[1]


def test_single_lines_make_no_picture():
    assert not preview.possible(begun("cosdd", (40, 1, 64)).frames)
    assert preview.possible(begun("cosdd").frames)
