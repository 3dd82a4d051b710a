"""Denoising: averages, samples, axes and grey values."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import checkpoint, shaken, stripes

from cosdd import config, denoise, images, sampling
from cosdd.axes import Image
from cosdd.checkpoint import Checkpoint
from cosdd.data import Statistics
from cosdd.denoise import Denoiser, Result, Settings
from cosdd.errors import InputError
from cosdd.model import COSDD, Passes, build
from cosdd.model.ladder import Ladder


def denoiser(mean=1000.0, std=100.0, **model) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(checkpoint(mean, std, **model))


NOISY = stripes(3)[:, 0]


# -------------------------------------------------------------------------------------------- statistics


def test_mean_and_standard_deviation_are_those_of_the_samples():
    """Streamed one by one, equal to a computation that has all samples in memory."""
    result = denoiser().denoise(NOISY, samples=7, plain=True, save_samples=7)
    assert result.samples is not None
    assert result.std is not None
    samples = result.samples.astype(np.float64)
    assert samples.shape == (7, *NOISY.shape)
    np.testing.assert_allclose(result.mean, samples.mean(0), rtol=1e-6)
    np.testing.assert_allclose(result.std, samples.std(0, ddof=1), rtol=1e-3, atol=1e-3)
    assert result.std.min() > 0


def test_results_are_float32_and_finite():
    result = denoiser().denoise(NOISY, samples=2, save_samples=1)
    for pixels in (result.mean, result.std, result.samples):
        assert pixels is not None
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()


def test_one_sample_has_no_spread():
    result = denoiser().denoise(NOISY[0], samples=1)
    assert result.std is not None
    assert (result.std == 0).all()


@pytest.mark.parametrize("block", ["plain", "supplement"])
def test_how_many_samples_go_together_changes_nothing(monkeypatch, block):
    model = denoiser(block=block)
    results = []
    for pixels in (1, 3 * 32 * 32, 2**30):
        monkeypatch.setattr(sampling, "PIXELS_AT_ONCE", dict.fromkeys(["cpu", "cuda", "mps"], pixels))
        results.append(model.denoise(NOISY[:2], samples=5, save_samples=2))
    for other in results[1:]:
        np.testing.assert_allclose(other.mean, results[0].mean, rtol=1e-6)
        np.testing.assert_allclose(other.std, results[0].std, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(other.samples, results[0].samples, rtol=1e-6)


def test_saved_samples_are_the_first_ones():
    model = denoiser()
    few, many = (model.denoise(NOISY[0], samples=6, save_samples=k).samples for k in (2, 5))
    assert few is not None
    assert many is not None
    assert (few.shape, many.shape) == ((2, 32, 32), (5, 32, 32))
    np.testing.assert_array_equal(few, many[:2])
    assert np.abs(many[0] - many[1]).max() > 1e-3
    assert model.denoise(NOISY[0], samples=2).samples is None


@pytest.mark.parametrize(("plain", "counts"), [(True, (2, 3)), (False, (8, 21))])
def test_more_samples_begin_with_the_same_ones(plain, counts):
    model = denoiser()
    few, many = (model.denoise(NOISY[0], samples=n, plain=plain, save_samples=2).samples for n in counts)
    np.testing.assert_allclose(few, many, rtol=1e-6)


# -------------------------------------------------------------------------------------- coupled, enough


def test_coupled_samples_have_the_mean_and_spread_of_plain_ones_and_come_nearer_to_it():
    """Of 400 plain samples of a trained model, the limit; each coupled sample is one of the same kind."""
    model = Denoiser.load(Path(__file__).parent / "fixtures" / "cosdd-0.1.safetensors")
    noisy = np.load(Path(__file__).parent / "fixtures" / "noisy.npy")[0]
    limit = model.denoise(noisy, samples=400, plain=True)
    plain, coupled = (model.denoise(noisy, samples=16, plain=plain, seed=1) for plain in (True, False))
    assert limit.std is not None
    assert coupled.std is not None
    variance = np.mean(limit.std**2)
    errors = [np.mean((found.mean - limit.mean) ** 2) / variance - 1 / 400 for found in (plain, coupled)]
    assert errors[0] == pytest.approx(1 / 16, rel=0.4)
    assert abs(errors[1]) < errors[0] / 5
    assert np.mean(coupled.std**2) == pytest.approx(variance, rel=0.1)


def test_as_many_samples_as_it_takes_for_each_image():
    """The same number and the same pixels in tiles; fewer where the noise is stronger than what samples disagree on."""
    model = denoiser(0.0, 1.0)
    rng = np.random.default_rng(0)
    noisy = np.stack([rng.normal(size=(40, 40)) * scale for scale in (0.3, 3.0)])
    whole, tiled = (model.denoise(noisy, tile=edge) for edge in (1000, 16))
    assert whole.taken == tiled.taken
    assert 8 <= whole.taken[1] < whole.taken[0] <= 128
    np.testing.assert_allclose(tiled.mean, whole.mean, atol=1e-5 * np.ptp(whole.mean))
    np.testing.assert_allclose(tiled.std, whole.std, atol=1e-5 * np.ptp(whole.mean))
    assert model.denoise(noisy[1], samples=3).taken == (3,)
    assert model.denoise(noisy[1], plain=True).taken == (100,)
    assert model.denoise(noisy[1], direct=True).taken == (0,)


# -------------------------------------------------------------------------------------------------- seed


def test_the_seed_repeats_and_another_one_differs():
    model = denoiser()
    first = model.denoise(NOISY[0], samples=2, seed=4)
    torch.manual_seed(77)
    again = model.denoise(NOISY[0], samples=2, seed=4)
    np.testing.assert_array_equal(again.mean, first.mean)
    assert not np.array_equal(model.denoise(NOISY[0], samples=2, seed=5).mean, first.mean)


def test_no_two_frames_share_their_latent_noise():
    """Equal frames get samples of their own: averages over frames go on gaining."""
    twins = np.stack([NOISY[0], NOISY[0]])
    result = denoiser().denoise(twins, samples=1)
    assert np.abs(result.mean[0] - result.mean[1]).max() > 1e-3


# ------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("tile", [12, 24, 40])
@pytest.mark.parametrize("shape", [(57, 83), (7, 90), (61, 64)])
@pytest.mark.parametrize("model", [{}, {"block": "supplement", "padding": "reflect", "decoder_input": "latent"}])
def test_tiles_equal_the_whole(shape, tile, model):
    """Mean, standard deviation and single samples; to the last digits of float32."""
    net, noisy = denoiser(0.0, 1.0, levels=3, **model), np.random.default_rng(0).normal(size=shape)
    whole, tiled = (net.denoise(noisy, samples=7, save_samples=2, tile=edge) for edge in (1000, tile))
    for one, other in ((tiled.mean, whole.mean), (tiled.std, whole.std), (tiled.samples, whole.samples)):
        assert one is not None
        np.testing.assert_allclose(one, other, atol=1e-5 * np.ptp(whole.mean))
    direct = [net.denoise(noisy, direct=True, tile=edge).mean for edge in (1000, tile)]
    np.testing.assert_allclose(*direct, atol=1e-5 * np.ptp(direct[0]))
    assert len(set(np.round(whole.mean, 5).ravel())) > 100


@pytest.mark.filterwarnings("ignore:these images are not like")
def test_how_many_samples_are_enough_does_not_depend_on_the_tiles():
    """Only the pixels of the image count: what tiles see beyond it differs from tile to tile."""
    net, base = denoiser(0.0, 1.0), np.random.default_rng(3).normal(size=(17, 19))
    noisy = base * np.linspace(0.16, 0.24, 8).reshape(-1, 1, 1)
    whole, tiled = (net.denoise(noisy, tile=edge) for edge in (1000, 8))
    assert whole.taken == tiled.taken
    assert min(whole.taken) > 8
    assert tiled.std is not None
    np.testing.assert_allclose(tiled.std, whole.std, atol=1e-5 * np.ptp(whole.mean))


@pytest.mark.parametrize(("start", "ways_up"), [("empty", 1), ("wavelets", 3)])
def test_the_way_up_is_gone_once_for_each_position_of_the_grid(monkeypatch, start, ways_up):
    net, gone, climb = denoiser(0.0, 1.0, start=start, levels=3), [], Ladder.climb

    def counted(self, h, first=0, stop=None):
        gone.append(first)
        return climb(self, h, first, stop)

    monkeypatch.setattr(Ladder, "climb", counted)
    net.denoise(np.random.default_rng(0).normal(size=(32, 32)), samples=32)
    assert gone.count(0) == ways_up


def test_tiles_of_volumes_equal_the_whole():
    net, noisy = denoiser(0.0, 1.0, dimensions=3), np.random.default_rng(0).normal(size=(9, 30, 41))
    whole, tiled = (net.denoise(noisy, axes="ZYX", samples=2, tile=edge).mean for edge in (1000, 12))
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.ptp(whole))


def little_memory(monkeypatch):
    """It suffices for tiles of 6000 pixels."""
    sample = COSDD.sample

    def poor(self, features, *rest):
        if features[0][0, 0].numel() > 6000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(self, features, *rest)

    monkeypatch.setattr(COSDD, "sample", poor)
    monkeypatch.setattr(sampling, "SMALLEST_TILE", 1000)


def test_what_does_not_fit_into_memory_goes_on_in_smaller_tiles(monkeypatch, capsys):
    net, noisy = denoiser(0.0, 1.0), np.random.default_rng(0).normal(size=(100, 120))
    whole = net.denoise(noisy, samples=2).mean
    little_memory(monkeypatch)
    np.testing.assert_allclose(net.denoise(noisy, samples=2).mean, whole, atol=1e-5 * np.ptp(whole))
    assert "note: out of memory with" in capsys.readouterr().out
    monkeypatch.setattr(sampling, "SMALLEST_TILE", 10**6)
    with pytest.raises(torch.OutOfMemoryError):
        net.denoise(noisy, samples=2)


def test_what_was_learned_about_memory_holds_for_the_next_frames(monkeypatch, capsys):
    net, noisy = denoiser(0.0, 1.0), np.random.default_rng(0).normal(size=(4, 100, 120))
    little_memory(monkeypatch)
    net.denoise(noisy[:1], samples=2)
    once = capsys.readouterr().out
    net.denoise(noisy, samples=2)
    assert once == capsys.readouterr().out != ""


@pytest.mark.parametrize("start", ["empty", "wavelets"])
@pytest.mark.parametrize("edge", [300, 700])
@pytest.mark.parametrize("direct", [False, True])
def test_memory_that_never_suffices_is_an_error_and_no_endless_try(monkeypatch, start, edge, direct):
    net, tries = denoiser(0.0, 1.0, start=start, levels=4), []

    def poor(self, cut):
        tries.append(cut.needs)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sampling.Sampling, "_tiled", poor)
    with pytest.raises(torch.OutOfMemoryError):
        net.denoise(np.random.default_rng(0).normal(size=(edge, edge)), samples=None if direct else 2, direct=direct)
    assert len(tries) > 1
    assert tries == sorted(tries, reverse=True)


# ------------------------------------------------------------------------------------------- grey values


def test_fractions_of_a_grey_value_survive_a_large_offset():
    """bfloat16 de-normalisation quantises images at 1000 to steps of 4 (method 8.4)."""
    offset = 1e4
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16))
    low = denoiser(0.0, 1.0).denoise(pixels, samples=3, save_samples=1)
    high = denoiser(offset, 1.0).denoise(pixels + offset, samples=3, save_samples=1)
    step = np.spacing(np.float32(offset))
    np.testing.assert_allclose(high.mean - offset, low.mean, atol=step)
    np.testing.assert_allclose(high.std, low.std, atol=1e-5)
    assert high.samples is not None
    assert low.samples is not None
    np.testing.assert_allclose(high.samples - offset, low.samples, atol=step)


@pytest.mark.filterwarnings("ignore:these images are not like")
def test_the_standard_deviation_is_in_grey_values():
    one, ten = (denoiser(0.0, std).denoise(NOISY[0] * std, samples=3) for std in (1.0, 10.0))
    assert one.std is not None
    assert ten.std is not None
    np.testing.assert_allclose(ten.std, 10 * one.std, rtol=1e-3)
    np.testing.assert_allclose(ten.mean, 10 * one.mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", ">f4", "float64", "int32"])
def test_any_dtype_in_and_float32_out(dtype):
    pixels = (NOISY[0] % 200).astype(dtype)
    result = denoiser(100.0, 50.0).denoise(pixels, samples=1)
    assert result.mean.dtype == np.float32
    np.testing.assert_array_equal(result.mean, denoiser(100.0, 50.0).denoise(NOISY[0] % 200, samples=1).mean)


# -------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("axes", "shape", "model"),
    [
        ("YX", (20, 24), {}),
        ("TYX", (3, 20, 24), {}),
        ("YXT", (20, 24, 3), {}),
        ("XY", (24, 20), {}),
        ("CYX", (2, 20, 24), {"channels": 2}),
        ("YXC", (20, 24, 3), {"channels": 3}),
        ("TCYX", (3, 2, 20, 24), {"channels": 2}),
        ("TZCYX", (2, 3, 1, 20, 24), {}),
        ("ZYX", (5, 8, 12), {"dimensions": 3}),
        ("TZCYX", (2, 3, 2, 8, 12), {"dimensions": 3, "channels": 2, "noise_axis": "z"}),
        ("X", (70,), {"dimensions": 1}),
        ("YX", (3, 70), {"dimensions": 1}),
    ],
)
def test_outputs_have_the_axes_of_the_input(axes, shape, model):
    pixels = np.random.default_rng(0).normal(1000, 100, shape)
    result = denoiser(**model).denoise(pixels, axes=axes, samples=2, save_samples=2)
    assert result.mean.shape == shape
    assert result.std is not None
    assert result.std.shape == shape
    assert result.samples is not None
    assert result.samples.shape == (2, *shape)
    assert denoiser(**model).denoise(pixels, axes=axes, direct=True).mean.shape == shape


def test_transposed_axes_are_the_same_image():
    model = denoiser(channels=2)
    pixels = np.random.default_rng(0).normal(1000, 100, (3, 2, 20, 24))
    wanted = model.denoise(pixels, axes="TCYX", samples=2, save_samples=1)
    turned = model.denoise(pixels.transpose(3, 0, 2, 1), axes="XTYC", samples=2, save_samples=1)
    np.testing.assert_array_equal(turned.mean.transpose(1, 3, 2, 0), wanted.mean)
    assert turned.samples is not None
    assert wanted.samples is not None
    np.testing.assert_array_equal(turned.samples[0].transpose(1, 3, 2, 0), wanted.samples[0])


def test_every_frame_is_denoised_by_itself_and_stays_in_its_place():
    model = denoiser()
    together = model.denoise(NOISY, direct=True).mean
    for index, frame in enumerate(NOISY):
        np.testing.assert_allclose(model.denoise(frame, direct=True).mean, together[index], rtol=1e-6)
    alone, first = model.denoise(NOISY[0], samples=2), model.denoise(NOISY, samples=2)
    np.testing.assert_allclose(first.mean[0], alone.mean, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:these images are not like")
@pytest.mark.parametrize("space", [(1, 1), (1, 33), (17, 2), (7, 64), (31, 33)])
def test_odd_sizes_just_work(space):
    pixels = np.random.default_rng(0).normal(1000, 100, (2, *space))
    for way in ({"samples": 1}, {"direct": True}):
        assert denoiser(levels=4).denoise(pixels, axes="TYX", **way).mean.shape == (2, *space)


def test_files_and_images_and_arrays_are_the_same(tmp_path):
    np.save(tmp_path / "a.npy", NOISY)
    model = denoiser()
    wanted = model.denoise(NOISY, samples=1).mean
    for source in (tmp_path / "a.npy", str(tmp_path / "a.npy"), images.from_array(NOISY, "TYX")):
        axes = None if isinstance(source, Image) else "TYX"
        np.testing.assert_array_equal(model.denoise(source, axes=axes, samples=1).mean, wanted)


def test_what_is_wrong_is_said_of_the_file(tmp_path):
    senseless = checkpoint(1000.0, 100.0)
    with torch.no_grad():
        for parameter in senseless.network.parameters():
            parameter.fill_(1e30)
    np.save(tmp_path / "a.npy", NOISY[0])
    with pytest.raises(InputError, match=r"a\.npy: what the model gives is not finite"):
        Denoiser(senseless).denoise(tmp_path / "a.npy", samples=1)
    with pytest.raises(InputError, match=r"^what the model gives is not finite"):
        Denoiser(senseless).denoise(np.load(tmp_path / "a.npy"), samples=1)


def test_the_input_is_not_touched():
    pixels = NOISY.copy()
    denoiser().denoise(pixels, samples=1)
    np.testing.assert_array_equal(pixels, NOISY)


# ----------------------------------------------------------------------------------------------- refined


@pytest.mark.parametrize("noise_axis", ["x", "y", "none"])
def test_estimates_are_refined_unless_plain_and_samples_never(noise_axis):
    model = denoiser(noise_axis=noise_axis)
    network, statistics = model.checkpoint.network, model.checkpoint.statistics
    assert isinstance(network, COSDD)

    def made(**how) -> tuple[Result, Result]:
        return model.denoise(NOISY, samples=8, save_samples=2, **how), model.denoise(NOISY, direct=True, **how)

    refined = made()
    measured, network.measured = network.measured, None
    bare = made()
    network.measured = measured
    x = torch.from_numpy(statistics.normalise(NOISY[:, None]))
    for better, before in zip(refined, bare, strict=True):
        mean = torch.from_numpy(statistics.normalise(before.mean[:, None]))
        std = None if before.std is None else torch.from_numpy(before.std[:, None] / np.float32(statistics.std[0]))
        with torch.no_grad():
            *_, (share, expected) = network.refined(x, mean, std, 2)
        assert share == 1
        np.testing.assert_allclose(better.mean, statistics.restore(expected.numpy())[:, 0], rtol=1e-5)
        assert np.abs(better.mean - before.mean).max() > 1
    np.testing.assert_array_equal(refined[0].std, bare[0].std)
    np.testing.assert_array_equal(refined[0].samples, bare[0].samples)
    for how in ({"samples": 8}, {"direct": True}):
        plain = model.denoise(NOISY, plain=True, **how).mean
        network.measured = None
        np.testing.assert_array_equal(model.denoise(NOISY, plain=True, **how).mean, plain)
        network.measured = measured


def test_each_kind_of_estimate_has_its_own_number_of_passes():
    model = denoiser()
    network, statistics = model.checkpoint.network, model.checkpoint.statistics
    assert isinstance(network, COSDD)
    passes = Denoiser(dataclasses.replace(model.checkpoint, passes=Passes(0, 3)))
    measured, network.measured = network.measured, None
    drawn, direct = model.denoise(NOISY, samples=8), model.denoise(NOISY, direct=True)
    network.measured = measured
    np.testing.assert_array_equal(passes.denoise(NOISY, samples=8).mean, drawn.mean)
    x, mean = (torch.from_numpy(statistics.normalise(image[:, None])) for image in (NOISY, direct.mean))
    with torch.no_grad():
        *_, (share, expected) = network.refined(x, mean, None, 3)
    assert share == 1
    found = passes.denoise(NOISY, direct=True).mean
    np.testing.assert_allclose(found, statistics.restore(expected.numpy())[:, 0], rtol=1e-5)


def test_a_single_sample_is_not_refined():
    """It is one of the clean images that explain the noisy one, not a guess at their mean."""
    result = denoiser().denoise(NOISY, samples=1, save_samples=1)
    assert result.samples is not None
    np.testing.assert_allclose(result.mean, result.samples[0], rtol=1e-6)


# ------------------------------------------------------------------------------------------------ direct


def test_direct_is_one_pass_without_spread():
    model = denoiser()
    result = model.denoise(NOISY, direct=True)
    assert result.std is None
    assert result.samples is None
    assert result.mean.dtype == np.float32
    np.testing.assert_array_equal(model.denoise(NOISY, direct=True, seed=9).mean, result.mean)
    assert not np.allclose(result.mean, model.denoise(NOISY, samples=1).mean)


def test_a_model_without_direct_denoiser_says_how_to_get_one():
    with pytest.raises(InputError, match=r"model\.direct=true"):
        denoiser(direct=False).denoise(NOISY, direct=True)
    assert denoiser(direct=False).denoise(NOISY[0], samples=1).mean.shape == (32, 32)


# ----------------------------------------------------------------------------------------- learned noise


def test_learned_noise_is_told_in_grey_values():
    torch.manual_seed(0)
    settings = config.build("tiny", {"method": "blind-row", "model": {"channels": 2}, "blind_row": {"features": [4]}})
    network = build(settings)
    with torch.no_grad():
        for parameter in network.noise.parameters():
            if parameter.requires_grad:  # straight lines and no wave, unless a measurement asks for more
                parameter.add_(0.3 * torch.randn_like(parameter))
    trained = Checkpoint(settings, Statistics((1000.0, 50.0), (100.0, 10.0), 0.0), network, (), 1, 1.0)  # type: ignore[arg-type]
    for channel, noise in enumerate(Denoiser(trained).noise()):
        mean, std = trained.statistics.mean[channel], trained.statistics.std[channel]
        for signal in (0.0, 0.7):
            covariance = network.noise.covariance(torch.full((2, 1, 8), signal))[channel, 0].detach().numpy() * std**2
            assert noise.gain * (mean + std * signal) + noise.variance_at_zero == pytest.approx(covariance[0, 0], 1e-4)
            if signal == 0:
                np.testing.assert_allclose(noise.autocorrelation[:7], covariance[0, 1:] / covariance[0, 0], rtol=1e-4)
        assert noise.row_offset == pytest.approx(std * network.noise.offset()[channel].item() ** 0.5)
        assert f"{noise.autocorrelation[0]:+.2f}" in noise.describe()


def test_the_noise_of_the_papers_model_is_no_formula():
    with pytest.raises(InputError, match="blind-row"):
        denoiser().noise()


# ------------------------------------------------------------------------------------------------ flips


def blind_row() -> Denoiser:
    torch.manual_seed(0)
    settings = config.build("tiny", {"method": "blind-row", "blind_row": {"features": [4, 6]}})
    network = build(settings)
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Denoiser(Checkpoint(settings, Statistics((1000.0,), (100.0,), 0.0), network, (), 1, 1.0))  # type: ignore[arg-type]


def test_the_standard_deviation_is_calibrated_and_nothing_else():
    """Not that of the closed form either: what was measured is how wrong the refined mean is."""
    model = blind_row()
    calibrated = Denoiser(dataclasses.replace(model.checkpoint, spread=(1.25,)))
    for plain, factor in ((False, 1.25), (True, 1.0)):
        without, found = (each.denoise(NOISY[0], plain=plain) for each in (model, calibrated))
        np.testing.assert_array_equal(found.mean, without.mean)
        np.testing.assert_allclose(found.std, factor * without.std, rtol=1e-6)


def test_images_unlike_those_trained_on_are_warned_of():
    noisy = 1000 + 100 * (NOISY - NOISY.mean()) / NOISY.std()
    assert blind_row().denoise(noisy).notes == ()
    with pytest.warns(UserWarning, match="not like the training images"):
        (note,) = blind_row().denoise(noisy / 255).notes
    assert "contrast 255.00-fold" in note


def test_pixels_that_are_replaced_are_counted():
    """They may be stars. Contrast is compared without them, as in training."""
    noisy = np.tile(1000 + 100 * (NOISY - NOISY.mean()) / NOISY.std(), (4, 4, 4))
    noisy[:, 5::32, 7::32] += 3e4
    (note,) = blind_row().denoise(noisy).notes
    assert note.startswith(f"{1 / 32**2:.3%} of the pixels stand out")


def test_flips_average_over_the_four_mirrored_images():
    model, noisy = blind_row(), NOISY[:1]
    once = model.denoise(noisy, plain=True)
    seen = []
    flipped = model.denoise(noisy, flips=True, plain=True, progress=seen.append)
    views = [model.denoise(np.flip(noisy, axes).copy(), plain=True) for axes in ((), (1,), (2,), (1, 2))]
    mean = np.mean([np.flip(v.mean, axes) for v, axes in zip(views, ((), (1,), (2,), (1, 2)), strict=True)], axis=0)
    np.testing.assert_allclose(flipped.mean, mean, rtol=1e-5)
    assert np.abs(flipped.mean - once.mean).max() > 1
    np.testing.assert_allclose(
        model.denoise(np.flip(noisy, 1).copy(), flips=True, plain=True).mean[:, ::-1], mean, rtol=1e-5
    )
    stds = [np.flip(v.std, axes) for v, axes in zip(views, ((), (1,), (2,), (1, 2)), strict=True) if v.std is not None]
    np.testing.assert_allclose(flipped.std, np.sqrt(np.mean(np.square(stds), axis=0)), rtol=1e-4)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_flips_are_refused_where_noise_of_any_shape_is_learned():
    with pytest.raises(InputError, match="--flips is for blind-row models"):
        denoiser().denoise(NOISY, flips=True)


# -------------------------------------------------------------------------------------- progress, stream


def test_progress_rises_to_one():
    seen = []
    denoiser().denoise(NOISY, samples=3, progress=seen.append)
    assert len(seen) >= len(NOISY)
    assert seen == sorted(seen)
    assert 0 < seen[0] < 1
    assert seen[-1] == 1.0


def test_a_frame_is_handed_over_as_soon_as_it_is_done():
    """Memory for one frame, not for the whole stack."""
    model = denoiser()
    stream = model.stream(model.frames(images.from_array(NOISY)), Settings(samples=2))
    first = next(item for item in stream if isinstance(item, Result))
    assert first.mean.shape == (1, 32, 32)
    later = next(item for item in stream if not isinstance(item, Result))
    assert later == pytest.approx(1 / 3)


def test_the_callers_own_arithmetic_is_not_changed_between_frames():
    model = denoiser()
    for _ in model.stream(model.frames(images.from_array(NOISY)), Settings(samples=1)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("pixels", "axes", "model", "said"),
    [
        (np.ones((2, 8, 8)).cumsum(0), "CYX", {}, r"2 channel\(s\).*trained on 1"),
        (np.eye(8), "YX", {"channels": 3}, r"1 channel\(s\).*trained on 3"),
        (np.eye(8), "YX", {"dimensions": 3}, "axis Z is missing"),
        (np.arange(8.0), "X", {}, "axis Y is missing"),
        (np.full((8, 8), np.nan), "YX", {}, "NaN"),
        (np.zeros((8, 8)), "YX", {}, "every pixel is 0"),
    ],
)
def test_images_of_another_kind_are_refused_in_one_line(pixels, axes, model, said):
    with pytest.raises(InputError, match=said) as caught:
        denoiser(**model).denoise(pixels, axes=axes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"samples": 3, "save_samples": 4}, "save_samples is 4"),
        ({"save_samples": -1}, "save_samples is -1"),
        ({"samples": None, "save_samples": 9}, "save_samples is 9"),
        ({"save_samples": 1, "direct": True}, "direct"),
        ({"samples": 5, "direct": True}, "direct"),
        ({"samples": "auto"}, "samples is 'auto', expected a whole number"),
        ({"samples": 2.5}, "whole number"),
        ({"tile": True}, "tile is True, expected a whole number"),
        ({"seed": None}, "whole number"),
        ({"flips": "false"}, "flips is 'false', expected True or False"),
        ({"axes": 5}, "axes 5; expected a letter for each axis"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_wishes_are_refused(asked, said):
    with pytest.raises(InputError, match=said):
        denoiser().denoise(NOISY[0], **{"samples": 2} | asked)


def test_a_network_is_made_ready_once_and_anew_when_its_weights_change():
    """Its copy took half a second of each call on a GPU; a stale one would denoise with yesterday's weights."""
    known, where = checkpoint(1000.0, 100.0), torch.device("cpu")
    model = Denoiser(known)
    noisy = stripes(1)[0, 0]
    first = model.denoise(noisy, samples=2).mean
    ready = denoise._prepared(known.network, where)
    assert denoise._prepared(known.network, where) is ready
    np.testing.assert_array_equal(model.denoise(noisy, samples=2).mean, first)
    with torch.no_grad():
        shaken(known.network)
    assert denoise._prepared(known.network, where) is not ready
    assert not np.array_equal(model.denoise(noisy, samples=2).mean, first)
