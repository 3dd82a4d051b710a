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

from cosdd import tiles
from cosdd.model.ladder import Ladder
from cosdd.model.layers import hand_over
from cosdd.model.unet import UNet
from cosdd.tiles import Tile


@dataclass(frozen=True)
class Cut:
    """Levels of the network below ``level`` work on ``tiles``; the others, where there are any, on the whole image.

    entering: tiles in which the image goes up to the cut. stride: pixels of the image to one of the first coarse level.
    """

    network: Ladder | UNet
    level: int
    stride: int
    entering: list[Tile]
    tiles: list[Tile]

    @property
    def has_coarse(self) -> bool:
        """Are there levels that work on the whole image?"""
        return self.level < len(self.network.counts)

    def seen(self, down: Tensor | None, tile: Tile) -> Tensor | None:
        """Of what comes down from the coarse levels, what a tile sees."""
        return None if down is None else down[(..., *tile.at(self.stride).seen)]


def plan(
    network: Ladder | UNet,
    space: Sequence[int],
    pixels: int,
    edge: int | None = None,
    tail: int = 0,
    level: int | None = None,
) -> Cut:
    """Cut a network for an image of size ``space``, whose edges are multiples of its stride.

    pixels: as many may go through the network together; through its coarse levels, as many as take the same memory.
    edge: of the tiles, in pixels; not given: as large as ``pixels`` allows. tail: how far what follows the network
    sees. level: the first coarse one; not given: the finest for which there is memory, as tiles then see the least.
    """
    fits = math.prod(space) <= pixels if edge is None else max(space) <= edge
    levels, sight, counts = len(network.counts), network.sight, network.counts
    if level is None:
        memory = [
            math.prod(space) // stride ** len(space) * count / counts[0]
            for stride, count in zip(sight.strides, counts, strict=True)
        ]
        level = levels if fits else next((at for at in range(1, levels) if memory[at] <= pixels), levels)
    stride = sight.period(level)
    parts = tiles.plan(space, sight.halo(level, tail), stride, pixels, edge)
    entering = tiles.plan(space, sight.entering_halo(level), stride, pixels, edge) if level < levels else []
    return Cut(network, level, stride, entering, parts)


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
