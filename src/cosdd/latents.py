"""Latent noise with an address: a standard normal number for every (seed, image, sample, level, channel, pixel).

A number depends on its address alone. So a sample is the same in tiles of any size, in batches of any size, in any
order, and (but for the last digit) on any device.

Samples can be coupled in blocks: the noise of each is standard normal as before, and that of a block adds up to zero.
What a clean image takes linearly from its noise then cancels in the mean of the block (performance section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cosdd.model.ladder import Draw

# Bits of an address: x and y reach to a million pixels, z to 16,000, and there are 2048 channels, in pairs.
BITS = {"x": 20, "y": 20, "z": 14}
BLOCK = 1 << 20  # numbers that are worked on together


def addressed(seed: int, frame: int, samples: Sequence[int], origin: Sequence[int], strides: Sequence[int]) -> Draw:
    """Noise for samples of a part of an image that begins at pixel ``origin``: draw(level, shape, device).

    strides: pixels of the image to one of each level. ``shape`` is (samples, channels, *space of the level).
    """

    def draw(level: int, shape: torch.Size, device: torch.device) -> Float[Tensor, "b z *space"]:
        where = addresses(shape[2:], [at // strides[level] for at in origin], device)
        words = [
            np.random.SeedSequence((seed, frame, sample, level)).generate_state(2, np.uint64) for sample in samples
        ]
        keys = torch.from_numpy(np.stack(words).view(np.int64)).to(device)
        return standard_normal(where, shape[1], keys)

    return draw


def coupled(
    seed: int, frame: int, group: range, block: int, origin: Sequence[int], strides: Sequence[int]
) -> Callable[[range], Draw]:
    """Noise for a group of samples, some of them at a time: coupled(...)(samples)(level, shape, device).

    block: how many samples belong together, from the group's first to its last; 1: they are independent. From
    independent `n_l` of L samples: `sqrt(L / (L - 1)) * (n_l - mean of n)`, again standard normal.
    """
    means: dict[tuple[int, int], Tensor] = {}  # of level and block, where not all of it is drawn at once

    def of(samples: range) -> Draw:
        own = addressed(seed, frame, samples, origin, strides)

        def draw(level: int, shape: torch.Size, device: torch.device) -> Float[Tensor, "b z *space"]:
            normal = own(level, shape, device)
            for first in range(group.start, group.stop, block):
                members = range(first, min(first + block, group.stop))
                here = slice(max(first - samples.start, 0), max(members.stop - samples.start, 0))
                count, some = len(members), normal[here]
                if count == 1 or not len(some):
                    continue
                if len(some) == count:
                    mean = some.mean(0)
                elif (level, first) in means:
                    mean = means[level, first]
                else:
                    one = torch.Size([1, *shape[1:]])
                    mean = torch.zeros((), device=device)
                    for sample in members:
                        mean = mean + addressed(seed, frame, [sample], origin, strides)(level, one, device)[0] / count
                    means[level, first] = mean
                some.sub_(mean).mul_(math.sqrt(count / (count - 1)))
            return normal

        return draw

    return of


def addresses(space: Sequence[int], start: Sequence[int], device: torch.device) -> Int[Tensor, "*space"]:
    """A whole number for every pixel of a part of an image that begins at pixel ``start``."""
    address = torch.zeros(tuple(space), dtype=torch.int64, device=device)
    for dimension, (axis, first, size) in enumerate(zip("zyx"[-len(space) :], start, space, strict=True)):
        position = torch.arange(first, first + size, device=device)
        address = (address << BITS[axis]) + position.reshape(-1, *[1] * (len(space) - 1 - dimension))
    return address


def standard_normal(
    address: Int[Tensor, "*space"], channels: int, keys: Int[Tensor, "b 2"]
) -> Float[Tensor, "b z ..."]:
    """Two channels at a time: 64 well-mixed bits for each address, and the Box-Muller transform of their halves."""
    pairs = -(-channels // 2)
    normal = torch.empty(len(keys), pairs, 2, *address.shape, device=address.device)
    first, second = keys.reshape(-1, 1, 2, *[1] * address.dim()).unbind(2)
    together = max(1, BLOCK // (len(keys) * address.numel()))
    for start in range(0, pairs, together):
        some = torch.arange(start, min(start + together, pairs), device=address.device) << sum(BITS.values())
        bits = _mix(_mix((address + some.reshape(-1, *[1] * address.dim())) ^ first) + second)
        high, low = (bits >> 32) & 0xFFFFFFFF, bits & 0xFFFFFFFF
        radius = torch.sqrt(-2 * torch.log((high.float() + 0.5) / 2**32))
        angle = low.float() * (2 * math.pi / 2**32)
        normal[:, start : start + together, 0] = radius * torch.cos(angle)
        normal[:, start : start + together, 1] = radius * torch.sin(angle)
    return normal.flatten(1, 2)[:, :channels]


def _mix(bits: Int[Tensor, "*space"]) -> Int[Tensor, "*space"]:
    """A bijection of 64 bits in which each bit depends on all (the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return bits ^ ((bits >> 31) & (2**33 - 1))
