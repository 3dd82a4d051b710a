"""A simulation: clean files, made noisy by a recipe of `simulate`, and their clean partners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosdd import images, lazy, simulate, writing
from cosdd.errors import InputError, about
from cosdd.lazy import Pixels

SUMMARY = "simulation.json"
_FULL_SCALE = (1e-18, 1e18)  # grey values: no intensity is then beyond 32-bit floats


def full_scale(paths: Sequence[Path], axes: str | None) -> float:
    """The grey value that counts as 1: 255 where all files hold 8 bits, 1 where none goes beyond, else the largest."""
    found = [images.read(path, axes) for path in paths]
    for image in found:
        images.check(image, may_be_flat=True)
    if all(image.data.dtype == np.uint8 for image in found):
        return 255.0
    largest = max(float(block.max()) for image in found for _, block in lazy.blocks(image.data))
    return 1.0 if 0 < largest <= 1 else largest


def write_all(
    paths: Sequence[Path],
    folder: Path,
    recipe: str,
    given: Mapping[str, Any],
    *,
    scale: float | None = None,
    axes: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Iterator[float]:
    """Write folder/noisy/NAME and folder/clean/NAME for every file, and what was done to folder/simulation.json.

    Both are float32 in the grey values of the file: the noise is that of `scale` (`full_scale` where it is not
    given) as intensity 1. A plane is in memory at a time. Yields the share done. Raises InputError before anything
    is written where an option is at fault or a result exists.
    """
    asked = simulate.options(recipe, given)
    if seed < 0:
        raise InputError(f"seed is {seed}: at least 0 is needed")
    scale = full_scale(paths, axes) if scale is None else scale
    if not _FULL_SCALE[0] <= scale <= _FULL_SCALE[1]:
        expected = " to ".join(f"{end:g}" for end in _FULL_SCALE)
        raise InputError(f"full scale is {scale:g}, expected more than 0 ({expected}): say it with --full-scale")
    targets = [
        (images.output_path(path, folder / "noisy"), images.output_path(path, folder / "clean")) for path in paths
    ]
    if len(set(targets)) < len(paths):
        raise InputError("two of the files have one name: simulate them into folders of their own")
    for existing in (path for path in (folder / SUMMARY, *(p for pair in targets for p in pair)) if path.exists()):
        if not overwrite:
            raise InputError(f"{existing}: exists already: choose another folder with -o, or add --overwrite")
        if writing.real(existing) in map(writing.real, paths):
            raise InputError(f"{existing}: the output would replace the input: choose another folder with -o")
    # The recipe checks its options by itself, here before any file is written.
    _Partner(np.zeros((1, 1, 1, 1)), simulate.RECIPES[recipe], asked, scale, (0,)).noisy(0)
    for index, (path, (noisy, clean)) in enumerate(zip(paths, targets, strict=True)):
        image = images.read(path, axes)
        images.check(image, may_be_flat=True)
        if not {"Y", "X"} <= set(image.axes):
            raise InputError(f"{path}: axes {image.axes}, expected images with Y and X (say it with --axes)")
        partner = _Partner(images.to_samples(image, "YX"), simulate.RECIPES[recipe], asked, scale, (seed, index))
        for done, (target, read) in enumerate(((noisy, partner.noisy), (clean, partner.clean)), 1):
            frames = images.from_frames(read, partner.planes.shape[1:], np.dtype(np.float32), image, "YX")
            with about(path, target):  # recipes know no names
                images.write(target, frames, image, overwrite)
            yield (index + done / 2) / len(paths)
    summary = {"recipe": recipe, "options": asked, "full_scale": scale, "seed": seed, "files": [p.name for p in paths]}
    with writing.whole(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Partner:
    """The planes (n, c, y, x) of a clean image, each made noisy when it is asked for, and every time the same way."""

    planes: Pixels
    recipe: Callable[..., np.ndarray]
    options: Mapping[str, Any]
    scale: float
    seed: tuple[int, ...]

    def clean(self, number: int) -> np.ndarray:
        return self.planes[number].astype(np.float32)

    def noisy(self, number: int) -> np.ndarray:
        rng = np.random.default_rng((*self.seed, number))
        scale = np.float32(self.scale)
        with np.errstate(over="ignore", invalid="ignore"):
            noisy = self.recipe(self.clean(number) / scale, rng, **self.options) * scale
        if not np.isfinite(noisy).all():
            raise InputError("the noise goes beyond 32-bit floats: give the recipe smaller numbers")
        return noisy
