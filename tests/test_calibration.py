"""Calibration: what is found without the clean image is what the clean image would give."""

import math
from unittest.mock import Mock

import numpy as np
import pytest
import tiny
import torch
from scipy import ndimage

import cosdd
from cosdd import calibration, config
from cosdd.data import Frames, Statistics
from cosdd.model import COSDD, USUAL, BlindRow, build
from cosdd.model.rownoise import RowNoise
from cosdd.sampling import Memory, Sampling


def model(stated: float) -> BlindRow:
    """Predicts the mean of the two next rows, with a standard deviation of our choice; knows the noise, white, 1."""
    torch.manual_seed(0)
    network = build(config.build("tiny", {"method": "blind-row", "blind_row": {"features": [4]}}))
    assert isinstance(network, BlindRow)
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.zero_()
        network.factor.fill_(stated / math.sqrt(network.factor[0].numel()))
    make_white(network.noise)
    return network.eval()


@torch.no_grad()
def make_white(noise: RowNoise) -> None:
    """Of variance 1."""
    noise.log_white.fill_(0.0)
    for other in (noise.log_white_gain, noise.log_correlated, noise.log_correlated_gain, noise.log_offset):
        other.fill_(math.log(1e-6))


def frames(count: int = 24, size: int = 64) -> tuple[Frames, np.ndarray]:
    """Of a wavy image under white noise of variance 1, half of them held out; and the clean image."""
    y, x = np.mgrid[:size, :size]
    clean = (2 * np.sin(y / 3) * np.cos(x / 5)).astype(np.float32)
    noisy = clean + np.random.default_rng(0).normal(size=(count, 1, size, size)).astype(np.float32)
    split = Frames.split([noisy], 0.5, 0)
    return Frames(split.arrays, Statistics((0.0,), (1.0,), 0.0), split.train, split.validation), clean


def test_brightness_that_is_off_is_found_and_put_right():
    network, (seen, _) = model(0.5), frames(count=40, size=160)
    noisy = torch.from_numpy(np.stack([seen.arrays[a][i] for a, i in seen.validation[:4]]))
    network.brightness.copy_(calibration.brightness(network, seen))
    right, std = network.posterior(noisy)
    with torch.no_grad():
        network.network.head.bias[0] += 0.3  # every prediction is too bright
    assert (network.posterior(noisy)[0] - right).mean() > 0.05
    network.brightness.copy_(calibration.brightness(network, seen))
    found, same = network.posterior(noisy)
    assert abs((found - right).mean()) < 0.01
    assert (found - right).square().mean() < 0.05**2
    torch.testing.assert_close(same, std)


def test_predictions_are_nearer_to_the_truth_in_the_mean():
    network, (seen, clean) = model(0.5), frames(size=96)

    @torch.no_grad()
    def error() -> float:
        x = torch.from_numpy(np.stack([seen.arrays[a][i] for a, i in seen.validation]))
        mean, _ = network.predicted(x, 0)
        mean = mean + network.missing_brightness(mean)
        truth = torch.from_numpy(clean)[None, None].expand_as(x)[..., :: network.period, :]
        return float((mean - network._rows(truth)[:, :, 0]).square().mean())

    before = error()
    network.brightness.copy_(calibration.brightness(network, seen))
    assert error() < 0.95 * before


def test_what_is_lacking_follows_the_level():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(400, 250))
    lacking = np.where(mean > 0.5, 0.2, 0.0) + rng.normal(size=mean.shape)
    level, missing = calibration.by_level(mean.ravel(), lacking.ravel(), np.repeat(np.arange(400), 250))
    assert (np.diff(level) > 0).all()
    assert np.abs(missing[level < 0.4]).max() < 0.02
    np.testing.assert_allclose(missing[(level > 0.6) & (level < 1.5)], 0.2, atol=0.06)


def test_noise_that_rows_share_is_chance():
    """Whole rows that are too bright say little, however many pixels they have."""
    rng = np.random.default_rng(0)
    mean, offsets = rng.normal(size=(60, 400)), rng.normal(size=(60, 1))
    lacking = offsets + 0.1 * rng.normal(size=mean.shape)
    _, missing = calibration.by_level(mean.ravel(), lacking.ravel(), np.repeat(np.arange(60), 400))
    assert np.abs(missing).max() < 0.2
    assert (missing == 0).mean() > 0.7


