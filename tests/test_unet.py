"""The U-Net: any size, near and far, exact at both ends."""

import pytest
import torch
from torch import nn

from cosdd.model.unet import UNet

SPACE = {1: (37,), 2: (16, 21), 3: (9, 8, 12)}


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_any_size_is_kept(dimensions, levels, padding):
    net = UNet(dimensions, 2, 3, [4] * levels, padding=padding)
    assert net.stride == 2 ** (levels - 1)
    assert net(torch.randn(2, 2, *SPACE[dimensions])).shape == (2, 3, *SPACE[dimensions])


def test_it_looks_far_and_near():
    """Every level contributes: an impulse reaches further than one block alone could carry it."""
    net = UNet(1, 1, 1, [4, 8, 8, 8])
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.05, 0.1)
    x = torch.zeros(1, 1, 128, requires_grad=True)
    net(x)[0, 0, 64].backward()
    assert x.grad is not None
    reached = x.grad[0, 0].nonzero().flatten()
    assert reached.min() <= 64 - 24
    assert reached.max() >= 64 + 24
    assert {62, 63, 64, 65, 66} <= set(reached.tolist())


def test_fine_detail_passes_by_the_coarse_levels():
    net = UNet(2, 1, 1, [4, 8, 8])
    for layer in net.rise:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(1, 1, 32, 32)
    bright = x.clone()
    bright[..., 16, 16] += 100
    reached = (net(bright) - net(x))[0, 0].abs().nonzero()
    # At the start the branches of residual blocks are silent: the stem alone carries it, one pixel to each side.
    assert 1 < len(reached) <= 9
    assert (reached - 16).abs().max() <= 1


def test_grey_values_are_not_rounded_inside_mixed_precision():
    net = UNet(2, 1, 1, [4, 8])
    seen = []
    net.stem.layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = 1000 + torch.randn(1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.float32
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], x, rtol=0, atol=0)


@pytest.mark.parametrize("features", [[4], [4, 4], [4, 4, 4], [4, 4, 4, 4]])
@pytest.mark.parametrize("blocks", [1, 2])
def test_reach_is_how_far_a_pixel_matters(features, blocks):
    """What is not a number spreads to everything it touches, even where a weight is zero."""
    net = UNet(1, 1, 1, features, blocks)
    size, furthest = 40 * net.stride + 8 * net.reach, 0
    middle = size // 2
    for pixel in range(middle, middle + net.stride):
        x = torch.zeros(1, 1, size)
        x[..., pixel] = float("nan")
        touched = net(x)[0, 0].isnan().nonzero().flatten()
        assert touched.min() > 0
        assert touched.max() < size - 1
        furthest = max(furthest, int((touched - pixel).abs().max()))
    assert net.reach - net.stride < furthest <= net.reach
