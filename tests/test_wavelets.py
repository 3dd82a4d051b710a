"""The ladder that starts as a wavelet denoiser."""

import math

import numpy as np
import pytest
import torch
from tiny import checkpoint, settings, shaken
from torch import Tensor

from cosdd import estimates, latents, training
from cosdd.data import Frames
from cosdd.denoise import Denoiser
from cosdd.model import COSDD, wavelets
from cosdd.model.noise import draw
from cosdd.model.wavelets import WaveletLadder

SPACE = {1: (32,), 2: (16, 32), 3: (8, 16, 8)}


def network(**model) -> COSDD:
    return COSDD(settings(start="wavelets", **model).model)


def spoken(net: COSDD) -> COSDD:
    """With random weights."""
    shaken(net)
    return net.eval()


def ladder_of(net: COSDD) -> WaveletLadder:
    assert isinstance(net.ladder, WaveletLadder)
    return net.ladder


def silence(level: int, shape: torch.Size, device: torch.device) -> Tensor:
    return torch.zeros(shape, device=device)


def noisy_discs(frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1, y, x) smooth images, and the same under noise that shares .5 with the next pixel of its row."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    clean = np.zeros((frames, 32, 32))
    for frame in clean:
        cy, cx, size = rng.uniform(4, 28, 3)
        frame += 300 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / size**2)
    white = rng.normal(size=(frames, 32, 33))
    noisy = clean + 60 * (white[..., 1:] + white[..., :-1]) / math.sqrt(2)
    return clean[:, None].astype(np.float32), noisy[:, None].astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_an_image_comes_back_from_its_wavelets(dimensions):
    haar = wavelets.kernels(dimensions).double()
    x = torch.randn(2, 3, *SPACE[dimensions], dtype=torch.float64)
    coarser, details = wavelets.analyse(x, haar)
    torch.testing.assert_close(wavelets.combine(coarser, details, haar), x, rtol=1e-6, atol=1e-6)
    energy = coarser.square().sum() + details.square().sum()  # orthonormal, to the precision of float32 kernels
    torch.testing.assert_close(energy, x.square().sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(wavelets.unpatched(wavelets.patches(x), dimensions), x)


def test_interpolation_knows_the_wavelets_of_a_slope():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    image = (2 * x - 3 * y)[None, None]
    coarser, details = wavelets.analyse(image, wavelets.kernels(2))
    said = ladder_of(network())._interpolated(coarser)
    torch.testing.assert_close(said[..., 1:-1, 1:-1], details[..., 1:-1, 1:-1])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_noise_of_wavelets_follows_from_its_covariance(level):
    rng = np.random.default_rng(0)
    white = rng.normal(size=(40, 64, 65))
    x = torch.from_numpy((white[..., 1:] + white[..., :-1]) / math.sqrt(2))[:, None]
    haar, details = wavelets.kernels(2).double(), x
    for _ in range(level + 1):
        x, details = wavelets.analyse(x, haar)
    covariance = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    for kind, found in ((0, x), (0, details[:, 1:2]), (1, details[:, :1]), (1, details[:, 2:])):
        expected = float(wavelets.variance_along(covariance, level, kind))
        assert float(found.square().mean()) == pytest.approx(expected, rel=6 / math.sqrt(found.numel()))


@pytest.mark.parametrize(("dimensions", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_the_posterior_starts_as_bayes_rule_has_it(dimensions, channels):
    """So at the start the bound is exact, wavelet by wavelet: KL = E[log likelihood] - log evidence."""
    net = network(dimensions=dimensions, channels=channels, levels=2)
    ladder = ladder_of(net)
    for level in ladder.levels:
        level.scale.fill_(2.0)  # type: ignore[union-attr,operator]
        level.noise.fill_(0.25)  # type: ignore[union-attr,operator]
    x = torch.randn(1, channels, *SPACE[dimensions])
    with torch.no_grad():
        code, kls = ladder.top_down(ladder.bottom_up(x), silence)
    coarser, image = x, torch.zeros(())
    mean, taken = [], []
    for _ in ladder.levels:
        coarser, details = wavelets.analyse(coarser, ladder.haar)
        taken.append(details)
    image = coarser / 1.25  # prior 0 +- 1: the mean is scale * (1 / 1.25) * noisy / scale
    for details in reversed(taken):
        prior = 0 if details is taken[-1] else ladder._interpolated(image) / 2
        z = prior + (details / 2 - prior) / 1.25
        mean.append((z - prior).square().sum())
        image = wavelets.combine(image, z * 2, ladder.haar)
    torch.testing.assert_close(code[:, :channels], image)
    variance = 0.25 / 1.25
    expected = 0.5 * float(mean[0] + (coarser / 2 / 1.25).square().sum())  # of the top
    count = coarser.numel() * 2**dimensions
    assert float(kls[-1]) == pytest.approx(expected + 0.5 * count * (variance - 1 - math.log(variance)), rel=1e-4)


def test_it_denoises_before_the_first_update():
    clean, noisy = noisy_discs()
    run = training.start(settings(start="wavelets", levels=3), Frames.split([noisy], 0.1, 0, leave_out=False))
    assert isinstance(run.network, COSDD)
    statistics = run.frames.statistics
    with torch.inference_mode():
        features, window = run.network.eval().encode(torch.from_numpy(statistics.normalise(noisy)))
        drawn = torch.stack([run.network.sample(features, window) for _ in range(8)]).mean(0)
    denoised = statistics.restore(drawn.numpy())
    assert np.square(denoised - clean).mean() < 0.35 * np.square(noisy - clean).mean()


def test_estimates_come_nearer_to_the_truth_by_refinement():
    clean, noisy = noisy_discs()
    run = training.start(settings(start="wavelets", levels=3), Frames.split([noisy], 0.1, 0, leave_out=False))
    model = Denoiser(training.finish(run))
    errors = [
        np.square(model.denoise(noisy[:4, 0], axes="TYX", samples=8, **how).mean - clean[:4, 0]).mean()
        for how in ({}, {"plain": True})
    ]
    assert errors[0] < 0.8 * errors[1]


def test_noise_alone_leaves_little_in_the_latents():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 1, 32, 32)).astype(np.float32)
    run = training.start(settings(start="wavelets", levels=3), Frames.split([noise], 0.1, 0, leave_out=False))
    with torch.inference_mode():
        terms = run.network.eval()(torch.from_numpy(noise))
    assert float(terms["kl"]) < 0.05  # nats per pixel
    assert float(terms["nll"]) == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.05)


