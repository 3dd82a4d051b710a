"""The cut pyramid: tiles see just as much as they need, and all numbers are those of the whole image."""

import contextlib
import itertools
import math

import pytest
import torch
from tiny import checkpoint, network, shaken

from cosdd import config, estimates, pyramid
from cosdd.denoise import Denoiser, Settings
from cosdd.estimates import HOME, Estimate
from cosdd.model import COSDD
from cosdd.model.unet import UNet
from cosdd.sampling import Memory, Sampling


def silent(level, shape, device):
    """No latent noise."""
    return torch.zeros(shape)


# --------------------------------------------------------------------------------------------- how far

ARCHITECTURES = list(itertools.product(("alternating", "every", "after_first"), ("plain", "supplement")))


def extent(touched, stride=1):
    """First and last pixel of the image under positions that were touched."""
    at = touched.abs().flatten(0, 1).sum(0).nonzero().flatten()
    return int(at.min()) * stride, int(at.max()) * stride + stride - 1


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
@pytest.mark.parametrize(("downsampling", "block"), ARCHITECTURES)
def test_the_halo_is_what_the_fine_levels_see_and_no_more(downsampling, block, decoder_input):
    """By the gradient of a tile's clean image with respect to the noisy one, and to what the coarse levels say."""
    torch.manual_seed(0)
    net = network(
        dimensions=1, levels=4, downsampling=downsampling, block=block, decoder_input=decoder_input, direct=False
    )
    ladder = shaken(net).double().eval().ladder
    for parameter in net.signal.hidden.parameters():
        parameter.data.abs_()  # no ReLU is silent
    for cut in range(1, 5):
        period, halo = ladder.sight.period(cut), ladder.sight.halo(cut, net.signal.reach)
        around = (halo // ladder.stride + 2) * ladder.stride
        x = torch.randn(1, 1, 2 * around + ladder.stride, dtype=torch.float64, requires_grad=True)
        down, touched = None, [x]
        if cut < 4:
            size = x.shape[-1] // period
            down = torch.randn(1, ladder.counts[cut - 1], size, dtype=torch.float64, requires_grad=True)
            touched.append(down)
        code, _ = ladder.top_down(ladder.climb(x, stop=cut)[0], silent, with_kl=False, down=down)
        net.signal.hidden(code.abs())[..., around : around + period].sum().backward()
        found = [extent(part.grad, x.shape[-1] // part.shape[-1]) for part in touched]
        first, last = min(pair[0] for pair in found), max(pair[1] for pair in found)
        assert max(around - first, last - (around + period - 1)) == halo, cut


@pytest.mark.parametrize(("downsampling", "block"), ARCHITECTURES)
def test_the_halo_on_the_way_up_is_what_enters_a_level_and_no_more(downsampling, block):
    torch.manual_seed(0)
    net = network(dimensions=1, levels=4, downsampling=downsampling, block=block)
    for part in (shaken(net).double().ladder, net.direct):
        for level in range(1, len(part.counts)):
            halo, period = part.sight.entering_halo(level), part.sight.period(level)
            around = (halo // part.stride + 2) * part.stride
            x = torch.randn(1, 1, 2 * around + part.stride, dtype=torch.float64, requires_grad=True)
            part.eval().climb(x, stop=level)[1][..., around // period].sum().backward()
            first, last = extent(x.grad)
            assert max(around - first, last - (around + period - 1)) == halo, level


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_halo_of_a_unet_is_what_its_fine_levels_see_and_no_more(blocks):
    """What is not a number spreads to everything it touches: a result that is one has not seen it."""
    net, levels = UNet(1, 1, 1, [4, 6, 4, 4], blocks), 4
    for cut in range(1, levels + 1):
        halo, period = net.sight.halo(cut), net.sight.period(cut)
        around = (halo // net.stride + 2) * net.stride

        def spoiled(beyond, cut=cut, period=period, around=around):
            """Is the tile spoiled by what lies so far beyond it?"""
            x = torch.zeros(1, 1, 2 * around + period)
            x[..., : around - beyond] = x[..., around + period + beyond :] = math.nan
            down = None
            if cut < levels:
                down = torch.zeros(1, net.counts[cut - 1], x.shape[-1] // period)
                reach = beyond // period
                down[..., : around // period - reach] = down[..., around // period + 1 + reach :] = math.nan
            return bool(net.top_down(net.climb(x, stop=cut)[0], down=down)[..., around : around + period].isnan().any())

        assert not spoiled(-(-halo // period) * period)
        assert spoiled(halo - 1)


def test_the_large_network_of_the_paper_can_be_cut():
    """Its levels together see 3451 pixels far; those below scale 8 a few dozen."""
    with torch.device("meta"):
        net = COSDD(config.build("large").model)
    sight, tail = net.ladder.sight, net.signal.reach
    assert sight.halo(14, tail) == 3451
    halos = {sight.strides[level]: sight.halo(level, tail) for level in range(1, 14) if level % 2}
    assert halos[2] < 50
    assert halos[8] < 200


# ------------------------------------------------------------------------------------- equal to the whole

NETWORKS = {
    "tiny": {"levels": 5},
    "small": {"levels": 6, "downsampling": "alternating", "block": "supplement", "activation": "mish",
              "padding": "reflect", "decoder_input": "latent", "signal_layers": 4},
    "large": {"levels": 14, "downsampling": "alternating", "block": "supplement", "activation": "mish",
              "padding": "reflect", "decoder_input": "latent", "signal_layers": 4},
    "authors": {"levels": 4, "downsampling": "every", "block": "supplement", "activation": "mish"},
}  # fmt: skip


def denoised(model, image, cut, samples):
    """Mean, standard deviation and single samples of a padded image, in its arithmetic."""
    everywhere = tuple(slice(0, size) for size in image.shape)
    sampling = Sampling(model.checkpoint.network, image, everywhere, (HOME,), 3, Settings(), "float32", Memory())
    features = []
    with torch.inference_mode():
        for _, found in pyramid.coarse(cut, image, contextlib.nullcontext):
            features = found
        estimate = Estimate(image, samples)
        kept = [torch.zeros_like(image) for _ in range(samples)]
        if isinstance(cut.network, UNet):
            list(sampling.directly(cut, features, estimate.mean))
            return (estimate.mean,)
        list(sampling.sampled(cut, {HOME: features}, estimate, kept))
        return estimate.mean, estimate.std(), *kept


def worst(model, shape, cuts, edge, dtype, samples=2, direct=False):
    """The largest difference between tiled and whole, in parts of the range."""
    network = model.checkpoint.network.to(dtype).eval()
    image, window = network.padded(torch.randn(1, 1, *shape, dtype=dtype))
    part, tail = (network.direct, 0) if direct else (network.ladder, network.signal.reach)
    space, levels = image.shape[2:], len(part.counts)
    cut = pyramid.plan(part, window[2:], space, 10**9, tail=tail, level=levels)
    assert len(cut.tiles) == 1
    whole = denoised(model, image, cut, samples)
    differences = []
    for level in cuts(levels):
        cut = pyramid.plan(part, window[2:], space, 10**9, edge=edge, tail=tail, level=level)
        assert len(cut.tiles) > 1
        tiled = denoised(model, image, cut, samples)
        differences += [
            float((one - other)[window].abs().max() / (other.max() - other.min()))
            for one, other in zip(tiled, whole, strict=True)
        ]
    return max(differences)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_cut_gives_the_numbers_of_the_whole_in_float64(name):
    torch.manual_seed(0)
    model = Denoiser(checkpoint(**NETWORKS[name], direct=True))
    cuts = (lambda levels: range(1, levels, 8)) if name == "large" else (lambda levels: range(1, levels))
    edge = 64 if name == "large" else 48
    for direct in (False, True):
        assert worst(model, (57, 90), cuts, edge, torch.float64, direct=direct) < 1e-10


@pytest.mark.parametrize("shape", [(57, 83), (7, 160)])
@pytest.mark.parametrize(("name", "edge"), [("tiny", 24), ("tiny", 40), ("tiny", 72), ("large", 64)])
def test_tiles_of_any_size_give_the_numbers_of_the_whole_in_float32(name, shape, edge):
    torch.manual_seed(0)
    model = Denoiser(checkpoint(**NETWORKS[name], direct=True))
    assert worst(model, shape, lambda levels: (1, 3), edge, torch.float32) < 1e-5
    assert worst(model, shape, lambda levels: (1,), edge, torch.float32, direct=True) < 1e-5


def test_every_cut_of_a_volume_gives_the_numbers_of_the_whole():
    torch.manual_seed(0)
    model = Denoiser(checkpoint(dimensions=3, levels=3, direct=True))
    for direct in (False, True):
        assert worst(model, (5, 18, 30), lambda levels: range(1, levels), 16, torch.float64, direct=direct) < 1e-10


def test_a_network_is_cut_where_memory_allows_and_the_work_is_least():
    net, space, window = network(levels=4, features=4, max_features=8), (512, 512), (slice(4, 508),) * 2

    def cut(pixels, **more):
        return pyramid.plan(net.ladder, window, space, pixels, rounds=100, **more)

    assert len(cut(10**6).tiles) == 1
    for pixels, level in ((220_000, 1), (80_000, 2)):
        found = cut(pixels)
        assert found.level == level  # what is finer has more coarse pixels than that
        # What comes down to a group of samples lies beside each tile.
        held = 4 * estimates.GROUP * net.ladder.counts[level - 1] * math.prod(space) // found.stride**2
        tile = net.bytes_per_pixel * max(tile.pixels for tile in found.tiles)
        assert held + tile <= net.bytes_per_pixel * pixels
    # Where nothing fits, that which needs least.
    assert max(tile.pixels for tile in cut(10).tiles) < 4 * net.ladder.sight.halo(4) ** 2 * 3
    assert max(tile.pixels for tile in cut(10**6, near=100_000).tiles) <= 100_000
