"""How much of the finest scale across the lines is noise: an anchor for the noise that training learns.

Given the clean image, the lines along the noise axis are independent: across them noise has the same power at
every frequency, while structure fades towards the finest scale, in a microscope to nothing. So a difference of
high order across the lines holds the noise and little else, and its autocovariance along them is that of the noise,
for every brightness. Where the lines beyond are rough there is more structure in it, and it counts for less. What
structure is left shows in a coarser difference, which holds more of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

LAGS = 32  # a wave along the line shows where its correlation does not fade
BINS = 16  # of brightness
FLATNESS = 6  # classes of roughness among the pixels of a brightness
_CLASSES = BINS * FLATNESS
# Shares of the pixels: brightnesses between which a variance is learned. What fades with the light is strongest in the
# darkest hundredth.
QUANTILES = np.array([0.001, 0.01, 0.06, 0.25, 0.5, 0.75, 0.94, 0.99])
GUESS = 0.5  # share of structure beyond which the result is a guess
_AWAY = 4  # brightness is read from lines at least so far away, which share no noise with the differences

# Differences of sixth and fourth order. Of unit norm, so that noise independent from line to line keeps its variance.
_FINEST = np.array([1, -6, 15, -20, 15, -6, 1]) / np.sqrt(924)
_COARSER = np.array([0, 1, -4, 6, -4, 1, 0]) / np.sqrt(70)
_ROUGHNESS = np.array([1, -2, 1])  # a difference that is squared: how rough a line is against its neighbours
_PATCH = 4.0  # pixels along the line: standard deviation of the window over which that is averaged
_ROUGH = 0.05  # share of structure at which a class of roughness counts half
_SAMPLING = 15.0  # over the pixels of a class: variance of that share by chance
# How much structure there is in the finest difference for each bit more of it in the coarser one. Measured on 400 clean
# photographs (BSD400), mostly where they are flat: about 5 in the variance, and the less the further apart two pixels
# are, as what goes on along the line fades faster across it. Where pixels are finer than what the optics resolve, it
# is less still.
_STRUCTURE = 5.0 * np.exp(-((np.arange(LAGS) / 6) ** 2))
_MOST_STRUCTURE = 0.7  # share of the finest difference; more is not believed
_RIM = _AWAY + 2  # lines at either end of which brightness would be read from mirrored lines
_LEAST_LINES = 2 * _RIM + 1


@dataclass(frozen=True)
class NoiseFloor:
    """Noise by brightness, in the units of the images it was measured on.

    signal: (c, bins), mean brightness. covariance: (c, bins, lags), of the noise along the line, at lags 0, 1, ...
    structure: (c, bins), share of the finest scale that was taken for structure: beyond a few per cent the
    covariance is a guess. Below 0 the noise is weaker at the coarser scale: lines are not quite independent.
    quantiles: (c, len(QUANTILES)), of the brightness, increasing.
    """

    signal: np.ndarray
    covariance: np.ndarray
    structure: np.ndarray
    quantiles: np.ndarray

    @property
    def hidden(self) -> bool:
        """Is most of what was measured texture, in some channel? Then it is no measure of the noise."""
        return bool(self.structure.mean(1).max() > GUESS)


def measure(images: Sequence[np.ndarray], axis: int | None) -> NoiseFloor | None:
    """Measure images (c, *space), at least two-dimensional, with noise along ``axis`` (-1 is x).

    Axis None: the noise is known to be independent from pixel to pixel, so its covariance is 0 beyond lag 0.
    None where there are fewer than thirteen lines to compare.
    """
    upright = [np.moveaxis(image.astype(np.float32), -1 if axis is None else axis, -1) for image in images]
    upright = [image.reshape(len(image), -1, *image.shape[-2:]) for image in upright if image.shape[-2] >= _LEAST_LINES]
    if not upright:
        return None
    channels = [_channel([image[c] for image in upright]) for c in range(len(upright[0]))]
    floor = NoiseFloor(*(np.stack(part) for part in zip(*channels, strict=True)))
    if axis is not None:
        return floor
    return replace(floor, covariance=floor.covariance * (np.arange(floor.covariance.shape[-1]) == 0))


def _channel(images: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """images: (planes, lines, pixels) each."""
    inside = np.s_[:, _RIM:-_RIM]

    def across(weights: np.ndarray) -> list[np.ndarray]:
        return [ndimage.correlate1d(image, weights, axis=-2)[inside] for image in images]

    brightness, roughness = zip(*(_surroundings(image) for image in images), strict=True)
    classes = _sorted(brightness, roughness)
    labels = np.concatenate([c.ravel() for c in classes])
    # Brightness sorts the pixels, but is noisy itself: the mean of the pixels in the difference is not biased by that.
    signal = np.concatenate([s.ravel() for s in across(_FINEST**2)])
    count = np.bincount(labels, minlength=_CLASSES + 1)[:-1]
    mean = np.bincount(labels, signal, _CLASSES + 1)[:-1] / np.maximum(count, 1)
    fine = _covariance(across(_FINEST), classes)
    more = _covariance(across(_COARSER), classes) - fine  # of structure, in the coarser difference

    share = _STRUCTURE[0] * more[:, 0] / np.maximum(fine[:, 0], 1e-12)
    weight = count / (1 + share**2 / (_ROUGH**2 + _SAMPLING / np.maximum(count, 1)))

    def over(values: np.ndarray) -> np.ndarray:
        """Of each brightness: the mean over its classes of roughness."""
        by, w = values.reshape(BINS, FLATNESS, -1), weight.reshape(BINS, FLATNESS, 1)
        return (w * by).sum(1) / np.maximum(w.sum(1), 1e-12)

    mean, fine, more = over(mean)[:, 0], over(fine), over(more)
    structure = _STRUCTURE[: more.shape[1]] * more
    share = structure[:, 0] / np.maximum(fine[:, 0], 1e-12)
    believed = np.clip(share, -_MOST_STRUCTURE, _MOST_STRUCTURE)
    structure *= np.where(share > 0, believed / np.maximum(share, 1e-12), 0)[:, None]
    quantiles = np.quantile(np.concatenate([b.ravel() for b in brightness]), QUANTILES)
    return mean, fine - structure, believed, quantiles


def _surroundings(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How bright and how rough it is around each pixel, read from lines that share no noise with the differences."""
    inside, near = np.s_[:, _RIM:-_RIM], np.zeros(2 * _AWAY - 1)
    far, further = (np.r_[np.ones(3), zeros, np.ones(3)] / 6 for zeros in (near, np.r_[near, 0, 0]))
    bright = ndimage.correlate1d(ndimage.gaussian_filter1d(image, 2.0, axis=-1), far, axis=-2)[inside]
    # It reads a line more on either side. Those beyond the rim are mirrored, and stay away from the differences.
    squares = ndimage.correlate1d(image, _ROUGHNESS, axis=-2) ** 2
    rough = ndimage.correlate1d(ndimage.gaussian_filter1d(squares, _PATCH, axis=-1), further, axis=-2)[inside]
    return bright, rough


