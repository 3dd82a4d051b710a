"""Excerpts of noisy images: windows of some frames, each pixel weighed by what it says about the noise.

Flat and quiet regions weigh most, and frame differences replace frames where they hold less structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cosdd.errors import InputError
from cosdd.lazy import Pixels

_BUDGET = 1 << 21  # pixels looked at: more would not change a verdict, and these take a second
_WINDOW = 256  # largest edge of the windows that frames are sampled with
_SIGMA = 1.5  # pixels; the scale at which structure is looked for, too coarse for `_FINE` to see
_NEAR = 2.5  # pixels; the scale at which brightness is looked at
_BRIGHTNESSES = 8
_STEEPEST = 1e6  # times the usual gradient; more counts as that, so that no weight is lost to rounding
_QUIETEST = 0.05  # of the largest variance; less counts as that, so that a few dark pixels do not decide alone

# Fourth difference across the lines: the finest scale, where structure is weakest. Of unit norm, so that
# noise independent from line to line keeps its autocovariance.
_FINE = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)


def upright(values: np.ndarray, axis: str) -> np.ndarray:
    """(z, y, x) -> (images, lines, pixels along `axis`)."""
    return np.ascontiguousarray(np.transpose(values, {"x": (0, 1, 2), "y": (0, 2, 1), "z": (1, 2, 0)}[axis]))


def finest(lines: np.ndarray) -> np.ndarray:
    """(images, lines, pixels) at the finest scale across the lines, without the two lines at either end."""
    return ndimage.correlate1d(lines, _FINE, axis=1)[:, 2:-2]


def windows(data: Pixels, dimensions: int) -> list[np.ndarray]:
    """Windows (frames, z, y, x), float32: `frames` 2 where there are neighbours, else 1. In 2-D, z counts
    windows that were joined: thousands of tiny frames would cost more in calls than in pixels.

    data: (*frames, c, *space), `dimensions` of them space; neighbours along the last axis of `frames` may show one
    scene. Raises InputError for pixels that are not finite.
    """
    rng = np.random.default_rng(0)
    *before, channels = data.shape[: data.ndim - dimensions]
    space = data.shape[data.ndim - dimensions :]
    together = 2 if before and before[-1] > 1 else 1
    size = [s // -(-s // w) for s, w in zip(space, (16, _WINDOW, _WINDOW)[-dimensions:], strict=True)]
    corners = [range(0, s - w + 1, w) for s, w in zip(space, size, strict=True)]
    firsts = [*before[:-1], before[-1] - together + 1] if before else []
    choices, found = (channels, *firsts, *(len(c) for c in corners)), []
    total = int(np.prod(choices))
    wanted = min(total, max(1, _BUDGET // (together * int(np.prod(size)))))
    # Numbers stand for the choices, so that a file of a million frames needs no list of them; one is drawn from
    # each stretch, so that frames from beginning to end are seen.
    for number in ((np.arange(wanted) + rng.random(wanted)) * (total / wanted)).astype(int):
        place = [int(i) for i in np.unravel_index(number, choices)]
        channel, *frame = place[: len(before) + 1]
        places = zip(corners, place[len(before) + 1 :], size, strict=True)
        corner = tuple(slice(c[i], c[i] + w) for c, i, w in places)
        shifts = [[*frame[:-1], frame[-1] + i] for i in range(together)] if frame else [[]]
        window = np.stack([np.asarray(data[(*f, channel, *corner)], np.float32) for f in shifts])
        if not np.isfinite(window).all():
            raise InputError("pixels hold NaN or infinity, expected finite values")
        found.append(window if dimensions == 3 else window[:, None])
    joined = max(1, (1 << 16) // found[0].size) if dimensions == 2 else 1
    return [np.concatenate(found[i : i + joined], axis=1) for i in range(0, len(found), joined)]


@dataclass(frozen=True)
class Excerpt:
    noise: np.ndarray  # (z, y, x): a frame, or a difference of two, divided by `variance`'s root
    flat: np.ndarray  # same shape: flatness, 0 to 1
    weight: np.ndarray  # same shape: flatness over the variance of the noise at this brightness
    mean: np.ndarray  # same shape: grey levels
    variance: float  # of the noise, grey levels squared


def _by_brightness(power: np.ndarray, flat: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Power of the noise where it is as bright as here: one average for each of some classes of brightness, since
    weights that know the noise of single places would prefer pairs of pixels that are small together."""
    brightness = ndimage.gaussian_filter(mean.astype(np.float32), (0, _NEAR, _NEAR))
    edges = np.quantile(brightness, np.linspace(0, 1, _BRIGHTNESSES + 1)[1:-1])
    where = np.searchsorted(edges, brightness.ravel())
    weights = flat.ravel()
    count, total = np.bincount(where, minlength=_BRIGHTNESSES), np.bincount(where, weights, _BRIGHTNESSES)
    level = np.bincount(where, brightness.ravel(), _BRIGHTNESSES)[count > 0] / count[count > 0]
    classes = np.bincount(where, weights * power.ravel(), _BRIGHTNESSES)[count > 0] / total[count > 0]
    classes = np.maximum(classes, _QUIETEST * classes.max())
    return np.interp(brightness, level, classes).astype(np.float32)


