"""Tiles of an image that is too large for memory, with so much around each that it comes out as in the whole image."""

from __future__ import annotations

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


def plan(space: Sequence[int], halo: int, stride: int, pixels: int, edge: int | None = None) -> list[Tile]:
    """Cut an image of size ``space`` into tiles that look ``halo`` pixels beyond themselves.

    ``edge``: of the tiles, in pixels; not given: as large as they can be without looking at more than ``pixels``.
    What a tile sees begins at multiples of ``stride``, where the coarse levels of a network are in step.
    """
    halo = -(-halo // stride) * stride
    edge = _largest(space, halo, stride, pixels) if edge is None else -(-edge // stride) * stride
    tiles = [Tile((), ())]
    for size in space:
        spans = [
            (slice(start, min(start + edge, size)), slice(max(0, start - halo), min(start + edge + halo, size)))
            for start in range(0, size, edge)
        ]
        tiles = [Tile((*tile.inner, inner), (*tile.seen, seen)) for tile in tiles for inner, seen in spans]
    return tiles


def _largest(space: Sequence[int], halo: int, stride: int, pixels: int) -> int:
    """The edge of the largest tiles that see at most so many pixels; where none does, of tiles as wide as the halo."""

    def seen(edge: int) -> int:
        total = 1
        for size in space:
            total *= size if edge >= size else min(size, edge + 2 * halo)
        return total

    edge = whole = -(-max(space) // stride) * stride
    while edge > max(halo, stride) and seen(edge) > pixels:
        edge -= stride
    return min(edge, whole)
