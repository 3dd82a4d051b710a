"""Tiles of an image that is too large for memory, with so much around each that it comes out as in the whole image."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """inner: the pixels that it gives. seen: the pixels that it looks at; both as slices of the image."""

    inner: tuple[slice, ...]
    seen: tuple[slice, ...]

    @property
    def pixels(self) -> int:
        """How many it looks at."""
        return math.prod(span.stop - span.start for span in self.seen)

    @property
    def within(self) -> tuple[slice, ...]:
        """``inner``, as slices of what is seen."""
        return tuple(
            slice(inner.start - seen.start, inner.stop - seen.start)
            for inner, seen in zip(self.inner, self.seen, strict=True)
        )

    def at(self, stride: int) -> Tile:
        """The same tile on a level that has one pixel to ``stride`` of the image."""

        def scaled(spans: tuple[slice, ...]) -> tuple[slice, ...]:
            return tuple(slice(span.start // stride, span.stop // stride) for span in spans)

        return Tile(scaled(self.inner), scaled(self.seen))


def moved(spans: Sequence[slice], by: Sequence[int]) -> tuple[slice, ...]:
    """Slices of an image as those of one in which its pixel 0 is pixel ``by``."""
    return tuple(slice(span.start + step, span.stop + step) for span, step in zip(spans, by, strict=True))


def within(spans: Sequence[slice], window: Sequence[slice]) -> tuple[slice, ...]:
    """Of slices what lies in a window."""
    return tuple(
        slice(max(span.start, most.start), min(span.stop, most.stop)) for span, most in zip(spans, window, strict=True)
    )


def plan(
    window: Sequence[slice], space: Sequence[int], halo: int, stride: int, pixels: int, edge: int | None = None
) -> list[Tile]:
    """Cut a window of an image of size ``space`` into tiles that look ``halo`` pixels beyond themselves.

    ``edge``: of the tiles, in pixels; not given: as large as they can be without looking at more than ``pixels``.
    Tiles, and what they see, begin at multiples of ``stride``, where the levels of a network are in step; so they may
    go a little beyond the window.
    """
    halo = -(-halo // stride) * stride
    spans = [(span.start // stride * stride, -(-span.stop // stride) * stride) for span in window]
    sizes = [stop - start for start, stop in spans]
    edge = _largest(sizes, space, halo, stride, pixels) if edge is None else -(-edge // stride) * stride
    tiles = [Tile((), ())]
    for (first, last), size in zip(spans, space, strict=True):
        ranges = [
            (slice(start, min(start + edge, last)), slice(max(0, start - halo), min(start + edge + halo, size)))
            for start in range(first, last, edge)
        ]
        tiles = [Tile((*tile.inner, inner), (*tile.seen, seen)) for tile in tiles for inner, seen in ranges]
    return tiles


def _largest(sizes: Sequence[int], space: Sequence[int], halo: int, stride: int, pixels: int) -> int:
    """The edge of the largest tiles that see at most so many pixels; where none does, of tiles as wide as the halo."""

    def seen(edge: int) -> int:
        looks = [min(size, edge) + 2 * halo for size in sizes]
        return math.prod(min(look, whole) for look, whole in zip(looks, space, strict=True))

    whole = max(sizes)
    fewer = range(-(-max(0, whole - max(halo, stride)) // stride) + 1)  # by so many strides an edge may be smaller
    steps = bisect.bisect_left(fewer, True, key=lambda less: seen(whole - less * stride) <= pixels)
    edge = whole - min(steps, fewer[-1]) * stride
    # Tiles of one size: none is a narrow rest.
    return min(whole, -(-whole // -(-whole // edge) // stride) * stride)
