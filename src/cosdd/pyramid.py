"""A network of levels, cut in two: the coarse levels see the whole image at once, the fine ones see it tile by tile.

A tile must look as far around itself as the levels do that work on it: with the coarse ones among them, thousands of
pixels. But at their scale the whole image is small. So what enters the first coarse level is computed tile by tile and
put together, the coarse levels follow for the whole image, and what comes down from them is cut out for each tile, as
is the image itself. Nothing is approximate: all numbers are those of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosdd import estimates, tiles
from cosdd.model import ALIVE
from cosdd.model.ladder import Ladder
from cosdd.model.layers import hand_over
from cosdd.model.unet import UNet
from cosdd.model.wavelets import WaveletLadder
from cosdd.tiles import Tile


@dataclass(frozen=True)
class Cut:
    """Levels of the network below ``level`` work on ``tiles``; the others, where there are any, on the whole image.

    entering: tiles in which the image goes up to the cut. stride: pixels of the image to one of the first coarse level.
    held: what comes down from the coarse levels for all samples of a group, in pixels that take the same memory.
    coarse: what goes through those levels, likewise. pixels: as many may go through together.
    """

    network: Ladder | WaveletLadder | UNet
    level: int
    stride: int
    entering: list[Tile]
    tiles: list[Tile]
    held: int
    coarse: int
    pixels: int

    @property
    def needs(self) -> int:
        """Pixels that take the memory of all that is there at a time, at most."""
        entering = max((tile.pixels for tile in self.entering), default=0)  # nothing is held yet
        return max(entering, self.held + max(self.coarse, *(tile.pixels for tile in self.tiles)))

    @property
    def has_coarse(self) -> bool:
        """Are there levels that work on the whole image?"""
        return self.level < len(self.network.counts)

    def seen(self, down: Tensor | None, tile: Tile) -> Tensor | None:
        """Of what comes down from the coarse levels, what a tile sees."""
        return None if down is None else down[(..., *tile.at(self.stride).seen)]


def plan(
    network: Ladder | WaveletLadder | UNet,
    window: Sequence[slice],
    space: Sequence[int],
    pixels: int,
    *,
    edge: int | None = None,
    tail: int = 0,
    rounds: int = 1,
    near: int | None = None,
    level: int | None = None,
) -> Cut:
    """Cut a network where the work is least, to make what lies in the window of an image of size ``space``.

    space: edges are multiples of the network's stride. pixels: as many may go through the network together; through
    its coarse levels, as many as take the same memory. edge: of the tiles, in pixels; not given: as large as memory
    allows, or as stay near the processor. tail: how far what follows the network sees. rounds: samples. near: pixels
    that stay so near; not given: all. level: the first coarse one, where it is not to be chosen.
    """
    sight, counts, near = network.sight, network.counts, near or pixels
    whole, cuts = [slice(0, size) for size in space], []
    for at in range(1, len(counts) + 1) if level is None else [level]:
        stride, entering, held, through = sight.period(at), [], 0, 0
        if at < len(counts):
            one = math.prod(space) / stride ** len(space) / counts[0]  # pixels, for each feature of a coarse level
            held = math.ceil(min(rounds, estimates.GROUP) * one * counts[at - 1] / ALIVE)
            through = math.ceil(one * counts[at])
            entering = _quickest(near, whole, space, sight.entering_halo(at), stride, pixels, edge)
        parts = _quickest(near, window, space, sight.halo(at, tail), stride, pixels - held, edge)
        cuts.append(Cut(network, at, stride, entering, parts, held, through, pixels))
    # Above all, it fits into memory; where halos are wider than all that does, what needs the least of it.
    return min(cuts, key=lambda cut: (max(pixels, cut.needs), _work(cut, space, rounds, near)))


def _quickest(
    near: int, window: Sequence[slice], space: Sequence[int], halo: int, stride: int, pixels: int, edge: int | None
) -> list[Tile]:
    """Large tiles, of which less is seen by several, or small ones, which stay near the processor."""
    plans = [tiles.plan(window, space, halo, stride, most, edge) for most in (pixels, min(pixels, near))]
    return min(plans, key=lambda plan: _looks(plan, near))


def _looks(plan: list[Tile], near: int) -> float:
    """Pixels that are looked at; those that do not stay near the processor take half as long again."""
    return sum(tile.pixels * (1.5 if tile.pixels > near else 1.0) for tile in plan)


def _work(cut: Cut, space: Sequence[int], rounds: int, near: int) -> float:
    """About how long it takes; the way up takes half as long as the way down."""
    levels = zip(cut.network.sight.strides, cut.network.counts, strict=True)
    work = [count**2 / stride ** len(space) for stride, count in levels]
    fine, coarse, what_follows = sum(work[: cut.level]), sum(work[cut.level :]), cut.network.counts[0] ** 2
    groups = 1 if len(cut.tiles) == 1 else -(-rounds // estimates.GROUP)
    tiled = _looks(cut.tiles, near) * (rounds * (fine + what_follows) + groups * fine / 2)
    return tiled + _looks(cut.entering, near) * fine / 2 + math.prod(space) * coarse * (rounds + 0.5)


def coarse(cut: Cut, image: Tensor, arithmetic: Callable[[], torch.autocast]) -> Iterator[tuple[float, list[Tensor]]]:
    """Features of the coarse levels: yields the share done, and in the end the features with it."""
    whole = torch.empty(0)
    for number, tile in enumerate(cut.entering):
        with arithmetic():
            part = cut.network.climb(image[(..., *tile.seen)], stop=cut.level)[1]
        tile = tile.at(cut.stride)
        if number == 0:
            space = [size // cut.stride for size in image.shape[2:]]
            whole = hand_over(part.new_empty(*part.shape[:2], *space))
        whole[(..., *tile.inner)] = part[(..., *tile.within)]
        yield (number + 1) / (len(cut.entering) + 1), []
    with arithmetic():
        features, _ = cut.network.climb(whole, first=cut.level)
    yield 1.0, features
