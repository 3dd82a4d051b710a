"""Lazy: an array that stays in its file and is read where it is indexed; what a memory map is for packed chunks.

Axes are put in another order, dropped, added and merged without reading. Chunks that were read are kept in one
memory of bounded size, so that neighbouring crops do not unpack the same chunk again and again.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from cosdd.errors import AGAIN, passing, refusal

KEPT_BYTES = 256 * 2**20  # of unpacked chunks, of all files together
LARGE = 2**30  # bytes of pixels that are not mapped or loaded as one; see `in_file`
BLOCK_BYTES = 64 * 2**20  # pixels looked at together where a whole image is streamed, counted as float64

Part = int | slice | EllipsisType


class Kept:
    """Chunks that were read last, up to a number of bytes; the chunk just read always, however large."""

    def __init__(self, most: int = KEPT_BYTES):
        self.most, self.bytes = most, 0
        self._chunks: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The chunk of this name, read only where it is not here."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = read()
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.most and len(self._chunks) > 1:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes
        return chunk


_KEPT = Kept()
_NAMES = itertools.count()


class Chunks:
    """A file as a grid of chunks. read: takes the place of a chunk in the grid, returns its pixels.

    A chunk at the far border may hold more pixels than lie in the image, never fewer.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: np.dtype,
        chunk: Sequence[int],
        read: Callable[[tuple[int, ...]], np.ndarray],
        kept: Kept = _KEPT,
    ):
        self.shape, self.chunk, self.dtype = tuple(shape), tuple(chunk), np.dtype(dtype)
        self._read, self._kept, self._name = read, kept, next(_NAMES)

    def cut(self, region: Sequence[range]) -> np.ndarray:
        """The pixels at these places along each axis, each range rising."""
        result = np.empty([len(along) for along in region], self.dtype)
        grid = [range(a[0] // c, a[-1] // c + 1) for a, c in zip(region, self.chunk, strict=True)]
        for place in itertools.product(*grid):
            there, here = [], []
            for along, index, size in zip(region, place, self.chunk, strict=True):
                first = -((along.start - index * size) // along.step) if along.start < index * size else 0
                last = min(len(along), -((along.start - (index + 1) * size) // along.step))
                start = along.start + first * along.step - index * size
                there.append(slice(first, last))
                here.append(slice(start, start + (last - first) * along.step, along.step))
            if all(part.start < part.stop for part in there):
                chunk = self._kept.get((self._name, place), lambda place=place: self._read(place))
                result[tuple(there)] = chunk[tuple(here)]
        return result


class Mapped:
    """Pixels that lie in a file in one piece and in C order; mapped for as long as a part of them is copied."""

    def __init__(self, path: Path, dtype: np.dtype, offset: int, shape: Sequence[int]):
        self.path, self.dtype, self.offset, self.shape = path, np.dtype(dtype), offset, tuple(shape)
        self.chunk = (1,) * len(self.shape)

    def cut(self, region: Sequence[range]) -> np.ndarray:
        """The pixels at these places along each axis, each range rising."""
        try:
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:  # of a file that has become shorter
            raise refusal(self.path, f"cannot be read: {error}", "the file as it was", AGAIN) from passing(error)
        return np.array(mapped[tuple(slice(along.start, along.stop, along.step) for along in region)])


class Inverted:
    """Pixels that are brightest where they are 0, as those that are brightest where they are ``white``."""

    def __init__(self, chunks: Chunks | Mapped | Inverted, white: int):
        self._stored, self._white = chunks, chunks.dtype.type(white)
        self.shape, self.chunk, self.dtype = chunks.shape, chunks.chunk, chunks.dtype

    def cut(self, region: Sequence[range]) -> np.ndarray:
        """The pixels at these places along each axis, each range rising."""
        return self._white - self._stored.cut(region)


class Lazy:
    """An array in a file: indexing it with integers and slices reads that part, ``numpy.asarray`` all of it.

    Raises what its file raises: InputError where a chunk is damaged.
    """

    def __init__(self, chunks: Chunks | Mapped | Inverted, axes: Sequence[tuple[int, ...]] | None = None):
        """axes: for each axis those of the file that are merged in it; an empty tuple is a new axis of length 1."""
        self.chunks = chunks
        self.axes = tuple((i,) for i in range(len(chunks.shape))) if axes is None else tuple(axes)
        self.shape = tuple(math.prod(chunks.shape[i] for i in merged) for merged in self.axes)

    @property
    def dtype(self) -> np.dtype:
        return self.chunks.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def chunk(self) -> tuple[int, ...]:
        """Lengths that are read together, along each axis."""
        return tuple(min(n, self.chunks.chunk[m[-1]]) if m else 1 for n, m in zip(self.shape, self.axes, strict=True))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Lazy({' x '.join(map(str, self.shape))}, {self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array in a file cannot be had without a copy")
        return self[...].astype(dtype or self.dtype, copy=False)

    def astype(self, dtype: Any) -> np.ndarray:
        return np.asarray(self, dtype)

    def __getitem__(self, key: Part | tuple[Part, ...]) -> np.ndarray:
        parts = list(key) if isinstance(key, tuple) else [key]
        if (rest := self.ndim - sum(part is not ... for part in parts)) < 0:
            raise IndexError(f"{len(parts)} indices for {self.ndim} axes")
        at = parts.index(...) if ... in parts else len(parts)
        parts[at : at + 1] = [slice(None)] * rest
        region = [_range(part, length) for part, length in zip(parts, self.shape, strict=True)]
        backwards = tuple(slice(None, None, -1 if along.step < 0 else 1) for along in region)
        pixels = self._cut([along[::-1] if along.step < 0 else along for along in region])[backwards]
        return pixels[tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in parts)]

    def _cut(self, region: list[range]) -> np.ndarray:
        """Pixels of these rising ranges, of all axes. Along merged axes, they are read one by one."""
        if not all(region):
            return np.empty([len(along) for along in region], self.dtype)
        for axis, merged in enumerate(self.axes):
            if len(merged) > 1 and len(region[axis]) > 1:
                result = np.empty([len(along) for along in region], self.dtype)
                for i, place in enumerate(region[axis]):
                    where = (slice(None),) * axis + (slice(i, i + 1),)
                    result[where] = self._cut([*region[:axis], range(place, place + 1), *region[axis + 1 :]])
                return result
        wanted = [range(1)] * len(self.chunks.shape)  # axes that were dropped have length 1
        for along, merged in zip(region, self.axes, strict=True):
            if len(merged) == 1:
                wanted[merged[0]] = along
            elif merged:
                lengths = [self.chunks.shape[i] for i in merged]
                for i, place in zip(merged, np.unravel_index(along[0], lengths), strict=True):
                    wanted[i] = range(int(place), int(place) + 1)
        pixels = self.chunks.cut(wanted)
        order = [i for merged in self.axes for i in merged]
        order += [i for i in range(len(wanted)) if i not in order]
        return pixels.transpose(order).reshape([len(along) for along in region])


Pixels = np.ndarray | Lazy


def _range(part: Part, length: int) -> range:
    if isinstance(part, slice):
        return range(*part.indices(length))
    if not isinstance(part, int | np.integer):
        raise TypeError(f"an array in a file is indexed by integers and slices, not by {type(part).__name__}")
    index = int(part) + (length if part < 0 else 0)
    if not 0 <= index < length:
        raise IndexError(f"index {part} for length {length}")
    return range(index, index + 1)


def arrange(data: Pixels, order: Sequence[int]) -> Pixels:
    """View `data` with its axes in this order: -1 is a new axis of length 1; left out are axes of length 1."""
    drop = tuple(i for i in range(data.ndim) if i not in order)
    if any(data.shape[i] != 1 for i in drop):
        raise ValueError(f"axes {drop} of shape {data.shape} are left out")
    if isinstance(data, Lazy):
        return Lazy(data.chunks, [data.axes[i] if i >= 0 else () for i in order])
    kept = [i for i in order if i >= 0]
    view = data.squeeze(drop).transpose([sorted(kept).index(i) for i in kept])
    return view[tuple(None if i < 0 else slice(None) for i in order)]


def merge(data: Pixels, count: int) -> Pixels:
    """Make the first `count` axes one, the last of them fastest; none become a new axis of length 1.

    A view, except of arrays in memory whose axes cannot be merged as they lie.
    """
    if isinstance(data, Lazy):
        return Lazy(data.chunks, [sum(data.axes[:count], ()), *data.axes[count:]])
    return data.reshape(math.prod(data.shape[:count]), *data.shape[count:])


def blocks(data: Pixels, share: float = 1.0) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Every pixel once, in blocks of whole chunks, as many as `BLOCK_BYTES` hold: (where, pixels).

    ``share``: of the blocks, chosen by chance but always the same; the others are not read.
    """
    size = list(data.chunk) if isinstance(data, Lazy) else [1] * data.ndim
    for axis in reversed(range(data.ndim)):
        room = BLOCK_BYTES // (8 * math.prod(size))
        size[axis] = min(data.shape[axis], size[axis] * max(1, room))
        if size[axis] < data.shape[axis]:
            break
    starts = [range(0, length, step) for length, step in zip(data.shape, size, strict=True)]
    rng = np.random.default_rng(0)
    for corner in itertools.product(*starts):
        if share < 1 and rng.random() >= share:
            continue
        where = tuple(slice(start, start + step) for start, step in zip(corner, size, strict=True))
        yield where, np.asarray(data[where])


def inverted(data: Pixels, white: int) -> Pixels:
    """Unsigned integers that are brightest where they are 0, as those that are brightest where they are ``white``."""
    if isinstance(data, Lazy):
        return Lazy(Inverted(data.chunks, white), data.axes)
    return data.dtype.type(white) - np.asarray(data)


def in_file(mapped: np.ndarray, path: Path) -> Pixels:
    """A memory map of a large file as an array whose parts are mapped when they are read, and let go then: else all
    pages that were looked at once would count as memory of ours."""
    if mapped.nbytes < LARGE or not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
        return mapped
    return Lazy(Mapped(path, mapped.dtype, mapped.offset, mapped.shape))
