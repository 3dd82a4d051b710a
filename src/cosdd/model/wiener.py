"""A last step: shrink the noisy image, block by block, by what an estimate says is in it.

The closed form gives each row its own posterior, from what the network makes of the other rows. What the rows of a
small block have in common, noise and all, it uses only as far as the network has learned to. An empirical Wiener
filter does so without learning: the spectrum of a block of the *estimate* tells how much signal there is at each
frequency, the learned noise how much noise, and the block of the *noisy* image is shrunk accordingly

    filtered = signal / (signal + noise) * noisy        (for each frequency)

in overlapping windowed blocks (as in the second step of BM3D; Dabov et al. 2007). Estimate and filtered image err
differently, so each counts by the inverse of its stated variance.

It needs the covariance of the noise and nothing else of its shape. "Row" is the line of pixels along the noise axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cosdd.model.layers import reflect
from cosdd.model.rownoise import RowNoise

BLOCK, STEP = 12, 4  # pixels: edge of the blocks, and from one to the next
PIXELS = 1 << 18  # of the noisy image that are looked at together; the result does not depend on it
LEAST = 1e-3  # share of the noise that is taken to stay in any block: no block counts a thousandfold


@torch.no_grad()
def refined(
    x: Float[Tensor, "b c *space"],
    mean: Float[Tensor, "b c *space"],
    std: Float[Tensor, "b c *space"] | None,
    noise: RowNoise,
    axis: int = -1,
    pixels: int = PIXELS,
) -> Iterator[tuple[float, Float[Tensor, "b c *space"]]]:
    """A better mean, from the noisy image x and the mean and standard deviation of the clean one.

    Missing pixels of x are NaN. Without a standard deviation the filtered image alone counts. axis: that of the noise.
    Yields the share done and the image while it is filled.
    """
    x = torch.where(x.isnan(), mean, x).movedim(axis, -1)
    mean, std = mean.movedim(axis, -1), None if std is None else std.movedim(axis, -1)
    better = torch.empty_like(mean)
    height, width = x.shape[-2:]
    planes = [(slice(None), slice(None), *place) for place in product(*map(range, x.shape[2:-2]))]  # of volumes
    rows = max(1, pixels // (width * x.shape[0] * x.shape[1] * STEP)) * STEP
    strips = [slice(start, min(start + rows, height)) for start in range(0, height, rows)]
    for number, (plane, strip) in enumerate((plane, strip) for plane in planes for strip in strips):
        near = slice(max(0, strip.start - BLOCK), strip.stop + BLOCK)
        inside = slice(strip.start - near.start, strip.stop - near.start)
        guide = mean[plane][..., near, :]
        filtered, variance = _filtered(x[plane][..., near, :], guide, noise)
        if std is not None:
            own = std[plane][..., near, :].square()
            filtered = guide.lerp(filtered, own / (own + variance).clamp_min(1e-12))
        better[plane][..., strip, :] = filtered[..., inside, :]
        yield (number + 1) / (len(planes) * len(strips)), better.movedim(-1, axis)


def _filtered(
    x: Float[Tensor, "b c h w"], guide: Float[Tensor, "b c h w"], noise: RowNoise
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """The filtered image, and the variance that its error has if the guide tells the spectrum of the signal."""
    window = torch.sin(math.pi * (torch.arange(BLOCK) + 0.5) / BLOCK).to(x)
    both = torch.outer(window, window)
    noisy, signal = _blocks(x), _blocks(guide)
    level = signal.mean((-2, -1), keepdim=True)
    power = _power(noise, level[..., 0, 0], window)[..., None, :] * window.square().sum()
    strength = torch.fft.rfft2((signal - level) * both).abs().square()
    gain = strength / (strength + power)
    blocks = torch.fft.irfft2(torch.fft.rfft2((noisy - level) * both) * gain, s=(BLOCK, BLOCK)) + level * both
    twice = torch.full_like(gain[0, 0, 0, 0, 0], 2.0)  # frequencies that stand for their mirror image as well
    twice[0] = twice[-1] = 1
    left = (gain * power * twice).sum((-2, -1), keepdim=True) / (BLOCK**4 * both.square().mean())
    # Blocks that keep less of the noise count more.
    weight = both / (LEAST + gain.square().mean((-2, -1), keepdim=True))
    total = _joined(weight * both, x.shape)
    return _joined(weight * blocks, x.shape) / total, _joined(weight * both * left, x.shape) / total


def _power(noise: RowNoise, level: Float[Tensor, "b c i j"], window: Float[Tensor, " n"]) -> Float[Tensor, "b c i j f"]:
    """Expected squared spectrum of a windowed row of noise where the clean image is `level`."""
    n = len(window)
    lag, frequency = torch.arange(n, device=window.device), torch.arange(n // 2 + 1, device=window.device)
    overlap = torch.stack([(window[: n - k] * window[k:]).sum() for k in range(n)]) * torch.where(lag > 0, 2, 1)
    transform = overlap[:, None] * torch.cos(2 * math.pi / n * lag[:, None] * frequency)
    covariance = noise.at(level.movedim(1, 0).flatten(1), n)
    power = (covariance @ transform.to(covariance)).clamp_min(0)
    return power.unflatten(1, (level.shape[0], *level.shape[2:])).movedim(0, 1)


def _blocks(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j n n"]:
    """Blocks that cover every pixel alike, the first of them beginning outside of the image."""
    before = BLOCK - STEP
    after = [-size % STEP + before for size in image.shape[-2:]]
    padded = reflect(image, [before, after[1], before, after[0]])
    return padded.unfold(2, BLOCK, STEP).unfold(3, BLOCK, STEP)


def _joined(blocks: Float[Tensor, "b c i j n n"], shape: torch.Size) -> Float[Tensor, "b c h w"]:
    """Blocks, added up where they overlap."""
    b, c, i, j = blocks.shape[:4]
    columns = blocks.reshape(b * c, i * j, BLOCK * BLOCK).mT
    size = ((i - 1) * STEP + BLOCK, (j - 1) * STEP + BLOCK)
    before = BLOCK - STEP
    image = F.fold(columns, size, BLOCK, stride=STEP).view(b, c, *size)
    return image[..., before : before + shape[-2], before : before + shape[-1]]
