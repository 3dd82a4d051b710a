"""Latent noise: standard normal, independent, and the same wherever a tile begins."""

import numpy as np
import pytest
import torch
from scipy import stats

from cosdd import latents

CPU = torch.device("cpu")


def draw(seed=0, frame=0, samples=(0,), origin=(0, 0), strides=(1, 2), level=0, shape=(4, 60, 50)):
    return latents.addressed(seed, frame, samples, origin, strides)(level, torch.Size([len(samples), *shape]), CPU)


def test_it_is_standard_normal():
    values = draw(shape=(6, 400, 300)).double().flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert stats.kurtosis(values) < 0.02
    assert 4 < np.abs(values).max() < 6.5


def test_neighbours_channels_samples_levels_frames_and_seeds_are_independent():
    base = draw()
    others = [draw(seed=1), draw(frame=1), draw(samples=(1,)), draw(level=1)]
    others += [base.roll(1, dims) for dims in (1, 2, 3)] + [base.roll((1, 1), (2, 3))]
    flat = torch.stack([values.flatten() for values in (base, *others)])
    correlations = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlations.abs().max() < 5 / flat.shape[1] ** 0.5
    squares = torch.corrcoef(flat.square()) - torch.eye(len(flat))
    assert squares.abs().max() < 5 / flat.shape[1] ** 0.5


def test_a_part_of_an_image_has_the_noise_of_the_whole():
    whole = draw(shape=(5, 64, 96), samples=(3, 4))
    part = draw(shape=(5, 20, 30), samples=(4,), origin=(12, 40))
    torch.testing.assert_close(part[0], whole[1, :, 12:32, 40:70], rtol=0, atol=0)
    coarse = draw(shape=(5, 32, 48), level=1)
    torch.testing.assert_close(
        draw(shape=(5, 4, 6), level=1, origin=(12, 40)), coarse[..., 6:10, 20:26], rtol=0, atol=0
    )
    deep = draw(shape=(2, 8, 9, 10), origin=(0, 0, 0))
    torch.testing.assert_close(draw(shape=(2, 3, 4, 5), origin=(5, 4, 3)), deep[..., 5:, 4:8, 3:8], rtol=0, atol=0)


def test_no_address_is_used_twice():
    """The far corners of a large volume, and its first pixels."""
    corners = [
        latents.addresses((4, 5, 6), start, CPU)
        for start in ((0, 0, 0), (0, 0, 999_990), (0, 999_990, 0), (16_000, 0, 0), (16_000, 999_990, 999_990))
    ]
    values = torch.cat([corner.flatten() for corner in corners])
    assert len(values.unique()) == len(values)
    assert values.max() < 2 ** sum(latents.BITS.values())


def blocked(samples=range(8), group=range(8), block=8, origin=(0, 0), level=0, shape=(4, 60, 50)):
    draw = latents.coupled(0, 0, group, block, origin, (1, 2))(samples)
    return draw(level, torch.Size([len(samples), *shape]), CPU)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_block_adds_up_to_zero_and_each_of_its_samples_is_standard_normal(count):
    block = blocked(range(count), range(count), shape=(6, 200, 200)).double()
    assert block.sum(0).abs().max() < 1e-5
    assert stats.kstest(block[1].flatten().numpy(), "norm").pvalue > 0.01
    assert block[1].var().item() == pytest.approx(1, abs=0.01)
    expected = (torch.eye(count) * count - 1).double() / (count - 1)
    torch.testing.assert_close(torch.corrcoef(block.flatten(1)), expected, rtol=0, atol=0.01)


def test_pixels_channels_levels_and_blocks_are_independent():
    both = blocked(block=4)
    base = both[:4]
    others = [both[4:], blocked(level=1, block=4)[:4]] + [base.roll(1, dims) for dims in (1, 2, 3)]
    flat = torch.stack([values.flatten() for values in (base, *others)])
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 5 / flat.shape[1] ** 0.5


def test_coupled_noise_is_the_same_in_any_part_of_a_group_and_of_an_image():
    """The last block is smaller; the samples come some at a time, across the borders of blocks."""
    group = range(16, 26)
    whole, first = blocked(group, group, 4), 16
    part = latents.coupled(0, 0, group, 4, (12, 40), (1, 2))
    for samples in (range(16, 19), range(19, 25), range(25, 26)):
        drawn = part(samples)(0, torch.Size([len(samples), 4, 20, 10]), CPU)
        expected = whole[samples.start - first : samples.stop - first, :, 12:32, 40:50]
        torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole[8], -whole[9], rtol=0, atol=1e-6)


def test_blocks_of_one_are_samples_as_the_paper_draws_them():
    torch.testing.assert_close(blocked(block=1), draw(samples=range(8)), rtol=0, atol=0)
