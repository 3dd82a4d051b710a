"""Noisy frames for training: from images and settings to statistics, train/validation split, random crops.

The batch of step *t* is a pure function of (seed, t): a resumed run, or a run on other hardware, sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cosdd import config, images, lazy, outliers
from cosdd.axes import Image
from cosdd.errors import InputError
from cosdd.inspection import FEW_PIXELS, Inspection, inspect_image
from cosdd.lazy import Pixels
from cosdd.outliers import Outliers

DEFAULT_CROP = {1: 1024, 2: 64, 3: 32}  # pixels along each edge, by dimensions
SHORT_EDGE = 32  # pixels; an edge so short, of many images, may be the count of the images
SMALLEST_EDGE = 12  # pixels; less holds no structure to tell from noise
ENOUGH_FRAMES = 10  # to hold some out for validation
MUCH_CLIPPED = 0.01
ENOUGH_PIXELS = 1 << 28  # for a mean and a standard deviation
LOOKED_AT = 5  # images whose noise is inspected


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
        """The inverse of ``normalise``, float32; also right for averages of normalised images."""
        mean, std = self._shaped(pixels)
        return _float32(pixels, lambda part: part * std + mean)

    def restore_std(self, pixels: np.ndarray) -> np.ndarray:
        """A standard deviation back in grey values, float32."""
        std = self._shaped(pixels)[1]
        return _float32(pixels, lambda part: part * std)

    def smallest_sigma(self) -> float:
        """Floor for the noise decoder in normalised units: about what rounding to grey steps alone gives."""
        return max(1e-3, 0.3 * self.grey_step / max(self.std))

    def _shaped(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.mean), *[1] * (pixels.ndim - 2))
        return np.reshape(self.mean, shape), np.reshape(self.std, shape)


def _float32(pixels: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Compute pixel by pixel in float64, of large images a part at a time; (n, c, *space) in, float32 out."""
    result = np.empty(pixels.shape, np.float32)
    step = max(1, lazy.BLOCK_BYTES // max(1, 8 * pixels[:, :, :1].size))
    for start in range(0, pixels.shape[2], step):
        part = pixels[:, :, start : start + step].astype(np.float64)
        result[:, :, start : start + step] = work(part)
    return result


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
        rng = np.random.default_rng((seed, 2, step))
        return self._crops(rng, self.train, count, edges, flips)

    def validation_crops(self, seed: int, count: int, edges: tuple[int, ...]) -> np.ndarray:
        """The same crops (count, c, *edges) every time, from held-out frames where there are any; never flipped."""
        rng = np.random.default_rng((seed, 3))
        return self._crops(rng, self.validation or self.train, count, edges, "")

    def held_out(self, most: int, edges: tuple[int, ...]) -> Iterator[np.ndarray]:
        """A normalised crop (c, *space) of each held-out frame, or of so many of them, never flipped; NaN as above.

        As large as ``edges``, or as the frame where that is smaller.
        """
        rng = np.random.default_rng(0)
        for a, i in self.validation[:: max(1, -(-len(self.validation) // most))]:
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

    def _crops(
        self,
        rng: np.random.Generator,
        frames: Sequence[tuple[int, int]],
        count: int,
        edges: tuple[int, ...],
        flips: str,
    ) -> np.ndarray:
        pixels = np.array([np.prod(self.arrays[a].shape[2:], dtype=float) for a, _ in frames])
        chosen = rng.choice(len(frames), size=count, p=pixels / pixels.sum())
        letters = "zyx"[-len(edges) :]
        found = [_crop(rng, self.arrays[a], i, edges) for a, i in (frames[index] for index in chosen)]
        # Filled up by mirror images, rows would know the noise of others.
        crops = np.full((count, len(self.statistics.mean), *edges), np.nan, np.float32)
        for crop, pixels in zip(crops, found, strict=True):
            inside = (slice(None), *map(slice, pixels.shape[1:]))
            crop[inside] = normalise(pixels[None], self.statistics, self.outliers)[0]
            flipped = [1 + axis for axis, letter in enumerate(letters) if letter in flips and rng.random() < 0.5]
            crop[...] = np.flip(crop, tuple(flipped)).copy()
        return crops


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
    starts = [int(rng.integers(max(size - edge, 0) + 1)) for size, edge in zip(array.shape[2:], edges, strict=True)]
    window = (slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
    return array[(frame, slice(None), *window)]


@dataclass(frozen=True)
class Ready:
    """All that training needs, and what was understood on the way."""

    settings: config.Config
    frames: Frames
    images: tuple[Image, ...]
    inspection: Inspection | None  # the clearest evidence for the noise axis, where it was measured
    notes: tuple[str, ...] = ()  # what about the images speaks against a good result
    inspected: str = ""  # the image that gave that evidence


def prepare(
    sources: Sequence[np.ndarray | Image | str | Path],
    axes: str | None,
    noise_axis: str,
    preset: str,
    *layers: Mapping[str, Any],
) -> Ready:
    """Read the images, find out what the settings leave open (dimensions, channels, noise axis), split the frames.

    Raises InputError, in one line, for images or settings at fault.
    """
    read = gather(sources, axes)
    given = config.joined(preset, *layers)["model"]
    settings = config.build(preset, *layers, {"model": {"noise_axis": "none"}})  # the axis is known further down
    known = ("auto", *get_args(config.NoiseAxis))
    noise_axis = given.get("noise_axis", "auto") if noise_axis == "auto" else noise_axis
    if noise_axis not in known:
        raise InputError(f"noise axis {noise_axis!r} is unknown: choose one of {', '.join(known)}")

    flat = all("Y" not in image.axes for image in read)
    dimensions = given.get("dimensions", 3 if noise_axis == "z" else 1 if flat else 2)
    spatial = images.SPATIAL[dimensions]
    for image in read:
        missing = [axis for axis in spatial if axis not in image.axes]
        if missing:
            raise InputError(
                f"{_name(image)}: axes {image.axes}, but {dimensions}-D training needs {spatial}: "
                f"axis {missing[0]} is missing (say which is which with --axes)"
            )
        sizes = [image.data.shape[image.axes.index(axis)] for axis in spatial]
        if min(sizes) < SMALLEST_EDGE:
            raise InputError(
                f"{_name(image)}: {' x '.join(map(str, sizes))} pixels ({spatial}), expected at least "
                f"{SMALLEST_EDGE} along each axis: too small to learn from"
            )
    if noise_axis not in ("auto", "none") and noise_axis.upper() not in spatial:
        raise InputError(f"noise axis {noise_axis} is not one of the image's axes in space, {spatial}")

    inspection, inspected, doubts = None, "", tuple[str, ...]()
    if noise_axis == "auto":
        seen = _inspect(read, spatial)
        image, inspection = _clearest(seen)
        noise_axis, inspected, doubts = inspection.axis, _name(image), _odd_ones(seen, inspection)
    else:
        try:
            seen = _inspect(read, "YX")
        except InputError:  # too small to tell, or without rows and columns
            seen = []
    arrays = [images.to_samples(image, spatial) for image in read]
    channels = arrays[0].shape[1]
    for image, array in zip(read, arrays, strict=True):
        if array.shape[1] != channels:
            raise InputError(
                f"{_name(image)}: {array.shape[1]} channel(s), but {_name(read[0])} has {channels}: "
                "train on images of one kind"
            )
    method = settings.method
    if method == "auto":  # a blind row has to be told from other rows, which 1-D images do not have
        method = "cosdd" if dimensions == 1 else "blind-row"
    found = {"dimensions": dimensions, "channels": channels, "noise_axis": noise_axis}
    settings = config.build(preset, *layers, {"method": method, "model": found})
    frames = Frames.split(arrays, settings.train.validation, settings.train.seed, settings.train.outliers)
    notes = doubts + _doubts(arrays, noise_axis, read, seen) + _left_out(frames)
    if axes is not None:
        notes = _odd_axes(read[0], spatial) + notes
    return Ready(settings, frames, tuple(read), inspection, notes, inspected)


def _inspect(read: Sequence[Image], spatial: str) -> list[tuple[Image, Inspection]]:
    """Some of the images, from the first to the last, and what each says about its noise.

    Raises InputError where none says anything.
    """
    seen, silent = [], []
    for index in np.linspace(0, len(read) - 1, min(len(read), LOOKED_AT)).round().astype(int):
        try:
            seen.append((read[index], inspect_image(read[index], spatial)))
        except InputError as error:
            silent.append(error)
    if not seen:
        raise silent[0]
    return seen


def _clearest(seen: Sequence[tuple[Image, Inspection]]) -> tuple[Image, Inspection]:
    """The one with the most evidence for the axis for which, of all images together, there is the most.

    White noise is no evidence against an axis: to take one where there is none does no harm.
    """
    along = [(image, found) for image, found in seen if found.axis != "none"]
    if not along:
        return seen[0]
    total = dict.fromkeys((found.axis for _, found in along), 0.0)
    for _, found in along:
        total[found.axis] += found.evidence.significance[found.axis]
    axis = max(total, key=lambda axis: total[axis])
    return max((pair for pair in along if pair[1].axis == axis), key=lambda pair: pair[1].evidence.significance[axis])


def _odd_ones(seen: Sequence[tuple[Image, Inspection]], clearest: Inspection) -> tuple[str, ...]:
    """The images whose noise has another axis than the one that is taken, or none for sure."""
    axis = clearest.axis

    def differs(found: Inspection) -> bool:
        if found.axis != "none" or axis == "none":
            return found.axis != axis
        # A small image may show no correlation and yet have it.
        lags = min(len(i.autocorrelation[axis]) for i in (found, clearest))
        here, there = (np.array(i.autocorrelation[axis][:lags]) for i in (found, clearest))
        lag = int(np.argmax(np.abs(there)))
        return abs(here - there)[lag] > found.interval[axis][lag] + clearest.interval[axis][lag]

    others = [f"{_name(image)} ({found.axis})" for image, found in seen if differs(found)]
    if not others:
        return ()
    return (
        f"noise axis {axis} is taken, for which the most speaks, but not all of the {len(seen)} images looked at have "
        f"it: {', '.join(others)}. Train on images of one kind, or say it with --noise-axis",
    )


def _odd_axes(image: Image, spatial: str) -> tuple[str, ...]:
    """A doubt about axes that a user gave, where the images are as small as their number is large."""
    lengths = dict(zip(image.axes, image.data.shape, strict=True))
    edge = min(spatial, key=lambda axis: lengths[axis])
    count = max((axis for axis in image.axes if axis not in "C" + spatial), key=lambda axis: lengths[axis], default="")
    if not count or lengths[edge] >= SHORT_EDGE or lengths[count] < 2 * lengths[edge]:
        return ()
    return (
        f"--axes {image.axes} makes {edge} {lengths[edge]} pixels long and {count} a count of {lengths[count]} "
        f"separate images: if it is the other way round, swap {edge} and {count} in --axes",
    )


def _left_out(frames: Frames) -> tuple[str, ...]:
    """What share of the pixels is not trusted, where it is worth a word."""
    if frames.outliers is None:
        return ()
    share = frames.outliers.share(pieces(frames.arrays, 1 << 20))
    if share < outliers.WORTH_A_WORD:
        return ()
    return (
        f"{share:.3%} of the pixels stand out from all their neighbours (hot or dead pixels, cosmic rays): nothing is "
        "learned from them, and denoising replaces them; --set train.outliers=false keeps them",
    )


def _doubts(
    arrays: Sequence[Pixels], noise_axis: str, read: Sequence[Image], seen: Sequence[tuple[Image, Inspection]]
) -> tuple[str, ...]:
    """What a user should know before spending the time: each says what to do."""
    notes = []
    pixels = sum(array.size for array in arrays)
    if pixels < FEW_PIXELS:
        notes.append(f"only {pixels:,} pixels: little to learn from; give more images of the same kind")
    if any(i.axes.endswith("YXC") and i.data.shape[-1] == 3 and i.data.dtype.kind == "u" for i in read):
        notes.append(
            "colour pixels: where a camera has one filter per pixel, two colours of each were interpolated, and their "
            "noise is correlated along both axes, which stays in the image: use the raw data, one image per filter"
        )
    if not seen:
        return tuple(notes)

    def told_by(image: Image) -> str:
        return f"{_name(image)}: " if len(read) > 1 else ""

    _, clearest = _clearest(seen)
    if clearest.axis not in ("none", noise_axis) and noise_axis != "z":  # z was not looked at
        notes.append(
            f"the noise axis is given as {noise_axis}, but the images say: {clearest.verdict}. With the wrong axis "
            f"noise stays in the image: try --noise-axis {clearest.axis}"
        )
    if clearest.axis == "none" and noise_axis in ("x", "y"):
        notes.append(
            f"the noise looks white: noise axis {noise_axis} does no harm, but where it really is white, --noise-axis "
            "none is as good, and so is any denoiser for independent pixels"
        )
    if along_both := [told_by(image) + found.verdict for image, found in seen if "both axes" in found.verdict]:
        notes.append(along_both[0])
    image, saturated = max(((i, found.evidence.saturated) for i, found in seen), key=lambda pair: pair[1])
    if saturated > MUCH_CLIPPED:
        notes.append(
            f"{told_by(image)}{saturated:.1%} of the pixels are saturated: their noise is cut off, and bright parts "
            "will come out too dark; leave such images out, or record with less light"
        )
    image, cut_off = max(((i, found.evidence.cut_off) for i, found in seen), key=lambda pair: pair[1])
    if cut_off > MUCH_CLIPPED:
        notes.append(
            f"{told_by(image)}{cut_off:.1%} of the pixels have the lowest value, and hardly any the next: if a "
            "background was subtracted and cut off there, noise no longer averages to zero and dark parts will come "
            "out too bright: use the images as they were before. Zeros between single photons do no harm; crop empty "
            "borders"
        )
    return tuple(notes)


def gather(sources: Sequence[np.ndarray | Image | str | Path], axes: str | None) -> list[Image]:
    """Images from arrays, Images, files, folders and glob patterns; each checked for pixels that cannot be used."""
    found: list[Image] = []
    for source in sources:
        if isinstance(source, Image):
            found.append(source)
        elif isinstance(source, str | Path):
            found += [images.read(path, axes) for path in images.find([source])]
        else:
            found.append(images.from_array(np.asarray(source), axes))
    for image in found:
        images.check(image)
    return found


def _name(image: Image) -> str:
    return str(image.path or "array")
