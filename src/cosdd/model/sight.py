"""How far a network of levels sees: from this follows how far beyond itself a tile of an image must look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sight:
    """Radii of what the layers of each level look at, in pixels of that level; finest level first.

    halves: does the level halve the image on entry? up: on the way from what enters it to its features. down: on the
    way from its features, and from what comes down to it, to what it gives. stem: of the first convolution.
    enter: how far the convolution that halves reaches beyond its pairs of pixels, to the left.

    A network may be *cut*: the levels from ``cut`` on see the whole image, those below it see tiles.
    """

    halves: tuple[bool, ...]
    up: tuple[int, ...]
    down: tuple[int, ...]
    enter: int
    stem: int

    @property
    def strides(self) -> list[int]:
        """Pixels of the image to one of each level."""
        return [2 ** sum(self.halves[: level + 1]) for level in range(len(self.halves))]

    def period(self, cut: int) -> int:
        """Tiles begin and end at multiples of so many pixels, where all levels that they need are in step."""
        return self.strides[min(cut, len(self.halves) - 1)]

    def halo(self, cut: int, tail: int = 0) -> int:
        """How far beyond itself a tile must look; ``tail``: how far what follows the network looks around itself."""
        last = self.period(cut) - 1
        first_seen, last_seen = self.sees(-tail, last + tail, cut)
        return max(-first_seen, last_seen - last)

    def entering_halo(self, level: int) -> int:
        """How far beyond itself a tile must look for what enters ``level``."""
        first_seen, last_seen = self.enters(0, 0, level)
        return max(-first_seen, last_seen - (self.period(level) - 1))

    def sees(self, first: int, last: int, cut: int) -> tuple[int, int]:
        """The first and the last pixel, along an axis, that matter for what the network makes of ``first`` to ``last``.

        From the result up to the cut: what each level must have of its features. From there down to the image.
        """
        seen: list[tuple[int, int]] = []
        for level, (up, down) in enumerate(zip(self.up[:cut], self.down, strict=False)):
            first, last = self._coarser(first, last, level)
            first, last = first - down, last + down
            seen.append(self.enters(first - up, last + up, level))
        if cut < len(self.halves):
            first, last = self._coarser(first, last, cut)
            stride = self.strides[cut]
            seen.append((first * stride, last * stride + stride - 1))
        return min(pair[0] for pair in seen), max(pair[1] for pair in seen)

    def enters(self, first: int, last: int, level: int) -> tuple[int, int]:
        """The first and the last pixel of the image that matter for pixels ``first`` to ``last`` entering a level."""
        while True:
            if self.halves[level]:
                first, last = 2 * first - self.enter, 2 * last + 1
            if level == 0:
                return first - self.stem, last + self.stem
            level -= 1
            first, last = first - self.up[level], last + self.up[level]

    def _coarser(self, first: int, last: int, level: int) -> tuple[int, int]:
        """Pixels of ``level`` that lie under those of the next finer one: doubled by nearest neighbours."""
        return (first // 2, last // 2) if self.halves[level] else (first, last)
