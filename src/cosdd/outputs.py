"""Denoised frames -> files: names, dtype, and the promise that nothing is overwritten or half-written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosdd import images
from cosdd.config import InputError
from cosdd.denoise import Result
from cosdd.images import Image


@dataclass(frozen=True)
class Wanted:
    """Which files are asked for beside the mean, and in which dtype ("float32", or "same" as integer input)."""

    std: bool = False
    samples: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "same"):
            raise InputError(f"--dtype {self.dtype}: expected float32 or same")

    def suffixes(self) -> list[str]:
        """Endings of the files' names: "" is the mean."""
        return ["", *(["_std"] if self.std else []), *[f"_sample{i + 1}" for i in range(self.samples)]]


def refuse_collisions(paths: Sequence[Path], folder: Path, wanted: Wanted, overwrite: bool) -> None:
    """Raise InputError before any work where an output exists, is an input, or is the output of two inputs."""
    taken: dict[Path, Path] = {}
    inputs = {path.resolve() for path in paths}
    for path in paths:
        for suffix in wanted.suffixes():
            target = images.output_path(path, folder, suffix)
            if target.resolve() in inputs:
                raise InputError(f"{target}: the output would replace the input: choose another folder with -o")
            if target in taken:
                raise InputError(f"{path} and {taken[target]} would both be written to {target}: denoise them apart")
            if target.exists() and not overwrite:
                raise InputError(f"{target}: exists already: choose another folder with -o, or add --overwrite")
            taken[target] = path


def write_all(
    parts: Iterator[Result | float],
    image: Image,
    path: Path,
    folder: Path,
    wanted: Wanted,
    overwrite: bool,
    show: Callable[[float], None],
) -> list[str]:
    """Collect the frames of one image and write its files. Returns a line for each file."""
    means: list[np.ndarray] = []
    stds: list[np.ndarray] = []
    samples: list[np.ndarray] = []
    for part in parts:
        if not isinstance(part, Result):
            show(part)
            continue
        means.append(part.mean)
        if wanted.std and part.std is not None:
            stds.append(part.std)
        if part.samples is not None:
            samples.append(part.samples)
    spatial = "ZYX"[-(means[0].ndim - 1) :]
    lines = []
    for suffix in wanted.suffixes():
        if suffix == "":
            frames = np.stack(means)
        elif suffix == "_std":
            frames = np.stack(stds)
        else:
            number = int(suffix.removeprefix("_sample")) - 1
            frames = np.stack([sample[number] for sample in samples])
        pixels, remark = _converted(images.from_samples(frames, image, spatial), image, wanted, suffix)
        target = images.output_path(path, folder, suffix)
        images.write(target, pixels, image, overwrite)
        lines.append(f"{target}: {pixels.dtype}{remark}")
    return lines


def _converted(pixels: np.ndarray, image: Image, wanted: Wanted, suffix: str) -> tuple[np.ndarray, str]:
    kind = image.data.dtype
    if wanted.dtype == "float32" or kind.kind == "f" or suffix == "_std":
        return pixels, ""
    limits = np.iinfo(kind)
    rounded = np.rint(pixels.astype(np.float64))  # float32 cannot hold the limits of 32-bit integers
    outside = int(np.count_nonzero((rounded < limits.min) | (rounded > limits.max)))
    clipped = np.clip(rounded, limits.min, limits.max).astype(kind)
    return clipped, f", rounded, {outside} pixel(s) clipped"