def test_where_pixels_are_saturated_the_others_say_nothing():
    rng = np.random.default_rng(0)
    mean = rng.uniform(-1, 2, (400, 250))
    noisy = mean + 0.3 * rng.normal(size=mean.shape)
    lacking = np.where(noisy < 1.5, noisy - mean, np.nan)  # what is left is the darker half
    level, missing = calibration.by_level(mean.ravel(), lacking.ravel(), np.repeat(np.arange(400), 250))
    assert level[-1] > 1.9
    assert np.abs(missing).max() < 0.05


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((24, 2, 64, 64), "y"), ((24, 2, 64, 64), "x"), ((4, 2, 24, 64, 40), "z"), ((4, 2, 12, 64, 64), "x")],
)
def test_every_channel_and_axis_has_its_own_brightness(shape, axis):
    settings = config.build(
        "tiny",
        {
            "method": "blind-row",
            "blind_row": {"features": [4]},
            "model": {"channels": 2, "dimensions": len(shape) - 2, "noise_axis": axis},
        },
    )
    network = build(settings).eval()
    assert isinstance(network, BlindRow)
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.zero_()
        outputs = len(network.network.head.bias) // 2
        network.network.head.bias[0], network.network.head.bias[outputs] = 0.3, -0.5  # of the predicted means
    noisy = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    split = Frames.split([noisy], 0.5, 0)
    seen = Frames(split.arrays, Statistics((0.0, 0.0), (1.0, 1.0), 0.0), split.train, split.validation)
    network.brightness.copy_(calibration.brightness(network, seen))
    for number, expected in enumerate((-0.3, 0.5)):  # at the level that is predicted most
        levels, missing = network.brightness[:, number].numpy()
        assert np.interp(-expected, levels, missing) == pytest.approx(expected, abs=0.1)
    mean, _ = network.posterior(torch.from_numpy(noisy[:2]), batch=4)
    assert mean.mean((0, *range(2, mean.ndim))).abs().max() < 0.05


def test_levels_without_pixels_lie_between_those_that_have_some():
    mean = np.repeat([0.0, 1.0], 50_000)
    row = np.arange(100_000) // 100
    level, missing = calibration.by_level(mean, np.where(mean > 0.5, 0.3, -0.3), row)
    assert (np.diff(level) >= 0).all()
    assert (level[0], level[-1]) == (0.0, 1.0)
    np.testing.assert_allclose((missing[0], missing[-1]), (-0.3, 0.3), atol=0.01)


def test_training_measures_the_brightness_and_the_model_file_keeps_it(tmp_path):
    y, x = np.mgrid[:64, :64]
    clean = 100 + 50 * np.sin(y / 4) * np.cos(x / 6)
    noisy = (clean + np.random.default_rng(0).normal(0, 20, (24, 64, 64))).astype(np.float32)
    trained = cosdd.train(noisy, axes="TYX", noise_axis="x", method="blind-row", steps=20, quiet=True)
    measured = trained.checkpoint.network.brightness
    assert measured[1].any()
    trained.save(tmp_path / "m.safetensors")
    torch.testing.assert_close(cosdd.load(tmp_path / "m.safetensors").checkpoint.network.brightness, measured)


def test_few_pixels_say_nothing_of_brightness():
    network, (seen, _) = model(0.5), frames(count=2, size=32)
    assert not calibration.brightness(network, seen).any()


@pytest.mark.parametrize("stated", [0.4, 0.5, 1.2])
def test_the_factor_is_the_one_that_the_truth_would_give(stated):
    network, (seen, clean) = model(stated), frames()
    (factor,) = calibration.spread(network, seen)
    with torch.no_grad():
        mean, std = network.estimate(torch.from_numpy(np.stack([seen.arrays[a][i] for a, i in seen.validation])))
    truth = float((mean - torch.from_numpy(clean)).square().mean().sqrt() / std.square().mean().sqrt())
    assert factor == pytest.approx(truth, rel=0.04)
    assert abs(math.log(factor)) > 0.1  # there was something to find


def test_missing_and_saturated_pixels_do_not_count():
    network, (seen, _) = model(0.7), frames()
    (factor,) = calibration.spread(network, seen)
    spoiled = np.array(seen.arrays[0])
    spoiled[:, :, 10, 20] = 1e6
    left_out = Frames.split([spoiled], 0.5, 0)
    left_out = Frames([spoiled], seen.statistics, seen.train, seen.validation, left_out.outliers)
    assert calibration.spread(network, left_out) == pytest.approx([factor], rel=0.02)


