"""Calibration: is the stated standard deviation that of the error? Measured on held-out frames, without a clean image.

With a little more noise in the image, drawn from the learned noise, the estimate moves; how far it moves along with
that noise tells how much of the noise that is there stays in it. So the mean of the squared error is known but for the
truth (Stein's unbiased risk estimate, its divergence by chance; Ramani et al. 2008), whatever the estimator does:

    E[(estimate - signal)^2] = E[(estimate - x)^2] - E[noise^2] + 2 E[noise * (estimate with it - estimate)]
"""

from __future__ import annotations

import numpy as np
import torch

from cosdd.data import Frames
from cosdd.model import BlindRow

PIXELS = 1 << 19  # looked at, of all held-out frames together
FEW = 1 << 14  # fewer pixels are no evidence
EDGE = 256
PROBE = 0.05  # share of the noise that is added
WRONG = 0.03  # about so far off, relatively, is the variance of the noise that is taken off
LARGEST = 2.0  # factor either way; what would be more is no matter of calibration


@torch.no_grad()
def spread(network: BlindRow, frames: Frames) -> tuple[float, ...]:
    """Factors that the standard deviations need, one for each channel; none where too little was held out to tell."""
    edges = frames.edges(min(EDGE, int(PIXELS ** (1 / frames.dimensions))), 1)
    ceiling = torch.tensor(frames.ceiling())[:, None]
    stated, true, noisy, pixels = (torch.zeros(network.channels, dtype=torch.float64) for _ in range(4))
    generator = torch.Generator().manual_seed(0)
    for crop in frames.held_out(max(1, PIXELS // int(np.prod(edges))), edges):
        x = torch.from_numpy(crop[None])
        mean, std = network.estimate(x)
        probe = network.draw_noise(mean, generator)
        moved, _ = network.estimate(x + PROBE * probe)
        x, mean, std, stays = (image[0].flatten(1) for image in (x, mean, std, probe * (moved - mean) / PROBE))
        noise = network.noise.at(mean, 1)[..., 0]
        trusted = ~x.isnan() & (x < ceiling)
        variance = std.double().square()
        stated += (trusted * variance).sum(1)
        noisy += (trusted * noise).sum(1)
        true += torch.where(trusted, (x - mean).double().square() - noise + 2 * stays, 0).sum(1)
        pixels += trusted.sum(1)
    if pixels.min() < FEW:
        return ()
    # Where noise is far stronger than the error, what is wrong about it hides what is wrong about the error.
    doubt = (WRONG * noisy / stated.clamp_min(1e-30)).square()
    factors = 1 + (true.clamp_min(0) / stated.clamp_min(1e-30) - 1) / (1 + doubt)
    return tuple(factors.sqrt().clamp(1 / LARGEST, LARGEST).tolist())
