"""Denoised and generated frames -> files: names, dtype, and the promise that nothing is overwritten or half-written."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cosdd import errors, images, recipe, unfinished, writing
from cosdd.axes import Image
from cosdd.denoise import Result
from cosdd.errors import InputError
from cosdd.generation import Generated
from cosdd.recipe import Recipe
from cosdd.unfinished import Frame, Make, Unfinished

Fill = Callable[[Unfinished], Iterator[float]]  # makes what is missing, and yields the share done
MOST_VERSIONS = 10_000  # of a file
_AGAIN = "give the same command with --resume"
_TOO_MANY = (errno.EAGAIN, errno.EMFILE, errno.ENFILE)  # processes, or open files
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
        if self.count > MOST_VERSIONS and not self.pair:
            raise InputError(f"--count {self.count}: each is a file of its own, expected at most {MOST_VERSIONS:,}")

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


def refuse_collisions(
    paths: Sequence[Path],
    folder: Path,
    wanted: Wanted | WantedVersions,
    overwrite: bool,
    axes: str | None = None,
) -> None:
    """Raise InputError before any work where an output exists, is an input, or is the output of two inputs.

    Of an input that cannot be read there will be no output.
    """
    taken: dict[Path, Path] = {}
    inputs = {writing.real(path) for path in paths}
    for path in paths:
        for suffix in wanted.suffixes():
            target = wanted.path(path, folder, suffix)
            place = writing.real(target)  # an image in a store is a folder inside a folder
            if inputs & {place, *place.parents} or any(place in path.parents for path in inputs):
                raise InputError(f"{target}: the output would replace the input: choose another folder with -o")
            if target in taken and not _readable(path, axes):
                continue
            if target in taken and _readable(taken[target], axes):
                raise InputError(f"{path} and {taken[target]} would both be written to {target}: denoise them apart")
            try:
                there = target.exists()
            except OSError as error:  # too long a name with its suffix, for one
                raise writing.unwritable(target, error) from error
            if there and not overwrite:
                raise InputError(
                    f"{target}: exists already: choose another folder with -o, or add --resume or --overwrite"
                )
            images.refuse_folder(target)
            taken[target] = path


def _readable(path: Path, axes: str | None) -> bool:
    try:
        images.read(path, axes)
    except InputError:
        return False
    return True


def names(paths: Sequence[Path], folder: Path, wanted: Wanted | WantedVersions) -> list[str]:
    """Names of all results of these inputs."""
    return [wanted.path(path, folder, suffix).name for path in paths for suffix in wanted.suffixes()]


def left(
    paths: Sequence[Path],
    folder: Path,
    wanted: Wanted | WantedVersions,
    recipe_for: Callable[[Path], Recipe],
    overwrite: bool,
) -> list[Path]:
    """The inputs of which not all results are there as they are asked for; each result appeared complete.

    Raises InputError where one was made or begun otherwise, or does not say how, unless it may be overwritten.
    """
    todo = []
    for path in paths:
        try:
            asked, finished = recipe_for(path), True
        except InputError:  # cannot be read: said in its turn, when the others are done
            todo.append(path)
            continue
        targets = [wanted.path(path, folder, suffix) for suffix in wanted.suffixes()]
        for target in targets:
            made = recipe.of(target) if target.exists() else None
            reason = None if made is None else asked.difference(made)
            finished = finished and made is not None and reason is None
            if target.exists() and (made is None or reason) and not overwrite:
                how = f"was made with {reason}" if made else "does not say how it was made"
                raise InputError(
                    f"{target}: {how}: resume with the settings it was made with, choose another folder with -o, "
                    "or add --overwrite"
                )
        if finished:
            unfinished.clear(folder, targets[0].name)
            continue
        if not overwrite:
            unfinished.refuse_other(folder, targets[0].name, asked, wanted.suffixes())
        todo.append(path)
    return todo


def by_name(
    parts: Iterator[Result | float] | Iterator[Generated | float], wanted: Wanted | WantedVersions
) -> Iterator[Frame | float]:
    """What goes into which file, frame by frame, and the share done."""
    for part in parts:
        if isinstance(part, float):
            yield part
            continue
        frame = dict(wanted.frames(part))  # type: ignore[arg-type]  # what was wanted
        yield frame | {unfinished.TAKEN: np.array(part.taken[0])} if isinstance(part, Result) else frame


def here(make: Make) -> Fill:
    """What is missing is made in this process."""
    return lambda work: work.fill(make, work.missing())


def write_all(
    fill: Fill,
    image: Image,
    spatial: str,
    path: Path,
    folder: Path,
    wanted: Wanted | WantedVersions,
    asked: Recipe,
    show: Callable[[float], None],
    overwrite: bool = False,
    anew: bool = False,
) -> list[str]:
    """Write the files of one image: frames of the axes ``spatial``, as `fill` makes them.

    Returns a line for each file, and what is to be noted.

    Memory holds a frame, however many there are: they wait for the last of them on the disk they will be written to,
    and what is there when the process ends is not made again, unless ``anew``.
    """
    kinds = {suffix: _kind(image, wanted, suffix) for suffix in wanted.suffixes()}
    targets = {suffix: wanted.path(path, folder, suffix) for suffix in kinds}
    for suffix, target in targets.items():
        images.refuse_format(target, image.axes, kinds[suffix])
    count = math.prod(n for a, n in zip(image.axes, image.data.shape, strict=True) if a not in "C" + spatial)
    first = next(iter(targets.values()))
    lines = []
    try:
        with unfinished.opened(folder, first.name, asked, count, kinds, anew) as work:
            with _going_on(path):
                for share in fill(work):
                    show(share)
                facts = work.facts()
            for suffix, target in targets.items():
                # a spread is no grey value
                like = replace(image, metadata=image.metadata.without_windows()) if suffix == "_std" else image
                images.write(target, work.result(suffix, image, spatial), like, overwrite, asked.text)
                rounded = kinds[suffix].kind != "f"
                remark = f", rounded, {facts.clipped[suffix]} pixel(s) clipped" if rounded else ""
                lines.append(f"{target}: {kinds[suffix]}{remark}")
                if rounded and suffix != "_std" and (contrast := facts.contrast[suffix]) < 1:
                    lines.append(
                        f"note: {target.name} varies by {contrast:.2g} grey levels (standard deviation), which "
                        "rounding loses: leave out --dtype same"
                    )
            fewest, most = facts.taken
            if most:
                lines.append(f"mean of {fewest if fewest == most else f'{fewest} to {most}'} samples")
    except writing.Full as error:
        raise writing.Full(f"{error} and {_AGAIN}") from error.__cause__
    return lines


@contextmanager
def _going_on(path: Path) -> Iterator[None]:
    """What fails in here is no result that cannot be written, which says so itself: it is the input, or a process."""
    try:
        yield
    except OSError as error:
        if errors.of_memory(error):
            raise MemoryError(str(error)) from error
        fix = _AGAIN + (" and fewer --workers" if error.errno in _TOO_MANY else "")
        raise InputError(f"{error.filename or path}: {error.strerror or error}: {fix}") from error


def _kind(image: Image, wanted: Wanted | WantedVersions, suffix: str) -> np.dtype:
    """Dtype of a file: float32, or the integer type of the input where that is asked for; never for a spread."""
    keep = wanted.dtype == "same" and image.data.dtype.kind != "f" and suffix != "_std"
    return image.data.dtype.newbyteorder("=") if keep else np.dtype(np.float32)