def test_strong_noise_leaves_little_to_say_about_a_small_error(monkeypatch):
    """Else a noise variance a little too high would make a poor model sure of itself."""
    network, (seen, clean) = model(0.1), frames()
    with torch.no_grad():
        network.noise.log_white.fill_(math.log(1.05))
    nearly = torch.from_numpy(clean) + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(network, "estimate", lambda x: (nearly.expand_as(x), torch.full_like(x, 0.1)))
    (factor,) = calibration.spread(network, seen)
    assert factor == pytest.approx(1, abs=0.1)
    monkeypatch.setattr(calibration, "WRONG", 0.0)
    assert calibration.spread(network, seen) == (1 / calibration.LARGEST,)


def test_too_little_held_out_gives_no_factor():
    assert calibration.spread(model(0.7), frames(6)[0]) == ()


# ------------------------------------------------------------------------------------- passes of the last step


def estimating(monkeypatch, width: float, known: np.ndarray | None = None, **settings) -> COSDD:
    """A COSDD model that knows the noise, white, 1, and estimates images by a Gaussian filter of that width; or that
    knows the image."""
    network = tiny.network(**settings).eval()
    assert network.measured is not None
    make_white(network.measured)

    def parts(self):
        seen = self.x[self.window].cpu().numpy()
        mean = ndimage.gaussian_filter(seen, (0, 0, width, width)) if known is None else known[None, None]
        std = None if self.settings.direct else torch.full(mean.shape, 0.3)
        yield 0.5
        yield torch.from_numpy(mean).to(self.x), None if std is None else std.to(self.x), [], 8

    monkeypatch.setattr(Sampling, "parts", parts)
    return network


def errors(network: COSDD, seen: Frames, clean: np.ndarray, direct: bool) -> list[float]:
    """Mean squared errors after each pass, by the truth."""
    settings = calibration.Settings(direct=True) if direct else calibration.Settings(samples=8)
    found = []
    with torch.inference_mode():
        for a, i in seen.validation:
            x = torch.from_numpy(seen.arrays[a][i : i + 1])
            after = calibration._by_pass(network, x, settings, "float32", Memory())
            found.append([float((estimate - torch.from_numpy(clean)).square().mean()) for estimate in after])
    return np.mean(found, 0).tolist()


@pytest.mark.parametrize("width", [0.3, 1.2, 2.5])
def test_there_are_as_many_passes_as_the_truth_would_take(monkeypatch, width):
    network, (seen, clean) = estimating(monkeypatch, width), frames(count=16)
    for passes, direct in zip(calibration.passes(network, seen, "float32"), (False, True), strict=True):
        true = errors(network, seen, clean, direct)
        assert true[passes] < 1.02 * min(true)


def test_a_poor_estimate_takes_many_passes_and_a_good_one_few(monkeypatch):
    seen, clean = frames(count=16)
    assert calibration.passes(estimating(monkeypatch, 0.3), seen, "float32")[0] >= 4
    perfect = estimating(monkeypatch, 0.0, clean)
    assert calibration.passes(perfect, seen, "float32") == USUAL  # it would take exact noise to tell
    monkeypatch.setattr(calibration, "WRONG", -1.0)
    assert calibration.passes(perfect, seen, "float32") == (0, 0)


def test_missing_pixels_do_not_change_the_passes(monkeypatch):
    network, (seen, _) = estimating(monkeypatch, 1.2), frames(count=16)
    expected = calibration.passes(network, seen, "float32")
    spoiled = np.array(seen.arrays[0])
    spoiled[:, :, 10, 20] = 1e6
    found = Frames.split([spoiled], 0.5, 0).outliers
    left_out = Frames([spoiled], seen.statistics, seen.train, seen.validation, found)
    assert calibration.passes(network, left_out, "float32") == expected
    assert expected not in (USUAL, (0, 0), (calibration.MOST_PASSES,) * 2)


def test_saturated_pixels_do_not_count(monkeypatch):
    """As if they were as dark as the ceiling, the estimate seems too bright there, and the filter too."""
    network, (seen, _) = estimating(monkeypatch, 1.2), frames(count=16)
    clipped = np.minimum(seen.arrays[0], 1.0)
    found = Frames.split([clipped], 0.5, 0).outliers
    assert found is not None
    assert found.ceiling.tolist() == [1.0]
    known, blind = (Frames([clipped], seen.statistics, seen.train, seen.validation, each) for each in (found, None))
    passes = calibration.passes(network, known, "float32")
    assert passes != calibration.passes(network, blind, "float32")
    assert passes == (calibration.MOST_PASSES, calibration.MOST_PASSES)


