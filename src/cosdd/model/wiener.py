"""A last step: shrink the noisy image, block by block, by what an estimate says is in it.

The closed form gives each row its own posterior, from what the network makes of the other rows. What the rows of a
small block have in common, noise and all, it uses only as far as the network has learned to. An empirical Wiener
filter does so without learning: the spectrum of a block of the *estimate* tells how much signal there is at each
frequency, the learned noise how much noise, and the block of the *noisy* image is shrunk accordingly

    filtered = signal / (signal + noise) * noisy        (for each frequency)

in overlapping windowed blocks (as in the second step of BM3D; Dabov et al. 2007). Estimate and filtered image err
differently, so at each frequency of a block each counts by the inverse of the variance of its error. Of the filtered
image that is what the filter leaves of the noise. Of the estimate the variance is stated, not how it spreads over the
frequencies: like that of the filtered image (so that one weight does for the block), or, for the share `by_row`, flat
over the frequencies across the rows, as where every row errs independently of its neighbours.

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
    by_row: float = 0.0,
    pixels: int = PIXELS,
) -> Iterator[tuple[float, Float[Tensor, "b c *space"]]]:
    """A better mean, from the noisy image x and the mean and standard deviation of the clean one.

    Missing pixels of x are NaN. Without a standard deviation the filtered image alone counts. axis: that of the noise.
    by_row: share of the error of the mean (of its variance) that is independent from row to row.
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
        near = (*plane, slice(max(0, strip.start - BLOCK), strip.stop + BLOCK))
        inside = slice(strip.start - near[-1].start, strip.stop - near[-1].start)
        variance = None if std is None else std[near].square()
        better[plane][..., strip, :] = _better(x[near], mean[near], variance, noise, by_row)[..., inside, :]
        yield (number + 1) / (len(planes) * len(strips)), better.movedim(-1, axis)


def _better(
    x: Float[Tensor, "b c h w"],
    mean: Float[Tensor, "b c h w"],
    variance: Float[Tensor, "b c h w"] | None,
    noise: RowNoise,
    by_row: float,
) -> Float[Tensor, "b c h w"]:
    """The mean and the filtered image, weighed against each other in every block of a strip."""
    window = torch.sin(math.pi * (torch.arange(BLOCK) + 0.5) / BLOCK).to(x)
    both = torch.outer(window, window)
    twice = torch.full_like(window[: BLOCK // 2 + 1], 2.0)  # frequencies that stand for their mirror image as well
    twice[0] = twice[-1] = 1
    guide = _blocks(mean)
    level = guide.mean((-2, -1), keepdim=True)
    power = _power(noise, level[..., 0, 0], window)[..., None, :] * window.square().sum()
    noisy, signal = (torch.fft.rfft2((blocks - level) * both) for blocks in (_blocks(x), guide))
    strength = signal.abs().square()
    gain = strength / (strength + power)
    kept = gain  # of the noise, in the outcome
    if variance is None:
        outcome = gain * noisy
    else:
        left = gain * power  # variance of the error of the filtered image, if the mean tells the spectrum of the signal
        stated = (_blocks(variance) * both.square()).sum((-2, -1), keepdim=True)  # of that of the mean: per pixel
        shape = left.lerp(left.mean(-2, keepdim=True), by_row)
        error = shape * stated / ((shape * twice).sum((-2, -1), keepdim=True) / BLOCK**2).clamp_min(1e-20)
        share = error / (error + left).clamp_min(1e-20)
        kept = share * gain
        outcome = signal + share * (gain * noisy - signal)
    blocks = torch.fft.irfft2(outcome, s=(BLOCK, BLOCK)) + level * both
    # Blocks that keep less of the noise count more.
    weight = both / (LEAST + (kept.square() * twice).sum((-2, -1), keepdim=True) / BLOCK**2)
    return _joined(weight * blocks, x.shape) / _joined(weight * both, x.shape)


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
