"""Pixels that hold no image: hot, dead, struck by a cosmic ray. And the wall at which a detector saturates.

Taken for measurements, a few hot pixels do much harm: each draws a streak along its row and misleads the rows
beside it, and together they make the noise look stronger than it is. So they count as missing (NaN in normalised
images): nothing is learned from them, and denoising replaces them by what the other pixels say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Classes of brightness: the darker half, half of what is left, and so on; bright structures are often few.
EDGES = 1 - 0.5 ** np.arange(1, 8)
# A pixel is an outlier where it exceeds all but one of its neighbours by that many times the spread (median to 95 %)
# of this excess among pixels as bright: about ten standard deviations of white Gaussian noise.
TOLERANCE = 6.0
# The smallest spot that optics can draw spreads over several pixels; a defect does not. Where the second brightest
# neighbour rises above the second darkest by more than this share of the pixel's own rise, it is a spot.
SPOT = 0.25
NOISE_ITSELF = 0.005  # share of the pixels of one brightness: defects are rarer, so many are how the noise is
FEWEST = 200  # pixels in a class of brightness; fewer are no evidence
BLOCK = 1 << 22  # pixels that are looked at together
WORTH_A_WORD = 1e-5  # share of the pixels
STAND_OUT = "of the pixels stand out from all their neighbours (hot or dead pixels, cosmic rays)"


@dataclass(frozen=True)
class Outliers:
    """How far a pixel may stand out from its neighbours, by brightness, in the grey values of the files.

    edges: (c, bins - 1), between the classes of brightness. limit: (c, bins), infinite where nothing can be said.
    ceiling: (c,), the value at which pixels saturate; infinite where there is no such wall.
    """

    edges: np.ndarray
    limit: np.ndarray
    ceiling: np.ndarray

    def of(self, channels: slice) -> Outliers:
        """The same for some of the channels."""
        return Outliers(self.edges[channels], self.limit[channels], self.ceiling[channels])

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Which pixels of (c, *space) are outliers; none in images of one dimension."""
        found = np.zeros(image.shape, bool)
        for c, plane, lines in _strips(image):
            found[c][plane][lines] = self._strip(c, image[c][plane], lines)
        return found

    def share(self, images: Sequence[np.ndarray]) -> float:
        """Share of the pixels of (c, *space) images that are outliers."""
        return sum(int(self.mask(image).sum()) for image in images) / sum(image.size for image in images)

    def without(self, image: np.ndarray) -> np.ndarray:
        """(c, *space) with each outlier replaced by what lies in the middle of its neighbours."""
        repaired = image
        for c, plane, lines in _strips(image):
            y, x = np.nonzero(self._strip(c, image[c][plane], lines))
            if len(y):
                repaired = image.copy() if repaired is image else repaired
                darkest, brightest = _neighbours(image[c][plane], y + lines.start, x)
                repaired[c][plane][y + lines.start, x] = (darkest + brightest) / 2
        return repaired

    def _strip(self, c: int, plane: np.ndarray, lines: slice) -> np.ndarray:
        """Outliers among these lines of a plane (y, x)."""
        found = np.zeros((lines.stop - lines.start, plane.shape[1]), bool)
        least = self.limit[c].min()
        if np.isinf(least):
            return found
        # It exceeds all its neighbours but one, so one of those beside it and one of those above and below: few do.
        first = max(0, lines.start - 1)
        near = _float(plane[first : lines.stop + 1])
        candidates = _steps(near, least) & _steps(near.T, least).T
        y, x = np.nonzero(candidates[lines.start - first :][: len(found)])
        pixels = _float(plane[lines])[y, x]
        darkest, brightest = _neighbours(plane, y + lines.start, x)
        limit = self.limit[c][np.searchsorted(self.edges[c], (darkest + brightest) / 2)]
        contrast = (brightest - darkest) / SPOT
        hot = (pixels - brightest > limit) & (pixels - darkest > contrast)
        dead = (darkest - pixels > limit) & (brightest - pixels > contrast)
        found[y, x] = hot | dead
        return found


def measure(images: Sequence[np.ndarray]) -> Outliers:
    """What is usual for the pixels of images (c, *space), or of pieces of them, and where they saturate."""
    channels = [_channel([image[c] for image in images]) for c in range(len(images[0]))]
    return Outliers(*(np.stack(part) for part in zip(*channels, strict=True)))


