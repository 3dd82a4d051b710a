"""Noisy frames for training: statistics, train/validation split, random crops.

The batch of step *t* is a pure function of (seed, t): a resumed run, or a run on other hardware, sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosdd import lazy, outliers
from cosdd.errors import InputError
from cosdd.lazy import Pixels
from cosdd.outliers import Outliers

DEFAULT_CROP = {1: 1024, 2: 64, 3: 32}  # pixels along each edge, by dimensions
SMALLEST_EDGE = 12  # pixels; less holds no structure to tell from noise
ENOUGH_FRAMES = 10  # to hold some out for validation
ENOUGH_PIXELS = 1 << 28  # for a mean and a standard deviation


SENSELESS = "what the model gives is not finite: it is damaged, or was made so: train one on images of this kind"


@dataclass(frozen=True)
class Statistics:
    """What normalisation needs to know, in the grey values of the files, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey_step: float  # smallest step between grey values; 0 where they are continuous

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """(n, c, *space) in any dtype -> float32, mean 0 and standard deviation 1 per channel."""
        mean, std = self._shaped(pixels)
        # float64 until the mean is gone: float32 cannot hold a small signal on a large offset.
        return _float32(pixels, lambda part: (part - mean) / std)

    def restore(self, pixels: np.ndarray) -> np.ndarray:
        """The inverse of ``normalise``, float32; also right for averages of normalised images.

        Raises InputError where the result is not finite: only a model that makes no sense gives such pixels.
        """
        mean, std = self._shaped(pixels)
        return _sensible(_float32(pixels, lambda part: part * std + mean))

    def restore_std(self, pixels: np.ndarray) -> np.ndarray:
        """A standard deviation back in grey values, float32. Raises InputError as ``restore`` does."""
        std = self._shaped(pixels)[1]
        return _sensible(_float32(pixels, lambda part: part * std))

    def smallest_sigma(self) -> float:
        """Floor for the noise decoder in normalised units: about what rounding to grey steps alone gives."""
        return max(1e-3, 0.3 * self.grey_step / max(self.std))

    def _shaped(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.mean), *[1] * (pixels.ndim - 2))
        return np.reshape(self.mean, shape), np.reshape(self.std, shape)