@pytest.mark.parametrize("failure", [None, torch.cuda.OutOfMemoryError("out of memory"), KeyboardInterrupt()])
def test_a_failure_costs_no_model(monkeypatch, failure):
    network, (seen, _) = estimating(monkeypatch, 0.0, np.full((64, 64), np.nan, np.float32)), frames(count=16)
    if failure is not None:
        monkeypatch.setattr(Sampling, "parts", Mock(side_effect=failure))
    assert calibration.passes(network, seen, "float32") == USUAL


def test_other_failures_are_told(monkeypatch):
    network, (seen, _) = estimating(monkeypatch, 0.3), frames(count=16)
    monkeypatch.setattr(Sampling, "parts", Mock(side_effect=RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        calibration.passes(network, seen, "float32")


def test_passes_are_those_of_the_noise_axis(monkeypatch):
    """Of images turned by a quarter they are the same; of noise along the other axis they are not."""
    found = {}
    (seen, clean), turned = frames(count=16), (0, 1, 3, 2)
    for axis in ("x", "y"):
        network = estimating(monkeypatch, 0.3, noise_axis=axis)
        assert network.measured is not None
        with torch.no_grad():
            network.measured.log_correlated.fill_(math.log(4.0))
        if not found:
            noise = network.measured.draw_along(-1, torch.zeros(16, 1, 64, 64), torch.Generator().manual_seed(1))
            noisy = clean + noise.numpy()
        for turn in (False, True):
            arrays = [np.ascontiguousarray(noisy.transpose(turned)) if turn else noisy]
            stack = Frames(arrays, seen.statistics, seen.train, seen.validation)
            found[axis, turn] = calibration.passes(network, stack, "float32")
    assert found["x", False] == found["y", True]
    assert found["x", False] != found["x", True]


@pytest.mark.parametrize(("shape", "axis"), [((24, 2, 40, 48), "none"), ((4, 1, 12, 64, 40), "z")])
def test_passes_are_found_in_channels_and_volumes(shape, axis):
    network = tiny.shaken(tiny.network(channels=shape[1], dimensions=len(shape) - 2, noise_axis=axis)).eval()
    assert isinstance(network, COSDD)
    assert network.measured is not None
    make_white(network.measured)
    noisy = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert calibration.passes(network, Frames.split([noisy], 0.5, 0), "float32").samples > USUAL.samples  # it is random


def test_where_too_little_is_held_out_the_training_images_tell(monkeypatch):
    network, (seen, _) = estimating(monkeypatch, 0.3), frames(count=16)
    one = Frames(seen.arrays, seen.statistics, (*seen.train, *seen.validation[1:]), seen.validation[:1])
    assert calibration.passes(network, one, "float32") == (calibration.MOST_PASSES,) * 2


def test_where_nothing_is_held_out_the_training_image_tells(monkeypatch):
    y, x = np.mgrid[:200, :200]
    clean = (2 * np.sin(y / 3) * np.cos(x / 5)).astype(np.float32)
    one = (clean + np.random.default_rng(0).normal(size=(1, 1, 200, 200))).astype(np.float32)
    split = Frames.split([one], 0.5, 0)
    assert split.validation == ()
    seen = Frames(split.arrays, Statistics((0.0,), (1.0,), 0.0), split.train, ())
    network = estimating(monkeypatch, 0.6)
    samples, direct = calibration.passes(network, seen, "float32")
    held_out = Frames(seen.arrays, seen.statistics, (), split.train)
    for taken, way in ((samples, False), (direct, True)):
        true = errors(network, held_out, clean, way)
        assert true[taken] < 1.02 * min(true)


def test_where_nothing_can_be_told_there_are_as_many_passes_as_usual(monkeypatch):
    seen, _ = frames(count=16)
    assert calibration.passes(estimating(monkeypatch, 0.3), frames(3)[0], "float32") == USUAL
    samples, direct = calibration.passes(estimating(monkeypatch, 0.3, direct=False), seen, "float32")
    assert samples > USUAL.samples
    assert direct == USUAL.direct
