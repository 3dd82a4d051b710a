"""Tiles cover an image once, begin in step with the networks, and see just as much as they need."""

import itertools

import numpy as np
import pytest
import torch
from tiny import network, shaken

from cosdd import tiles


@pytest.mark.parametrize("edge", [None, 1, 16, 48, 500])
@pytest.mark.parametrize("space", [(96,), (64, 128), (16, 32, 48)])
def test_every_pixel_belongs_to_one_tile(space, edge):
    given = np.zeros(space, int)
    for tile in tiles.plan(space, 21, 16, pixels=8000, edge=edge):
        given[tile.inner] += 1
        for inner, seen, within, size in zip(tile.inner, tile.seen, tile.within, space, strict=True):
            assert seen.start % 16 == 0
            assert seen.start == max(0, inner.start - 32)
            assert seen.stop == min(size, inner.stop + 32)
            assert within.stop - within.start == inner.stop - inner.start
        if edge is None and len(space) == 2:
            assert tile.pixels <= 8000
    assert (given == 1).all()


def test_an_image_that_fits_is_one_tile():
    (tile,) = tiles.plan((64, 96), 40, 16, pixels=64 * 96)
    assert tile.inner == tile.seen == (slice(0, 64), slice(0, 96))
    assert len(tiles.plan((64, 96), 16, 16, pixels=64 * 96 - 1)) > 1


ARCHITECTURES = [*itertools.product((1, 2, 3), ("alternating", "every", "after_first"), ("plain", "supplement"))]


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
@pytest.mark.parametrize(("levels", "downsampling", "block"), ARCHITECTURES)
def test_the_halo_is_what_the_network_sees_and_no_more(levels, downsampling, block, decoder_input):
    """By the gradient of a tile's clean image with respect to the noisy one."""
    torch.manual_seed(0)
    net = network(levels=levels, downsampling=downsampling, block=block, decoder_input=decoder_input, direct=False)
    net = shaken(net).eval()
    for parameter in net.signal.hidden.parameters():
        parameter.data.abs_()  # no ReLU is silent
    stride = net.stride
    around = -(-net.halo // stride) * stride + stride
    x = torch.randn(1, 1, stride, 2 * around + stride, requires_grad=True)
    code, _ = net.ladder.top_down(net.ladder.bottom_up(x), lambda level, shape, device: torch.zeros(shape))
    net.signal.hidden(code.abs())[..., around : around + stride].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert max(around - int(seen.min()), int(seen.max()) - (around + stride - 1)) == net.halo