def _sorted(brightness: Sequence[np.ndarray], roughness: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The class of each pixel: by brightness, and by roughness among those as bright; `_CLASSES` is none."""
    of, by = (np.concatenate([part.ravel() for part in values]) for values in (brightness, roughness))
    live = by > 0  # elsewhere nothing varies: padding, a mask
    if not live.any():
        live[:] = True
    place = np.searchsorted(np.quantile(of[live], np.linspace(0, 1, BINS + 1)[1:-1]), of)
    found = np.full(of.shape, _CLASSES)
    for b in range(BINS):
        here = live & (place == b)
        edges = np.quantile(by[here], np.linspace(0, 1, FLATNESS + 1)[1:-1]) if here.any() else np.zeros(0)
        found[here] = FLATNESS * b + np.searchsorted(edges, by[here])
    parts = np.split(found, np.cumsum([part.size for part in brightness])[:-1])
    return [part.reshape(whole.shape) for part, whole in zip(parts, brightness, strict=True)]


def _covariance(differences: list[np.ndarray], classes: list[np.ndarray]) -> np.ndarray:
    """(classes, lags): mean product of pixels that many pixels apart, each pair counted for both its ends."""
    lags = min(LAGS, max(d.shape[-1] for d in differences))
    wholes = [np.bincount(b.ravel(), minlength=_CLASSES + 1) for b in classes]
    result = np.zeros((_CLASSES + 1, lags))
    for lag in range(lags):
        total, count = np.zeros(_CLASSES + 1), np.zeros(_CLASSES + 1)
        for d, b, whole in zip(differences, classes, wholes, strict=True):
            if lag >= d.shape[-1]:
                continue
            product = (d[..., lag:] * d[..., : d.shape[-1] - lag]).ravel()
            for end in (b[..., lag:], b[..., : d.shape[-1] - lag]):
                total += np.bincount(end.ravel(), product, _CLASSES + 1)
            count += 2 * whole  # of all pixels, less those that have no partner
            for rim in (b[..., :lag], b[..., d.shape[-1] - lag :]):
                count -= np.bincount(rim.ravel(), minlength=_CLASSES + 1)
        result[:, lag] = total / np.maximum(count, 1)
    return result[:-1]
