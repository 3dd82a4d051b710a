"""Results that are under way: their frames lie on disk until all are there, and outlive a kill.

The frames of one input are kept in a hidden folder beside its results, named after the first of them and its recipe:
who is asked for something else never finds them, not even a forgotten worker of a run that was killed. A file holds
a block of frames, one of a stack of usual length, and appears whole; nobody writes into a file of another.
"""

from __future__ import annotations

import functools
import math
import os
import re
import secrets
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosdd import images, recipe, writing
from cosdd.axes import Image
from cosdd.errors import InputError
from cosdd.lazy import Lazy
from cosdd.progress import out
from cosdd.recipe import Recipe

MOST_FILES = 10_000  # of an input; in longer stacks a file holds several frames
_RECIPE, _FRAMES, _PART = "recipe", "frames", ".part"
_FACTS = ("clipped", "contrast", "fewest", "most")  # of each block and result, in this order
_FORMAT = "2"  # of these files: a new one whenever they hold something else
TAKEN = "taken"  # in a frame, beside its results: how many samples were averaged

Frame = Mapping[str, np.ndarray]  # (c, *space) for each result, by the ending of its name; and `TAKEN`
Make = Callable[[Iterator[int]], Iterator[Frame | float]]  # frames of these numbers in order, and the share done


@dataclass(frozen=True)
class Facts:
    """clipped: pixels that did not fit into integers, by the ending of the result. contrast: largest standard deviation
    of a frame before it was rounded. taken: fewest and most samples that were averaged; 0 where none were drawn."""

    clipped: Mapping[str, int]
    contrast: Mapping[str, float]
    taken: tuple[int, int]