def _float32(pixels: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Compute pixel by pixel in float64, of large images a part at a time; (n, c, *space) in, float32 out.

    What float32 cannot hold is infinite, without a warning: only models that make no sense give it (`_sensible`).
    """
    result = np.empty(pixels.shape, np.float32)
    step = max(1, lazy.BLOCK_BYTES // max(1, 8 * pixels[:, :, :1].size))
    for start in range(0, pixels.shape[2], step):
        part = pixels[:, :, start : start + step].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            result[:, :, start : start + step] = work(part)
    return result


def _sensible(pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise InputError(SENSELESS)
    return pixels


def measure(samples: Sequence[Pixels], known: Outliers | None = None) -> Statistics:
    """Statistics of (n, c, *space) arrays, without the outliers that are known.

    Raises InputError where a channel is constant or holds NaN or infinity.
    """
    mean, std = moments(samples, known, ENOUGH_PIXELS)
    if not np.isfinite(std).all():
        raise InputError("the images hold NaN or infinite pixels: replace them before training")
    if (std <= 0).any():
        channel = int(np.argmin(std))
        raise InputError(f"channel {channel} is constant over all images: nothing can be learned from it")
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), _grey_step(samples))


def moments(samples: Sequence[Pixels], known: Outliers | None, enough: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (n, c, *space) arrays, in grey values, streamed in float64.

    Of more than ``enough`` pixels, blocks chosen by chance, but always the same, are looked at: about so many in all.
    """
    channels = samples[0].shape[1]
    origin = (0,) * (samples[0].ndim - 2)
    shift = np.array([float(samples[0][(0, c, *origin)]) for c in range(channels)])
    share = enough / sum(array.size for array in samples)
    count, total, squares = _sums(samples, shift, known, share)
    if not count.all():  # a channel of which nothing was chosen
        count, total, squares = _sums(samples, shift, known, 1.0)
    mean = total / count
    return mean + shift, np.sqrt((squares / count - mean**2).clip(0))


def _sums(
    samples: Sequence[Pixels], shift: np.ndarray, known: Outliers | None, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, sum and sum of squares of the pixels of each channel, less its shift; of a share of all blocks."""
    count, total, squares = np.zeros_like(shift), np.zeros_like(shift), np.zeros_like(shift)
    for array in samples:
        for (_, there, *_), block in lazy.blocks(array, share):
            if known is not None:
                block = np.stack([known.of(there).without(frame) for frame in block])
            values = block.astype(np.float64) - shift[there].reshape(-1, *[1] * (block.ndim - 2))
            axes = (0, *range(2, block.ndim))
            count[there] += block[:, :1].size
            total[there] += values.sum(axes)
            squares[there] += (values**2).sum(axes)
    return count, total, squares


def _grey_step(samples: Sequence[Pixels], look_at: int = 200_000) -> float:
    """The smallest difference between grey values where values repeat (integers, also stored as floats)."""
    share = look_at // len(samples) + 1
    lines = [-(-share // math.prod(array.shape[3:])) for array in samples[:50]]
    values = [np.ravel(array[0, :, :some])[:share] for array, some in zip(samples, lines, strict=False)]
    distinct = np.unique(np.concatenate(values).astype(np.float64))
    if len(distinct) < 2 or len(distinct) > 0.5 * sum(map(len, values)):
        return 0.0
    return float(np.diff(distinct).min())


@dataclass(frozen=True)
class Place:
    """Where a crop lies, and along which axes of (c, *space) it is flipped."""

    array: int
    frame: int
    window: tuple[slice, ...]  # of the space axes
    flipped: tuple[int, ...]


@dataclass(frozen=True)
class Frames:
    """Frames of one or several files, with what is needed to cut training crops from them.

    arrays: (n, c, *space) in file dtype, perhaps still in their files; all with the same c and number of space axes.
    """

    arrays: Sequence[Pixels]
    statistics: Statistics
    train: tuple[tuple[int, int], ...]  # (array, frame) pairs
    validation: tuple[tuple[int, int], ...]  # empty where there are too few frames to hold any out
    outliers: Outliers | None = None  # what makes a pixel one; None: every pixel counts

    @staticmethod
    def split(arrays: Sequence[Pixels], share: float, seed: int, leave_out: bool = True) -> Frames:
        """Hold out ``share`` of the frames, chosen by ``seed``, where there are at least ten.

        leave_out: hot, dead and saturated pixels, wherever the images are looked at.
        """
        everything = [(a, i) for a, array in enumerate(arrays) for i in range(len(array))]
        held = min(round(share * len(everything)), len(everything) - 1) if len(everything) >= ENOUGH_FRAMES else 0
        # A permutation of indices: shuffling the images themselves is how half of them get lost (method 8.3).
        order = np.random.default_rng((seed, 1)).permutation(len(everything))
        validation = sorted(everything[i] for i in order[:held])
        train = sorted(everything[i] for i in order[held:])
        known = outliers.measure(pieces(arrays, 1 << 20)) if leave_out else None
        return Frames(arrays, measure(arrays, known), tuple(train), tuple(validation), known)

    @property
    def dimensions(self) -> int:
        return self.arrays[0].ndim - 2

    def edges(self, crop: int | None, stride: int) -> tuple[int, ...]:
        """Edges of the crops: at most ``crop`` and the largest frame, a multiple of ``stride``."""
        wanted = crop or DEFAULT_CROP[self.dimensions]
        largest = np.max([array.shape[2:] for array in self.arrays], axis=0)
        return tuple(max(stride, min(wanted, int(size)) // stride * stride) for size in largest)

    def epoch(self, edges: tuple[int, ...], batch: int) -> int:
        """Updates until every frame was visited about as often as crops fit into it."""
        crops = sum(max(1, int(np.prod(self.arrays[a].shape[2:])) // int(np.prod(edges))) for a, _ in self.train)
        return max(1, round(crops / batch))

    def batch(self, seed: int, step: int, count: int, edges: tuple[int, ...], flips: str) -> np.ndarray:
        """The normalised crops (count, c, *edges) of training step ``step``, float32.

        NaN where a pixel is missing, also all that lies outside of a frame that is smaller than a crop.

        flips: letters of the axes along which crops may be flipped, such as "y". The noise axis is none of them
        unless the model of the noise is the same read backwards; rotations would change the noise in any case.
        """
        return self._crops(self.places(seed, step, count, edges, flips), edges)

    def places(self, seed: int, step: int, count: int, edges: tuple[int, ...], flips: str) -> list[Place]:
        """Where the crops of `batch` lie."""
        return self._places(np.random.default_rng((seed, 2, step)), self.train, count, edges, flips)

    def cut(self, place: Place) -> np.ndarray:
        """The normalised pixels (c, *space) of a crop, float32, not flipped yet; NaN where one is missing."""
        array, sizes = self.arrays[place.array], self.arrays[place.array].shape[2:]
        # Whether a pixel is an outlier, its neighbours in the plane say, also those beyond the crop.
        wide = [
            slice(max(0, part.start - beyond), min(size, part.stop + beyond))
            for part, size, beyond in zip(place.window, sizes, (0, 1, 1)[-len(sizes) :], strict=True)
        ]
        pixels = normalise(array[(place.frame, slice(None), *wide)][None], self.statistics, self.outliers)[0]
        inside = (
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(place.window, wide, strict=True)
        )
        return pixels[(slice(None), *inside)]

    def validation_crops(self, seed: int, count: int, edges: tuple[int, ...]) -> np.ndarray:
        """The same crops (count, c, *edges) every time, from held-out frames where there are any; never flipped."""
        rng = np.random.default_rng((seed, 3))
        return self._crops(self._places(rng, self.validation or self.train, count, edges, ""), edges)

    def one_of_each(self, places: Sequence[tuple[int, int]], most: int, edges: tuple[int, ...]) -> Iterator[np.ndarray]:
        """A normalised crop (c, *space) of each of some frames, or of so many of them, never flipped; NaN as above.

        As large as ``edges``, or as the frame where that is smaller.
        """
        rng = np.random.default_rng(0)
        for a, i in places[:: max(1, -(-len(places) // most))]:
            yield normalise(_crop(rng, self.arrays[a], i, edges)[None], self.statistics, self.outliers)[0]

    def windows(self, pixels: int = 1 << 21) -> list[np.ndarray]:
        """Normalised pieces (c, *space) of frames from beginning to end, float32, without outliers."""
        found = pieces(self.arrays, pixels)
        if self.outliers is not None:
            found = [self.outliers.without(piece) for piece in found]
        return [self.statistics.normalise(piece[None])[0] for piece in found]

    def ceiling(self) -> tuple[float, ...]:
        """The value at which pixels saturate, for each channel, normalised; infinite where they do not."""
        if self.outliers is None:
            return (np.inf,) * len(self.statistics.mean)
        mean, std = np.array(self.statistics.mean), np.array(self.statistics.std)
        return tuple(((self.outliers.ceiling - mean) / std).tolist())

    def _crops(self, places: Sequence[Place], edges: tuple[int, ...]) -> np.ndarray:
        # Filled up by mirror images, rows would know the noise of others.
        crops = np.full((len(places), len(self.statistics.mean), *edges), np.nan, np.float32)
        for crop, place in zip(crops, places, strict=True):
            pixels = self.cut(place)
            crop[(slice(None), *map(slice, pixels.shape[1:]))] = pixels
            crop[...] = np.flip(crop, place.flipped).copy()
        return crops

    def _places(
        self,
        rng: np.random.Generator,
        frames: Sequence[tuple[int, int]],
        count: int,
        edges: tuple[int, ...],
        flips: str,
    ) -> list[Place]:
        pixels = np.array([np.prod(self.arrays[a].shape[2:], dtype=float) for a, _ in frames])
        chosen = [frames[index] for index in rng.choice(len(frames), size=count, p=pixels / pixels.sum())]
        windows = [_window(rng, self.arrays[a].shape[2:], edges) for a, _ in chosen]
        letters = list(enumerate("zyx"[-len(edges) :]))
        flipped = [
            tuple(1 + axis for axis, letter in letters if letter in flips and rng.random() < 0.5) for _ in chosen
        ]
        return [Place(a, i, window, axes) for (a, i), window, axes in zip(chosen, windows, flipped, strict=True)]


def normalise(pixels: np.ndarray, statistics: Statistics, known: Outliers | None) -> np.ndarray:
    """(n, c, *space) in grey values -> float32, mean 0 and standard deviation 1; NaN where a pixel is an outlier."""
    normalised = statistics.normalise(pixels)
    if known is not None:
        for image, result in zip(pixels, normalised, strict=True):
            result[known.mask(image)] = np.nan
    return normalised


def pieces(arrays: Sequence[Pixels], pixels: int = 1 << 21, edge: int = 256) -> list[np.ndarray]:
    """Pieces (c, *space) of the frames of arrays (n, c, *space) from beginning to end, about ``pixels`` in all."""
    everything = [(a, i) for a, array in enumerate(arrays) for i in range(len(array))]
    rng = np.random.default_rng(0)
    budget = max(1, pixels // len(everything))  # pixels to take from each frame, where all are looked at
    step = max(1, len(everything) * edge**2 // (8 * pixels))  # of very many frames, only some
    found = []
    for a, i in everything[::step]:
        space = arrays[a].shape[2:]
        longest = min(edge, max(SMALLEST_EDGE, round(pixels ** (1 / len(space)))))
        size = tuple(min(n, longest) for n in space)
        fit = int(np.prod([n // s for n, s in zip(space, size, strict=True)]))
        count = max(1, min(fit, budget * step // int(np.prod(size))))
        found += [_crop(rng, arrays[a], i, size) for _ in range(count)]
    return found


def _crop(rng: np.random.Generator, array: Pixels, frame: int, edges: tuple[int, ...]) -> np.ndarray:
    """A random crop (c, *edges) of a frame of (n, c, *space), as small as the frame where that is smaller."""
    return array[(frame, slice(None), *_window(rng, array.shape[2:], edges))]


def _window(rng: np.random.Generator, space: Sequence[int], edges: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [int(rng.integers(max(size - edge, 0) + 1)) for size, edge in zip(space, edges, strict=True)]
    return tuple(slice(start, min(start + edge, n)) for start, edge, n in zip(starts, edges, space, strict=True))