def _excerpt(pixels: np.ndarray, mean: np.ndarray) -> Excerpt | None:
    """Weigh each pixel by how flat its surroundings are, compared with what noise alone would show, and by how
    quiet: what is hidden among the photon noise of bright places may be plain in dark ones."""
    pixels = pixels - np.float32(pixels.mean(dtype=np.float64))
    smooth = ndimage.gaussian_filter(pixels, (0, _SIGMA, _SIGMA))
    down, right = np.gradient(smooth, axis=(1, 2))
    gradient = ndimage.gaussian_filter(down**2 + right**2, (0, _SIGMA, _SIGMA))
    power = (ndimage.correlate1d(pixels, _FINE, axis=1) ** 2 + ndimage.correlate1d(pixels, _FINE, axis=2) ** 2) / 2
    # What is everywhere is not structure, hence a quantile. White noise of variance v shows v / (4 pi sigma^4);
    # twice that is let pass.
    calm = float(np.quantile(gradient, 0.1))
    variance = float(power[gradient <= calm].mean())
    usual = max(2 * variance / (4 * np.pi * _SIGMA**4), calm)
    if not usual > 0:
        return None
    steep = np.minimum(np.divide(gradient, usual, dtype=np.float64), _STEEPEST)
    flat = (1 / (1 + steep**2)).astype(np.float32)
    variance = float(np.average(power, weights=flat))
    if not variance > 0:
        return None
    noise = pixels / np.float32(np.sqrt(variance))
    return Excerpt(noise, flat, flat / _by_brightness(power / variance, flat, mean), mean, variance)


def flatness(excerpts: Sequence[Excerpt]) -> float:
    """On average, 0 to 1."""
    return float(np.mean([e.flat.mean() for e in excerpts]))


def flattest(seen: Sequence[np.ndarray]) -> tuple[list[Excerpt], str]:
    """Frame differences where they are about as flat as the frames or flatter, else single frames; and which it is.

    seen: windows (frames, z, y, x). Raises InputError where there is no noise at all.
    """
    single = [e for w in seen if (e := _excerpt(w[0], w[0]))]
    root = np.float32(np.sqrt(2))  # keeps the variance
    difference = [e for w in seen if len(w) == 2 and (e := _excerpt((w[1] - w[0]) / root, w.mean(0)))]
    if not single:
        raise InputError("no noise found: the pixels are constant, or perfectly smooth")
    if difference and flatness(difference) >= 0.9 * flatness(single):
        return difference, "frame differences"
    return single, "single frames"