def test_a_single_small_image_is_enough_to_start_from():
    """Smaller than a pixel of the top level: the images have one mean there, and no variance of it."""
    noisy = np.random.default_rng(0).normal(size=(1, 1, 24, 24)).astype(np.float32)
    run = training.start(settings(start="wavelets", levels=5), Frames.split([noisy], 0.1, 0, leave_out=False))
    x = torch.from_numpy(run.frames.batch(0, 0, 2, run.edges, ""))
    assert torch.isfinite(run.network.eval()(x)["loss"])


@pytest.mark.parametrize("components", [1, 2, 3])
def test_the_noise_starts_as_measured_and_around_the_image(components):
    net = network(channels=2, components=components)
    sigma = torch.tensor([0.5, 0.1])
    net.noise.start_at(sigma)
    code = torch.randn(1, net.ladder.code_channels, 8, 8)
    logits, means, sigmas = net.noise(torch.randn(1, 2, 8, 8), code)
    torch.testing.assert_close((logits.softmax(2) * means).sum(2), code[:, :2])
    torch.testing.assert_close(sigmas, sigma.reshape(1, 2, 1, 1, 1).expand_as(sigmas))


def test_bfloat16_does_not_round_the_image():
    """Grey values pass through all levels in float32, whatever the networks compute in."""
    net = network(levels=3).eval()
    for level in ladder_of(net).levels:
        level.noise.fill_(1e-6)  # type: ignore[union-attr,operator]
    x = torch.randn(1, 1, 32, 32) + 3
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features, window = net.encode(x)
        torch.testing.assert_close(net.sample(features, window, silence), x, rtol=0, atol=1e-4)
        down = net.ladder.generate((1, 32, 32), x.device, silence)
    assert down.dtype == torch.float32


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_parameter_can_learn(dimensions):
    net = shaken(network(dimensions=dimensions))
    net(torch.randn(2, 1, *SPACE[dimensions]))["loss"].backward()
    learning = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    assert [name for name, p in learning if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_halo_is_what_the_fine_levels_see_and_no_more(cut):
    """By the gradient of a tile's clean image with respect to the noisy one, and to what the coarse levels say."""
    torch.manual_seed(0)
    net = spoken(network(dimensions=1, levels=3, direct=False))
    ladder = ladder_of(net)
    for parameter in net.signal.hidden.parameters():
        parameter.data.abs_()  # no ReLU is silent
    period, halo = ladder.sight.period(cut), ladder.sight.halo(cut, net.signal.reach)
    around = (halo // ladder.stride + 2) * ladder.stride
    x = torch.randn(1, 1, 2 * around + ladder.stride, requires_grad=True)
    down, touched = None, [x]
    if cut < 3:
        down = torch.randn(1, ladder.counts[cut - 1] + 2, x.shape[-1] // period, requires_grad=True)
        touched.append(down)
    code, _ = ladder.top_down(ladder.climb(x, stop=cut)[0], silence, with_kl=False, down=down)
    net.signal.hidden(code.abs())[..., around : around + period].sum().backward()
    first, last = around, around
    for part in touched:
        assert part.grad is not None
        at = part.grad[0].abs().sum(0).nonzero().flatten() * (x.shape[-1] // part.shape[-1])
        first, last = min(first, int(at.min())), max(last, int(at.max()) + x.shape[-1] // part.shape[-1] - 1)
    assert max(around - first, last - (around + period - 1)) == halo


@pytest.mark.parametrize("tile", [16, 48])
def test_tiles_change_nothing(tile):
    torch.manual_seed(0)
    trained = checkpoint(start="wavelets", levels=3)
    noisy = np.random.default_rng(0).normal(size=(96, 128)).astype(np.float32)
    parts, whole = (
        Denoiser(trained).denoise(noisy, axes="YX", samples=8, save_samples=8, tile=edge) for edge in (tile, 256)
    )
    for one, other in ((parts.mean, whole.mean), (parts.std, whole.std), (parts.samples, whole.samples)):
        assert one is not None
        np.testing.assert_allclose(one, other, atol=1e-5 * np.ptp(whole.mean))
    directly, at_once = (Denoiser(trained).denoise(noisy, axes="YX", direct=True, tile=edge) for edge in (tile, 256))
    np.testing.assert_allclose(directly.mean, at_once.mean, atol=1e-4)


@pytest.mark.parametrize("shape", [(25, 38), (2, 3)])
def test_the_mean_is_that_of_denoisings_of_the_image_moved_on_the_grid(shape):
    """Moved by so many pixels more in front of it, reflected; each pair of samples has a position."""
    trained = checkpoint(start="wavelets", levels=2, refine=False)
    noisy, net = np.random.default_rng(0).normal(size=shape).astype(np.float32), trained.network
    assert isinstance(net, COSDD)
    result = Denoiser(trained).denoise(noisy, samples=8, save_samples=8, seed=3)
    margins = [min(4, size - 1) for size in shape]
    sizes = [-(-(size + edge + max(edge, 3)) // 4) * 4 for size, edge in zip(shape, margins, strict=True)]
    samples = []
    for block, (_, *moved) in enumerate(estimates.POSITIONS):
        front = [edge + by for edge, by in zip(margins, moved, strict=True)]
        pads = [(a, size - b - a) for a, b, size in zip(front, shape, sizes, strict=True)]
        x = torch.from_numpy(np.pad(noisy, pads, mode="reflect"))[None, None]
        window = (slice(None), slice(None), *(slice(a, a + b) for a, b in zip(front, shape, strict=True)))
        pair = range(2 * block, 2 * block + 2)
        draw = latents.coupled(3, 0, range(8), 2, (0, 0), net.ladder.sight.strides)(pair)
        with torch.no_grad():
            samples += net.sample([e.expand(2, *e.shape[1:]) for e in net.ladder.bottom_up(x)], window, draw)[:, 0]
    assert result.samples is not None
    np.testing.assert_allclose(result.samples, torch.stack(samples), atol=1e-3)
    np.testing.assert_allclose(result.mean, torch.stack(samples).mean(0), atol=1e-3)


def test_only_what_starts_as_wavelets_is_averaged_over_the_grid_and_only_unless_plain(monkeypatch):
    noisy = np.random.default_rng(0).normal(size=(33, 40)).astype(np.float32)
    found = []
    for positions in (estimates.POSITIONS, (estimates.HOME,)):
        monkeypatch.setattr(estimates, "POSITIONS", positions)
        torch.manual_seed(0)
        wavelets, empty = Denoiser(checkpoint(start="wavelets")), Denoiser(checkpoint())
        runs = [wavelets.denoise(noisy, samples=8, plain=True), empty.denoise(noisy), wavelets.denoise(noisy)]
        found.append([(run.mean, run.std) for run in runs])
    for index in range(2):
        np.testing.assert_array_equal(found[0][index], found[1][index])
    assert np.abs(found[0][2][0] - found[1][2][0]).max() > 1e-3


def test_the_direct_denoiser_starts_from_the_noisy_image():
    """In a few minutes it could not learn to draw one from nothing."""
    x = torch.randn(1, 1, 20, 24)
    torch.testing.assert_close(network(levels=3).denoise_directly(x), x)


def test_the_noise_decoder_learns_alone_at_first():
    """Else what it cannot explain yet of the noise would be explained by the latents, for good."""
    x = torch.randn(2, 1, 16, 16)
    for start, progress, silent in (("wavelets", 0.1, {"ladder"}), ("wavelets", 0.3, set()), ("empty", 0.1, set())):
        net = shaken(COSDD(settings(start=start, latents_from=0.2, direct=False).model))
        net.zero_grad(set_to_none=True)
        net(x, progress)["loss"].backward()
        parts = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad and p.grad is None}
        assert parts == silent


def test_images_from_the_prior_have_any_size():
    net = network(levels=3, channels=2)
    code = net.ladder.generate((2, 24, 40), torch.device("cpu"))
    assert code.shape == (2, net.ladder.code_channels, 24, 40)
    assert net.signal(code).shape == (2, 2, 24, 40)


def test_cached_sampling_is_naive_sampling():
    torch.manual_seed(0)
    net = spoken(network(channels=2)).double()
    code = torch.randn(2, net.ladder.code_channels, 4, 9, dtype=torch.float64)
    uniform, normal = torch.rand(3, 2, 2, 4, 9).double(), torch.randn(3, 2, 2, 4, 9).double()
    drawn = net.noise.sample(code, uniform, normal)
    x = torch.zeros_like(drawn)
    for column in range(9):
        for sample in range(3):
            logits, means, sigmas = (part[..., column].movedim(2, -2) for part in net.noise(x[sample], code))
            place = (sample, ..., column)
            x[place] = draw(logits, means, sigmas, uniform[place], normal[place])
    torch.testing.assert_close(drawn, x)