def _channel(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    excess, middle = [np.empty(0)], [np.empty(0)]
    for image in images:
        for _, plane, lines in _strips(image[None]):
            darkest, brightest = _everywhere(image[plane], lines)
            excess.append((_float(image[plane][lines]) - brightest).ravel())
            middle.append(((darkest + brightest) / 2).ravel())
    values, brightness = np.concatenate(excess), np.concatenate(middle)
    edges, limit = np.full(len(EDGES), np.inf), np.full(len(EDGES) + 1, np.inf)
    enough = (1 - EDGES) * len(values) >= FEWEST
    if len(values) >= FEWEST:
        edges[enough] = np.quantile(brightness, EDGES[enough])
        bins = np.searchsorted(edges, brightness).astype(np.uint8)
        ordered, sizes = values[np.argsort(bins, kind="stable")], np.bincount(bins, minlength=len(limit))
        for b, inside in enumerate(np.split(ordered, np.cumsum(sizes[:-1]))):
            if len(inside) < FEWEST:
                continue
            usual, large = np.quantile(inside, (0.5, 0.95))
            most = usual + TOLERANCE * (large - usual)
            if np.mean(inside > most) > NOISE_ITSELF:
                break  # nor can anything be said of brighter pixels, where noise is stronger
            # Without a spread, photons are so few that most pixels are alike, and a lone photon is no defect.
            limit[b] = most if large > usual else np.inf
    return edges, limit, np.array(_ceiling(images))


def _ceiling(images: list[np.ndarray]) -> float:
    """The highest value, where more pixels have it than come near it: a wall, not the tail of a distribution."""
    highest, lowest = (float(extreme([extreme(image) for image in images])) for extreme in (np.max, np.min))
    next_lower = max((float(image[image < highest].max()) for image in images if image.min() < highest), default=lowest)
    near = min(highest - 0.02 * (highest - lowest), next_lower)  # grey steps may be wide
    at = sum(np.count_nonzero(image == highest) for image in images)
    below = sum(np.count_nonzero((image >= near) & (image < highest)) for image in images)
    return highest if at > max(10, below) else np.inf


def _strips(image: np.ndarray) -> Iterator[tuple[int, tuple[int, ...], slice]]:
    """Channel, plane and lines of the parts of (c, *space) that are looked at together."""
    if image.ndim < 3 or min(image.shape[-2:]) < 3:
        return
    height, width = image.shape[-2:]
    step = max(1, BLOCK // width)
    for c, *plane in np.ndindex(image.shape[:-2]):
        for start in range(0, height, step):
            yield c, tuple(plane), slice(start, min(start + step, height))


def _neighbours(plane: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second darkest and the second brightest of the eight neighbours of each pixel (y, x), mirrored at borders;
    the second, so that a defect of two pixels does not hide itself."""
    height, width = plane.shape
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    # -1 is the line 1, and height the line height - 2.
    lines = [height - 1 - np.abs(height - 1 - np.abs(y + dy)) for dy, _ in around]
    columns = [width - 1 - np.abs(width - 1 - np.abs(x + dx)) for _, dx in around]
    ordered = np.sort(_float(plane[np.stack(lines), np.stack(columns)]), axis=0)
    return ordered[1], ordered[-2]


def _everywhere(plane: np.ndarray, lines: slice) -> tuple[np.ndarray, np.ndarray]:
    """`_neighbours` of every pixel of these lines, (lines, x): the same numbers, without sorting eight of each."""
    height, width = plane.shape
    near = np.pad(np.arange(height), 1, mode="reflect")[lines.start : lines.stop + 2]
    wide = np.pad(_float(plane[near]), ((0, 0), (1, 1)), mode="reflect")
    size = lines.stop - lines.start
    around = [wide[dy : dy + size, dx : dx + width] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    lowest, highest = np.minimum(*around[:2]), np.maximum(*around[:2])
    darkest, brightest = highest.copy(), lowest.copy()  # the second of either, of the neighbours seen so far
    for pixel in around[2:]:
        np.minimum(darkest, np.maximum(lowest, pixel), out=darkest)
        np.minimum(lowest, pixel, out=lowest)
        np.maximum(brightest, np.minimum(highest, pixel), out=brightest)
        np.maximum(highest, pixel, out=highest)
    return darkest, brightest


def _steps(plane: np.ndarray, least: float) -> np.ndarray:
    """Which pixels differ by more than ``least`` from one of those beside them."""
    steep = np.abs(np.diff(plane, axis=1)) > least
    found = np.zeros(plane.shape, bool)
    found[:, 1:] = steep
    found[:, :-1] |= steep
    return found


def _float(pixels: np.ndarray) -> np.ndarray:
    """Float32 where that holds every grey value, else float64."""
    return pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64)
