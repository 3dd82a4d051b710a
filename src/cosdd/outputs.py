"""Denoised and generated frames -> files: names, dtype, and the promise that nothing is overwritten or half-written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from cosdd import images
from cosdd.config import InputError
from cosdd.denoise import Result
from cosdd.generation import Generated
from cosdd.images import Image

FORMATS = ("same", "tif", "ome.tif", "ome.zarr", "npy")


@dataclass(frozen=True)
class Wanted:
    """Which files are asked for beside the mean, and in which dtype ("float32", or "same" as integer input).

    format: the ending of the files, one of `FORMATS`; "same" is that of the input.
    """

    std: bool = False
    samples: int = 0
    dtype: str = "float32"
    format: str = "same"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        if self.format not in FORMATS:
            raise InputError(f"--format {self.format}: expected {', '.join(FORMATS)}")

    def suffixes(self) -> list[str]:
        """Endings of the files' names: "" is the mean."""
        return ["", *(["_std"] if self.std else []), *[f"_sample{i + 1}" for i in range(self.samples)]]

    def path(self, source: Path, folder: Path, suffix: str) -> Path:
        """Name of a result for an input."""
        return images.output_path(source, folder, suffix, None if self.format == "same" else f".{self.format}")

    def frames(self, part: Result) -> Iterator[tuple[str, np.ndarray]]:
        """What goes into which file, by its ending."""
        yield "", part.mean
        if self.std and part.std is not None:
            yield "_std", part.std
        if self.samples and part.samples is not None:
            yield from ((f"_sample{i + 1}", part.samples[i]) for i in range(self.samples))


@dataclass(frozen=True)
class WantedVersions:
    """The files of noisy versions of an image: its own name, or numbered; with ``pair`` the clean image beside it."""

    count: int = 1
    pair: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)

    def suffixes(self) -> list[str]:
        """Endings of the files' names."""
        if self.pair:
            return ["_clean", "_noisy"]
        return [""] if self.count == 1 else [f"_{i + 1}" for i in range(self.count)]

    def path(self, source: Path, folder: Path, suffix: str) -> Path:
        """Name of a result for an input."""
        return images.output_path(source, folder, suffix)

    def frames(self, part: Generated) -> Iterator[tuple[str, np.ndarray]]:
        """What goes into which file, by its ending."""
        yield from zip(self.suffixes(), [part.clean, *part.noisy] if self.pair else part.noisy, strict=True)


def _check_dtype(dtype: str) -> None:
    if dtype not in ("float32", "same"):
        raise InputError(f"--dtype {dtype}: expected float32 or same")


def refuse_collisions(paths: Sequence[Path], folder: Path, wanted: Wanted | WantedVersions, overwrite: bool) -> None:
    """Raise InputError before any work where an output exists, is an input, or is the output of two inputs."""
    taken: dict[Path, Path] = {}
    inputs = {path.resolve() for path in paths}
    for path in paths:
        for suffix in wanted.suffixes():
            target = wanted.path(path, folder, suffix)
            place = target.resolve()  # an image in a store is a folder inside a folder
            if inputs & {place, *place.parents} or any(place in path.parents for path in inputs):
                raise InputError(f"{target}: the output would replace the input: choose another folder with -o")
            if target in taken:
                raise InputError(f"{path} and {taken[target]} would both be written to {target}: denoise them apart")
            if target.exists() and not overwrite:
                raise InputError(f"{target}: exists already: choose another folder with -o, or add --overwrite")
            images.refuse_folder(target)
            taken[target] = path


def names(paths: Sequence[Path], folder: Path, wanted: Wanted | WantedVersions) -> list[str]:
    """Names of all results of these inputs."""
    return [wanted.path(path, folder, suffix).name for path in paths for suffix in wanted.suffixes()]


def done(path: Path, folder: Path, wanted: Wanted | WantedVersions) -> bool:
    """Are all results of this input there? Each appeared complete."""
    return all(wanted.path(path, folder, suffix).exists() for suffix in wanted.suffixes())


def write_all(
    parts: Iterator[Result | float] | Iterator[Generated | float],
    image: Image,
    path: Path,
    folder: Path,
    wanted: Wanted | WantedVersions,
    overwrite: bool,
    show: Callable[[float], None],
) -> list[str]:
    """Write the files of one image while its frames arrive. Returns a line for each file.

    Memory holds a frame, however many there are: frames wait for the last of them in nameless files on the disk
    they will be written to, which vanish by themselves, also after a kill.
    """
    for suffix in wanted.suffixes():
        images.refuse_format(wanted.path(path, folder, suffix), image.axes, _kind(image, wanted, suffix))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            waiting: dict[str, _Waiting] = {}
            for suffix in wanted.suffixes():
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                waiting[suffix] = _Waiting(_kind(image, wanted, suffix), file)
            for part in parts:
                if isinstance(part, float):
                    show(part)
                    continue
                for suffix, frame in wanted.frames(part):  # type: ignore[arg-type]  # what was wanted is what comes
                    waiting[suffix].add(frame)
            lines = []
            for suffix, frames in waiting.items():
                spatial = "ZYX"[-(len(frames.shape) - 1) :]
                target = wanted.path(path, folder, suffix)
                images.write(target, images.from_samples(frames.all(), image, spatial), image, overwrite)
                remark = "" if frames.kind.kind == "f" else f", rounded, {frames.clipped} pixel(s) clipped"
                lines.append(f"{target}: {frames.kind}{remark}")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}): choose another with -o") from None
    return lines


def _kind(image: Image, wanted: Wanted | WantedVersions, suffix: str) -> np.dtype:
    """Dtype of a file: float32, or the integer type of the input where that is asked for; never for a spread."""
    keep = wanted.dtype == "same" and image.data.dtype.kind != "f" and suffix != "_std"
    return image.data.dtype.newbyteorder("=") if keep else np.dtype(np.float32)


class _Waiting:
    """Frames (c, *space) in the order in which they came, on disk until all are there."""

    def __init__(self, kind: np.dtype, file: IO[bytes]):
        self.kind, self.clipped, self.count = kind, 0, 0
        self.shape: tuple[int, ...] = ()
        self.file = file

    def add(self, frame: np.ndarray) -> None:
        self.shape, self.count = frame.shape, self.count + 1
        if self.kind.kind != "f":
            limits = np.iinfo(self.kind)
            frame = np.rint(frame.astype(np.float64))  # float32 cannot hold the limits of 32-bit integers
            self.clipped += int(np.count_nonzero((frame < limits.min) | (frame > limits.max)))
            highest = float(limits.max)
            if highest > limits.max:  # 2^64 - 1 is no float64, and the next one would wrap around to 0
                highest = float(np.nextafter(highest, 0))
            frame = np.clip(frame, limits.min, highest)
        self.file.write(np.ascontiguousarray(frame, dtype=self.kind).data)

    def all(self) -> np.ndarray:
        """(n, c, *space), still on disk."""
        self.file.flush()
        return np.memmap(self.file, self.kind, "r", shape=(self.count, *self.shape))
