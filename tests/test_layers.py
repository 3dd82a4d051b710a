"""The building blocks: their order, their borders, and that the cheap form of upsampling is the exact one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cosdd.model import layers

SPACE = {1: (9,), 2: (8, 6), 3: (4, 6, 5)}


def image(dimensions, channels=3, batch=2):
    return torch.randn(batch, channels, *SPACE[dimensions])


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_convolutions_keep_the_size_or_halve_it(dimensions, padding):
    h = image(dimensions)
    for kernel in (1, 3, 5):
        kept = layers.convolution(dimensions, 3, 7, kernel, padding=padding)(h)
        assert kept.shape == (2, 7, *SPACE[dimensions])
    halved = layers.convolution(dimensions, 3, 7, 3, stride=2, padding=padding)(h)
    assert halved.shape == (2, 7, *((size + 1) // 2 for size in SPACE[dimensions]))


def test_reflecting_convolutions_see_no_edge_in_a_flat_image():
    flat = torch.full((1, 1, 6, 6), 3.0)
    reflecting = layers.convolution(2, 1, 1, 5, padding="reflect")(flat)
    assert torch.allclose(reflecting, reflecting[..., 3:4, 3:4].expand_as(reflecting), atol=1e-6)
    zeros = layers.convolution(2, 1, 1, 5, padding="zeros")(flat)
    assert zeros.std() > 1e-3


@pytest.mark.parametrize("space", [(1, 1), (1, 4), (2, 1), (2, 2)])
def test_reflecting_convolutions_work_on_the_smallest_features(space):
    """14 levels halve a 128-pixel image down to a single pixel."""
    for kernel in (3, 5):
        assert layers.convolution(2, 3, 4, kernel, padding="reflect")(torch.randn(1, 3, *space)).shape[2:] == space


# ------------------------------------------------------------------------------------------------ blocks


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_volume_of_one_plane_is_convolved_right(dtype, kernel):
    """In bfloat16 with few channels, a library reads foreign memory there: other results each time, or none."""
    torch.manual_seed(0)
    convolution = layers.convolution(3, 13, 8, kernel)
    x = torch.randn(1, 13, 1, 32, 32)
    by_hand = nn.functional.conv3d(x, convolution.weight, convolution.bias, padding=kernel // 2).detach()
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    found = convolution.to(dtype)(x.to(dtype)).detach().float()
    torch.testing.assert_close(found, by_hand, rtol=0, atol=tolerance * float(by_hand.abs().max()))


def test_supplement_block_is_convolution_norm_mish_twice_then_a_gate():
    block = layers.SupplementBlock(2, 4)
    for part, kind in zip(block.residual, [nn.Conv2d, nn.BatchNorm2d, nn.Mish] * 2, strict=True):
        assert isinstance(part, kind)
    assert block.residual[0].kernel_size == (3, 3)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_supplement_block_by_hand(dimensions):
    """tanh(a) * sigmoid(b), with (a, b) from a 1x1 convolution of the residual sum."""
    block = layers.SupplementBlock(dimensions, 3).eval()
    h = image(dimensions)
    first, norm1, _, second, norm2, _ = block.residual
    expected = h + F.mish(norm2(second(F.mish(norm1(first(h))))))
    a, b = block.gate.mix(expected).chunk(2, dim=1)
    torch.testing.assert_close(block(h), torch.tanh(a) * torch.sigmoid(b))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_plain_block_starts_as_the_identity_and_can_leave_it(dimensions):
    block, h = layers.PlainBlock(dimensions, 3), image(dimensions)
    torch.testing.assert_close(block(h), h)
    block(h).square().sum().backward()
    last = block.residual[-1].weight.grad
    assert last is not None
    assert last.abs().max() > 0


def test_plain_block_treats_each_image_by_itself():
    """No normalisation over the batch: training and use are the same function."""
    block = layers.PlainBlock(2, 3)
    nn.init.normal_(block.residual[-1].weight)
    h = image(2)
    torch.testing.assert_close(block.train()(h)[:1], block.eval()(h[:1]))


def test_the_stem_keeps_small_differences_on_a_large_offset():
    """bfloat16 has 8 bits: 1000 and 1001 are the same number to it."""
    difference = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    difference.weight.data = torch.tensor([[[-1.0, 1.0, 0.0]]])
    ramp = torch.arange(1000.0, 1008.0).reshape(1, 1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        out = layers.Stem(difference)(ramp)
    assert out.dtype == torch.bfloat16
    assert (out[..., 1:] == 1).all()


# -------------------------------------------------------------------------------------------- resampling


def test_which_levels_halve_the_image():
    assert layers.halved_sizes(6, "alternating") == [False, True] * 3
    assert layers.halved_sizes(14, "alternating") == [False, True] * 7
    assert layers.halved_sizes(3, "every") == [True] * 3
    assert layers.halved_sizes(3, "after_first") == [False, True, True]


def test_features_double_where_the_image_halves_up_to_the_limit():
    halved = [False, True, False, True, True]
    assert layers.feature_counts(8, 16, halved) == [8, 16, 16, 16, 16]
    assert layers.feature_counts(8, 100, halved) == [8, 16, 16, 32, 64]
    assert layers.feature_counts(8, 4, halved) == [8] * 5
    assert layers.feature_counts(128, 128, layers.halved_sizes(14, "alternating")) == [128] * 14


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_upsampling_after_a_pointwise_convolution_equals_before(dimensions):
    pointwise = layers.convolution(dimensions, 3, 5, 1).double()
    h = image(dimensions).double()
    after, before = layers.double(pointwise(h)), pointwise(layers.double(h))
    assert after.shape == (2, 5, *(2 * size for size in SPACE[dimensions]))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


# ----------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (0, 7), (0, 31), (3, 3), (16, 16)])
def test_reflection_goes_on_where_the_image_is_small(size, before, after):
    """As numpy's: back and forth for ever, and a single pixel repeated."""
    x = torch.randn(2, 3, size)
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), (before, after)], mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(layers.reflect(x, [before, after]).numpy(), expected)