@dataclass(frozen=True)
class Unfinished:
    """The frames of one input that are there, and the place for the others.

    count: of the frames. kinds: dtype of each result, by the ending of its name.
    """

    folder: Path
    count: int
    kinds: Mapping[str, np.dtype]

    @property
    def step(self) -> int:
        """Frames in a block."""
        return -(-self.count // MOST_FILES)

    def frames(self, block: int) -> range:
        """The numbers of the frames of a block."""
        return range(block * self.step, min((block + 1) * self.step, self.count))

    def has(self, block: int) -> bool:
        """Is it there? A power cut may leave a file with nothing in it."""
        return zipfile.is_zipfile(self._file(block))

    def missing(self) -> list[int]:
        """The blocks that are still to be made."""
        return [block for block in range(-(-self.count // self.step)) if not self.has(block)]

    def fill(self, make: Make, blocks: Iterable[int]) -> Iterator[float]:
        """Make these blocks. A block is on disk before the next one is asked for. Yields the share done."""
        asked: deque[int] = deque()

        def numbers() -> Iterator[int]:
            for block in blocks:
                asked.extend(self.frames(block))
                yield from self.frames(block)

        made: list[Frame] = []
        for part in make(numbers()):
            if isinstance(part, float | int):
                yield part
                continue
            made.append(part)
            block = asked.popleft() // self.step
            if len(made) == len(self.frames(block)):
                self._keep(block, made)
                made = []

    def facts(self) -> Facts:
        """What was noted while the frames were made."""
        shape, kind = (len(_FACTS), len(self.kinds)), np.dtype(np.float64)
        blocks = [self._read(block, "facts", shape, kind) for block in range(-(-self.count // self.step))]
        clipped, contrast, fewest, most = np.stack(blocks, 1)
        return Facts(
            clipped=dict(zip(self.kinds, clipped.sum(0).astype(int).tolist(), strict=True)),
            contrast=dict(zip(self.kinds, contrast.max(0).tolist(), strict=True)),
            taken=(int(fewest.min()), int(most.max())),
        )

    def result(self, ending: str, image: Image, spatial: str) -> Lazy:
        """All frames of a result in the axis order of the noisy image, read where they are needed."""

        lengths, kind = dict(zip(image.axes, image.data.shape, strict=True)), self.kinds[ending]
        shape = tuple(lengths.get(axis, 1) for axis in "C" + spatial)

        @functools.lru_cache(maxsize=1)
        def block(number: int) -> np.ndarray:
            return self._read(number, _FRAMES + ending, (len(self.frames(number)), *shape), kind)

        def read(index: int) -> np.ndarray:
            return block(index // self.step)[index % self.step]

        return images.from_frames(read, shape, kind, image, spatial)

    def _keep(self, block: int, made: list[Frame]) -> None:
        arrays, clipped, contrast = {}, [], []
        for ending, kind in self.kinds.items():
            fitted = [_fitted(frame[ending], kind) for frame in made]
            frames = [frame for frame, _ in fitted]
            arrays[_FRAMES + ending] = np.stack(frames) if len(frames) > 1 else frames[0][None]  # no copy
            clipped.append(sum(count for _, count in fitted))
            contrast.append(max(float(frame[ending].std()) for frame in made))
        taken = [int(frame.get(TAKEN, 0)) for frame in made]
        same = np.ones(len(self.kinds))
        facts = np.stack([np.array(clipped), np.array(contrast), same * min(taken), same * max(taken)])
        part = self.folder / f"{secrets.token_hex(8)}{_PART}"
        try:
            with part.open("xb") as file:
                np.savez(file, allow_pickle=False, facts=facts.astype(np.float64), **arrays)
            os.replace(part, self._file(block))
        except BaseException as error:
            with suppress(OSError):
                part.unlink()  # or a full disk would stay full
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):  # a disk not seen: `workers`
                raise writing.unwritable(self.folder.parent, error) from error
            raise

    def _read(self, block: int, name: str, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        """An array of a block. What its file says of its size is compared before memory is taken for it."""
        path, size = self._file(block), math.prod(shape) * kind.itemsize
        try:
            with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as array:
                np.lib.format.read_magic(array)
                said = np.lib.format.read_array_header_1_0(array)
                pixels = array.read(size + 1)  # to its end, where the checksum is looked at
            if said != (shape, False, kind) or len(pixels) != size:
                raise ValueError(f"{said} instead of {shape}")
            return np.frombuffer(pixels, kind).reshape(shape)
        except Exception as error:  # of a damaged file nearly every kind
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise
            with suppress(OSError):
                path.unlink()
            raise InputError(f"{path}: was damaged: give the same command with --resume to make it anew") from error

    def _file(self, block: int) -> Path:
        return self.folder / f"{block:06}.npz"


def _fitted(frame: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, int]:
    """The frame in this dtype, integers rounded and clipped, never wrapped; and how many pixels were clipped."""
    clipped = 0
    if kind.kind != "f":
        limits = np.iinfo(kind)
        frame = np.rint(frame.astype(np.float64))  # float32 cannot hold the limits of 32-bit integers
        clipped = int(np.count_nonzero((frame < limits.min) | (frame > limits.max)))
        highest = float(limits.max)
        if highest > limits.max:  # 2^64 - 1 is no float64, and the next one would wrap around to 0
            highest = float(np.nextafter(highest, 0))
        frame = np.clip(frame, limits.min, highest)
    return np.ascontiguousarray(frame, dtype=kind), clipped


@contextmanager
def opened(
    folder: Path, name: str, asked: Recipe, count: int, kinds: Mapping[str, np.dtype], anew: bool
) -> Iterator[Unfinished]:
    """The frames of the input whose first result has this name, for as long as the body runs; then they are removed.

    Kept for the same command again are those of a body that was stopped, if the input is not at fault. What was begun
    otherwise is removed, and with ``anew`` everything. The name is claimed (`writing.claim`): what is half-written
    here was left by a kill. Raises InputError where this folder, which is made, cannot be written.
    """
    asked = _with_results(asked, kinds)
    # Workers elsewhere start in folders of their own.
    work = Unfinished(folder.absolute() / _name(name, asked), count, kinds)
    try:
        for place, begun in _begun(folder, name):
            if anew or place.name != _name(name, asked):
                if not anew:
                    out.print(f"note: starting anew: unfinished work {_otherwise(asked, begun)}")
                _remove(place)
        work.folder.mkdir(parents=True, exist_ok=True)
        for part in work.folder.glob(f"*{_PART}"):
            part.unlink(missing_ok=True)
        (work.folder / _RECIPE).write_text(asked.text, encoding="utf-8")
    except OSError as error:
        raise writing.unwritable(folder, error) from error
    there = count - sum(len(work.frames(block)) for block in work.missing())
    if there:
        out.print(f"going on: {there} of {count} frame(s) are there already")
    try:
        yield work
    except BaseException as error:
        at_fault = isinstance(error, InputError) and error.__cause__ is None  # with a cause, it is the disk, or memory
        there = count - sum(len(work.frames(block)) for block in work.missing())
        if at_fault or not there:
            _remove(work.folder)
            if isinstance(error, KeyboardInterrupt):
                out.print(f"none of {count} frame(s) was finished yet: nothing is kept")
        else:
            out.print(f"{there} of {count} frame(s) are kept: to go on, give the same command with --resume")
        raise
    _remove(work.folder)


def refuse_other(folder: Path, name: str, asked: Recipe, kinds: Iterable[str]) -> None:
    """Raise InputError where the results of this input were begun otherwise."""
    asked = _with_results(asked, kinds)
    for place, begun in _begun(folder, name):
        if place.name != _name(name, asked):
            raise InputError(
                f"{folder / name}: unfinished work {_otherwise(asked, begun)}: resume with the settings it was begun "
                "with, choose another folder with -o, or add --overwrite"
            )


def clear(folder: Path, name: str) -> None:
    """Remove what a run left that was killed when it had just finished."""
    for place, _ in _begun(folder, name):
        _remove(place)


def _with_results(asked: Recipe, kinds: Iterable[str]) -> Recipe:
    return Recipe(dict(asked.values) | {"results": " ".join(kind or "mean" for kind in kinds), "frames": _FORMAT})


def _name(name: str, asked: Recipe) -> str:
    return f".{writing.brief(name)}.{asked.digest}.frames"


def _begun(folder: Path, name: str) -> list[tuple[Path, Recipe | None]]:
    """The folders of unfinished work under this name, and their recipes."""
    found = []
    ours = re.compile(rf"\.{re.escape(writing.brief(name))}\.[0-9a-f]{{12}}\.frames")
    for place in folder.iterdir() if folder.is_dir() else ():
        if ours.fullmatch(place.name) and place.is_dir() and not place.is_symlink():
            text = ""
            with suppress(OSError, UnicodeDecodeError):
                text = (place / _RECIPE).read_text(encoding="utf-8")
            found.append((place, recipe.parse(text)))
    return found


def _otherwise(asked: Recipe, begun: Recipe | None) -> str:
    if begun is None:
        return "does not say what it is"
    return f"was begun with {asked.difference(begun) or 'another version of cosdd'}"


def _remove(place: Path) -> None:
    """The folder and the files in it; a worker that was just writing may have to be asked twice."""
    for _ in range(2):
        with suppress(OSError):
            for entry in place.iterdir():
                entry.unlink(missing_ok=True)
            place.rmdir()
            return
