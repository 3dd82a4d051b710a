"""Calibration of a trained model, without a clean image: brightness, standard deviation, passes of the last step.

**Brightness** (blind-row). The prediction of a row from the other rows knows nothing of the noise of that row. So among
all pixels that are predicted alike, the noisy ones are as bright as the clean ones, on average: what the prediction
lacks there can be measured and added. It lacks something where noise depends on the signal, because the likelihood also
asks of the prediction how strong the noise is, and where training was short.

**Standard deviation** (blind-row). On held-out frames: with a little more noise in the image, drawn from the learned
noise, the estimate moves; how far it moves along with that noise tells how much of the noise that is there stays in it.
So the mean of the squared error is known but for the truth (Stein's unbiased risk estimate, its divergence by chance;
Ramani et al. 2008), whatever the estimator does:

    E[(estimate - signal)^2] = E[(estimate - x)^2] - E[noise^2] + 2 E[noise * (estimate with it - estimate)]

**Passes of the last step** (cosdd). By the same equation, the squared error after each pass of the filter: where a
model has learned little several passes gain, where it has learned much even the first one may lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cosdd import device, errors, estimates
from cosdd.data import Frames
from cosdd.model import COSDD, USUAL, BlindRow, Passes
from cosdd.model.blindrow import LEVELS
from cosdd.model.quick import quick
from cosdd.sampling import Memory, Sampling, Settings

PIXELS = 1 << 19  # looked at, of all held-out frames together
FEW = 1 << 14  # fewer pixels are no evidence
EDGE = 256
PROBE = 0.05  # share of the noise that is added
WRONG = 0.03  # about so far off, relatively, is the variance of the noise that is taken off
LARGEST = 2.0  # factor either way; what would be more is no matter of calibration
SURE = 4.0  # times its chance variance, the square of a difference is: less is no evidence
SEEN = 1 << 20  # pixels of frames from beginning to end whose brightness is compared, about
CUT_OFF = 0.01  # share of saturated pixels
DRAWN, APART = 1 << 18, 4  # pixels for which samples are drawn, of all held-out frames together; of so many at least
MOST_PASSES = 6  # of the last step
AS_GOOD = 0.003  # so much more squared error, relatively, is as good as the least: fewer passes will do


@torch.no_grad()
def brightness(network: BlindRow, frames: Frames) -> Float[Tensor, "2 c levels"]:
    """For each channel levels of brightness, as predicted, and what such predictions are too low by.

    Zeros where too few pixels tell.
    """
    ceiling = torch.tensor(frames.ceiling())[:, None, None]
    seen: list[tuple[Tensor, Tensor]] = []  # predictions and what they lack, (c, n, w)
    pieces = frames.windows(SEEN)  # of many frames more than that
    step = max(1, sum(map(np.size, pieces)) // (SEEN * network.channels))
    for number, piece in enumerate(pieces[::step]):
        x = torch.from_numpy(piece[None]).movedim(network.axis, -1)
        if x.shape[-2] > 1:
            mean, row = network.predicted(x, number % min(network.period, x.shape[-2]))
            seen.append((mean, torch.where(row < ceiling, row - mean, torch.nan)))
    found = torch.zeros_like(network.brightness)
    for channel in range(network.channels):
        rows = [row.double().numpy() for pair in seen for row in torch.stack([part[channel] for part in pair], 1)]
        number = np.concatenate([np.full(row.shape[1], i) for i, row in enumerate(rows)]) if rows else np.zeros(0)
        mean, lacking = np.concatenate(rows, 1) if rows else np.zeros((2, 0))
        if np.isfinite(lacking).sum() >= FEW:
            found[:, channel] = torch.from_numpy(by_level(mean, lacking, number.astype(int)))
    return found


def by_level(mean: np.ndarray, lacking: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Levels of brightness and what is lacking there, (2, LEVELS), of pixels and the number of the row of each.

    Half of the bounds between levels are as many pixels apart, half as many grey values. What is lacking counts as far
    as it is beyond chance, which is judged row by row: noise within a row is not independent. It is NaN where pixels
    are saturated; where many of a level are, those that are left are the darker ones, and say nothing.
    """
    saturated = np.isnan(lacking)
    lacking = np.where(saturated, 0, lacking)
    many = np.quantile(mean, np.linspace(0, 1, LEVELS // 2 + 1)[1:-1])
    darkest, brightest = np.quantile(mean, [0.001, 0.999])
    wide = np.linspace(darkest, brightest, LEVELS // 2 + 2)[1:-1]
    bin_ = np.searchsorted(np.sort(np.concatenate([many, wide])), mean)
    count = np.bincount(bin_, minlength=LEVELS)
    level, missing = (np.bincount(bin_, values, LEVELS) / count.clip(1) for values in (mean, lacking))
    of_rows = np.bincount(row * LEVELS + bin_, lacking, (row.max() + 1) * LEVELS).reshape(-1, LEVELS)
    chance = np.square(of_rows).sum(0) / count.clip(1) ** 2
    missing *= (1 - SURE * chance / np.square(missing).clip(1e-30)).clip(0)
    missing[np.bincount(bin_, saturated, LEVELS) > CUT_OFF * count] = 0
    there = np.flatnonzero(count)
    return np.stack([np.interp(np.arange(LEVELS), there, values[there]) for values in (level, missing)])


@torch.no_grad()
def spread(network: BlindRow, frames: Frames) -> tuple[float, ...]:
    """Factors that the standard deviations need, one for each channel; none where too little was held out to tell."""
    ceiling = torch.tensor(frames.ceiling())[:, None]
    stated, true, noisy, pixels = (torch.zeros(network.channels, dtype=torch.float64) for _ in range(4))
    generator = torch.Generator().manual_seed(0)
    edge = min(EDGE, int(PIXELS ** (1 / frames.dimensions)))
    for x in _crops(frames, frames.validation, PIXELS, edge):
        mean, std = network.estimate(x)
        probe = network.draw_noise(mean, generator)
        moved, _ = network.estimate(x + PROBE * probe)
        x, mean, std, probe, moved = (image[0].flatten(1) for image in (x, mean, std, probe, moved))
        noise = network.noise.at(mean, 1)[..., 0]
        trusted = ~x.isnan() & (x < ceiling)
        variance = std.double().square()
        stated += (trusted * variance).sum(1)
        noisy += (trusted * noise).sum(1)
        true += torch.where(trusted, _squared_error((x - mean).double(), noise, probe, moved - mean), 0).sum(1)
        pixels += trusted.sum(1)
    if pixels.min() < FEW:
        return ()
    # Where noise is far stronger than the error, what is wrong about it hides what is wrong about the error.
    doubt = (WRONG * noisy / stated.clamp_min(1e-30)).square()
    factors = 1 + (true.clamp_min(0) / stated.clamp_min(1e-30) - 1) / (1 + doubt)
    return tuple(factors.sqrt().clamp(1 / LARGEST, LARGEST).tolist())


def passes(network: COSDD, frames: Frames, precision: str) -> Passes:
    """How often a COSDD model, which knows the noise as measured, repeats the last step.

    Told by held-out images; by those learned from where too little is held out (what was learned by heart then counts
    as noise that is gone). As often as usual where neither suffices, memory is short, or nobody waits for the answer.
    """
    try:
        return _measured(network, frames, precision)
    except KeyboardInterrupt:
        return USUAL  # what was learned is worth more than to know this
    except (RuntimeError, MemoryError) as error:
        if not errors.of_memory(error):
            raise
        return USUAL


@torch.inference_mode()
def _measured(network: COSDD, frames: Frames, precision: str) -> Passes:
    where, memory = device.best(), Memory()
    network = quick(network).to(where)
    ceiling = torch.tensor(frames.ceiling(), device=where).reshape(-1, *[1] * frames.dimensions)
    for places in (frames.validation, frames.train):
        edge = int((DRAWN / max(1, min(APART, len(places)))) ** (1 / frames.dimensions))
        crops = [crop.to(where) for crop in _crops(frames, places, DRAWN, edge)]
        if sum(int((crop < ceiling).all(1).sum()) for crop in crops) >= FEW:
            samples = _passes(network, crops, ceiling, Settings(samples=estimates.GROUP), precision, memory)
            if network.direct is None:
                return Passes(samples)
            return Passes(samples, _passes(network, crops, ceiling, Settings(direct=True), precision, memory))
    return USUAL


def _passes(
    network: COSDD, crops: list[Tensor], ceiling: Tensor, settings: Settings, precision: str, memory: Memory
) -> int:
    """The fewest with which the squared error is nearly the least, over all channels."""
    assert network.measured is not None
    usual, generator = USUAL.of(settings.direct), torch.Generator().manual_seed(0)
    error, noisy = torch.zeros(1 + MOST_PASSES, dtype=torch.float64), 0.0
    for x in crops:
        after = list(_by_pass(network, x, settings, precision, memory))
        probe = network.measured.draw_along(network.noise.axis or -1, after[usual], generator)
        rows = after[usual].movedim(1, 0)
        noise = network.measured.at(rows.flatten(1), 1).view(rows.shape).movedim(0, 1)
        trusted = x < ceiling  # and no missing pixel
        noisy += float(torch.where(trusted, noise, 0).sum())
        moved = _by_pass(network, x + PROBE * probe, settings, precision, memory)
        for number, (estimate, with_it) in enumerate(zip(after, moved, strict=True)):
            found = _squared_error(x - estimate, noise, probe, with_it - estimate)
            error[number] += torch.where(trusted, found, 0).cpu().double().sum()  # Apple GPUs have no float64
    if not error.isfinite().all():
        return usual
    fewest = int((error <= error.min() + AS_GOOD * error.min().clamp_min(0)).nonzero()[0])
    # Where noise is far stronger than the error, a small mistake about the noise outweighs the error. Taken for too
    # weak it asks for too few passes, which costs most.
    return fewest if error.min() > WRONG * noisy else max(fewest, usual)


def _by_pass(network: COSDD, x: Tensor, settings: Settings, precision: str, memory: Memory) -> Iterator[Tensor]:
    """The estimate of an image (1, c, *space) before the last step, and after each of its passes."""
    sampling = Sampling.of(network, x, 0, settings, device.sound(precision, x), memory)
    *_, (mean, std, _, _) = (part for part in sampling.parts() if isinstance(part, tuple))
    for _ in range(MOST_PASSES):
        yield mean
        *_, (_, mean) = network.refined(x, mean, std, passes=1)
    yield mean


def _squared_error(removed: Tensor, noise: Tensor, probe: Tensor, shift: Tensor) -> Tensor:
    """Of an estimate, pixel by pixel, right in the mean: by the equation above.

    removed: noisy image less estimate. noise: its variance. shift: what PROBE times the probe changes in the estimate.
    """
    return removed.square() - noise + 2 * probe * shift / PROBE


def _crops(
    frames: Frames, places: Sequence[tuple[int, int]], pixels: int, edge: int
) -> Iterator[Float[Tensor, "1 c *space"]]:
    """One of each of some frames, of about so many pixels together."""
    edges = frames.edges(edge, 1)
    for crop in frames.one_of_each(places, max(1, pixels // int(np.prod(edges))), edges):
        yield torch.from_numpy(crop[None])
