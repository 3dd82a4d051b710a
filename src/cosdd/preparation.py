"""Images and settings as given -> all that training needs, and what about them speaks against a good result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cosdd import config, data, images, outliers
from cosdd.axes import Image
from cosdd.data import Frames
from cosdd.errors import InputError
from cosdd.inspection import FEW_PIXELS, Inspection, inspect_image
from cosdd.lazy import Pixels

LOOKED_AT = 5  # images whose noise is inspected
SHORT_EDGE = 32  # pixels; an edge so short, of many images, may be the count of the images


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
        if min(sizes) < data.SMALLEST_EDGE:
            raise InputError(
                f"{_name(image)}: {' x '.join(map(str, sizes))} pixels ({spatial}), expected at least "
                f"{data.SMALLEST_EDGE} along each axis: too small to learn from"
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
    if given.get("channels", channels) != channels:
        raise InputError(
            f"{_name(read[0])}: {channels} channel(s), but model.channels is given as {given['channels']}: leave that "
            "out, it is told by the images"
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
        raise InputError(f"{silent[0]}; or say the axis with --noise-axis") from None
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
        total[found.axis] += max(0.0, found.evidence.significance[found.axis])
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
    share = frames.outliers.share(data.pieces(frames.arrays, 1 << 20))
    if share < outliers.WORTH_A_WORD:
        return ()
    return (
        f"{share:.3%} {outliers.STAND_OUT}: nothing is learned from them, and denoising replaces them; "
        "--set train.outliers=false keeps them",
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
    lines = "x" if noise_axis == "none" else noise_axis
    if swings := [told_by(image) + said for image, found in seen if (said := found.swing_along(lines))]:
        notes.append(swings[0])
    for fault in ("saturated", "cut_off"):
        image, worst = max(seen, key=lambda pair: getattr(pair[1].evidence, fault))
        if fault in worst.remarks:
            notes.append(told_by(image) + worst.remarks[fault])
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
            found.append(images.from_array(source, axes))
    for image in found:
        images.check(image)
    return found


def _name(image: Image) -> str:
    return str(image.path or "array")