def test_every_axis_is_padded_by_its_own_amount():
    x = torch.randn(1, 2, 3, 1, 6)
    padded = layers.reflect(x, [1, 2, 0, 3, 4, 0])
    wanted = np.pad(x.numpy(), [(0, 0), (0, 0), (4, 0), (0, 0), (1, 2)], mode="reflect").repeat(4, axis=3)
    np.testing.assert_array_equal(padded.numpy(), wanted)


@pytest.mark.parametrize("margin", [0, 3, 8])
@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("space", [(1,), (7,), (16,), (1, 1), (5, 32), (33, 2), (1, 3, 9)])
def test_the_window_cuts_the_image_out_exactly(space, multiple, margin):
    x = torch.randn(1, 2, *space)
    padded, window = layers.pad_to_multiple(x, multiple, margin)
    assert torch.equal(padded[window], x)
    for axis, size in enumerate(space):
        assert padded.shape[2 + axis] % multiple == 0
        room = min(margin, size - 1)
        start = window[2 + axis].start
        assert start >= room
        assert padded.shape[2 + axis] - start - size >= room
        assert padded.shape[2 + axis] < size + 2 * room + multiple
    around = [(0, 0), (0, 0)]
    around += [(cut.start, len_ - cut.stop) for cut, len_ in zip(window[2:], padded.shape[2:], strict=True)]
    np.testing.assert_array_equal(padded.numpy(), np.pad(x.numpy(), around, mode="reflect"))


def test_an_image_that_fits_is_left_alone():
    x = torch.randn(1, 1, 16, 8)
    padded, _ = layers.pad_to_multiple(x, 8)
    assert torch.equal(padded, x)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_missing_pixels_become_the_mean_of_their_neighbours(dimensions):
    x = torch.arange(5.0**dimensions).reshape(1, 1, *[5] * dimensions).repeat(2, 1, *[1] * dimensions)
    filled, known = layers.fill_missing(x)
    assert filled is x
    assert known.all()
    middle, corner = (1, 0, *[2] * dimensions), (0, 0, *[0] * dimensions)
    expected = x.clone()
    expected[corner] = x[(0, 0, *[slice(0, 2)] * dimensions)].flatten()[1:].mean()
    x[middle] = x[corner] = torch.nan
    filled, known = layers.fill_missing(x)
    # In the middle of a ramp the mean of the neighbours is the value itself.
    torch.testing.assert_close(filled[middle], expected[middle])
    assert filled.isfinite().all()
    assert known.logical_not().sum() == 2
    everything = layers.fill_missing(torch.full_like(x, torch.nan))[0]
    assert (everything == 0).all()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_what_lies_outside_of_an_image_is_no_copy_of_its_edge(dimensions):
    x = torch.randn(1, 1, *[8] * dimensions)
    outside = torch.ones_like(x, dtype=torch.bool)
    outside[(..., *[slice(5)] * dimensions)] = False
    filled, known = layers.fill_missing(torch.where(outside, torch.nan, x))
    assert torch.equal(known, ~outside)
    assert torch.equal(filled, torch.where(outside, 0, x))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_gpu_fills_missing_pixels_with_the_same_numbers(dimensions):
    """There no count of them is asked for: a mean is formed around every pixel."""
    x = torch.randn(2, 3, *[7] * dimensions)
    x[torch.rand_like(x) < 0.3] = torch.nan
    x[0, 0, ..., :3] = torch.nan  # whole neighbourhoods, at the border too
    filled, known = layers.fill_missing(x)
    assert torch.equal(layers._filled_everywhere(x, known), filled)
