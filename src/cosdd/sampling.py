"""A COSDD model and one frame: clean images are drawn from the posterior and averaged (supplement section 2.3).

Samples are drawn in blocks whose noise cancels, until their mean has settled; or, `plain`, one by one as in the paper.
Tile by tile, each as it would be in the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cosdd import device, errors, estimates, latents, pyramid, tiles
from cosdd.errors import InputError
from cosdd.estimates import Estimate
from cosdd.model import COSDD
from cosdd.model.ladder import Draw
from cosdd.progress import out
from cosdd.pyramid import Cut
from cosdd.tiles import Tile

SMALLEST_TILE = 2**14  # pixels; where even that is too much for memory, smaller tiles will not help
# Pixels that go through the networks together: as many samples as fit. Results do not depend on it.
PIXELS_AT_ONCE = {"cpu": 2**16, "cuda": 2**22}
NEAR = {"cpu": 2**17}  # a tile of so many pixels stays near the processor, in its caches
LARGEST = 2**31 - 1  # numbers in an array: GPU kernels count no further, and some do not say so
Position = tuple[int, ...]  # of the networks' grid, in pixels along z, y and x
Drawn = tuple[Tensor, Tensor | None, list[Tensor], int]  # mean, standard deviation, samples, how many were averaged


@dataclass(frozen=True)
class Settings:
    """What is asked of ``denoise``. samples: None: as many as it takes, of each image by itself; with ``plain`` 100.

    tile: edge of the tiles of a COSDD model; None: as memory allows.
    """

    samples: int | None = None
    plain: bool = False
    save_samples: int = 0
    direct: bool = False
    flips: bool = False
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            usual = self.__dataclass_fields__[name].default
            truth = isinstance(usual, bool)
            if isinstance(value, np.bool_ | np.integer):  # a recipe is JSON, which has Python's own
                object.__setattr__(self, name, value.item())
            elif value is not usual and (isinstance(value, bool) != truth or not isinstance(value, int)):
                raise InputError(f"{name} is {value!r:.40}, expected {'True or False' if truth else 'a whole number'}")
        if self.samples is not None and self.samples < 1:
            raise InputError(f"samples is {self.samples}: at least 1 is needed")
        if self.tile is not None and self.tile < 1:
            raise InputError(f"tile is {self.tile}: expected pixels along the edge of a tile, at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: at least 0 is needed")
        if not 0 <= self.save_samples <= self.at_least:
            more = "" if self.samples else " (say how many to draw where you need more)"
            raise InputError(
                f"save_samples is {self.save_samples}: expected 0 to the number of samples, {self.at_least}{more}"
            )
        if self.direct and self.save_samples:
            raise InputError("the direct denoiser draws no samples: leave out either direct or save_samples")
        if self.direct and self.samples:
            raise InputError("the direct denoiser draws no samples: leave out either direct or samples")

    @property
    def at_least(self) -> int:
        """So many samples are drawn in any case."""
        return self.samples or (estimates.PAPER if self.plain else estimates.GROUP)


@dataclass
class Memory:
    """pixels: as many may go through the networks together; None: as device and free memory allow. Frame after frame,
    what running out of it has taught stays."""

    pixels: int | None = None


@dataclass(frozen=True, eq=False)
class Sampling:
    """x: (1, c, *padded), a frame as the networks see it, in `window` of it. index: its number, of which latent noise
    is a function. positions: of the networks' grid, over which samples are averaged."""

    network: COSDD
    x: Tensor
    window: tuple[slice, ...]
    positions: Sequence[Position]
    index: int
    settings: Settings
    precision: str
    memory: Memory

    @staticmethod
    def of(network: COSDD, x: Tensor, index: int, settings: Settings, precision: str, memory: Memory) -> Sampling:
        """Of a frame (1, c, *space) of any size."""
        # What starts as wavelets has their grid: samples are averaged over positions of it.
        one = settings.plain or settings.direct or not network.centred
        positions = (estimates.HOME,) if one else estimates.POSITIONS
        x, window = network.padded(x, room=_room(positions))
        return Sampling(network, x, window, positions, index, settings, precision, memory)

    def parts(self) -> Iterator[float | Drawn]:
        """The share done (float) often, then what was drawn; in smaller tiles where memory does not suffice."""
        network, x, settings, room = self.network, self.x, self.settings, _room(self.positions)
        wanted = tiles.moved(self.window[2:], [-room] * (x.dim() - 2))
        part, tail = network.ladder, network.signal.reach
        if settings.direct:
            assert network.direct is not None
            part, tail = network.direct, 0
        most, edge = self.memory.pixels, settings.tile if self.memory.pixels is None else None
        pixels = device.pixels_at_once(x.device, network.bytes_per_pixel) if most is None else most
        pixels, failed = min(pixels, LARGEST // (2 * max(part.counts))), math.inf  # a gate has twice the features
        while True:
            cut = pyramid.plan(
                part, wanted, [size - room for size in x.shape[2:]], pixels,
                edge=edge, tail=tail + room, rounds=1 if settings.direct else settings.at_least,
                near=NEAR.get(x.device.type),
            )  # fmt: skip
            try:
                yield from self._tiled(cut)
                return
            except (RuntimeError, MemoryError) as error:
                # As halos do not become smaller, less may not be possible.
                if not errors.of_memory(error) or not SMALLEST_TILE < cut.needs < failed:
                    raise
                failed, edge = cut.needs, None
                self.memory.pixels = pixels = cut.needs // 2
                out.print(f"note: out of memory with {cut.needs:,} pixels at once; going on with half as many")

    def _arithmetic(self) -> torch.autocast:
        # Around single calls, never around a yield: the caller's own code must not run in bfloat16.
        return device.arithmetic(self.precision, self.x.device)

    def _tiled(self, cut: Cut) -> Iterator[float | Drawn]:
        x, settings = self.x, self.settings
        estimate = Estimate(x, settings.samples, settings.plain, self.positions)
        kept = [torch.zeros(x.shape) for _ in range(settings.save_samples)]  # not where memory is short
        coarse: dict[Position, list[Tensor]] = {at: [] for _, at in estimate.parts(range(settings.at_least))}
        climb = len(coarse) * cut.has_coarse  # a way up to the coarse levels counts as a sample

        def share(done: float) -> float:
            return done / (climb + (1 if settings.direct else estimate.expected))

        for done, position in enumerate(coarse):
            seen = x[(..., *self._view(position))]
            for climbed, features in pyramid.coarse(cut, seen, self._arithmetic):
                coarse[position] = features
                if climb:
                    yield share(done + climbed)
        if settings.direct:
            shares = self.directly(cut, coarse[self.positions[0]], estimate.mean)
        else:
            shares = self.sampled(cut, coarse, estimate, kept)
        best = 0.0
        for done in shares:
            best = max(best, share(climb + done))
            yield best
        std = None if settings.direct else estimate.std()[self.window]
        yield estimate.mean[self.window], std, [sample[self.window] for sample in kept], estimate.taken

    def directly(self, cut: Cut, coarse: list[Tensor], mean: Tensor) -> Iterator[float]:
        """The direct denoiser's estimate, into ``mean``; yields the share done."""
        direct, down = self.network.direct, None
        assert direct is not None
        if coarse:
            with self._arithmetic():
                down = direct.top_down(coarse, first=cut.level)
        for number, tile in enumerate(cut.tiles):
            seen = self.x[(..., *tile.seen)]
            with self._arithmetic():
                features, _ = direct.climb(seen, stop=cut.level)
                part = direct.top_down(features, down=cut.seen(down, tile))
                if self.network.centred:
                    part = part + seen
            mean[(..., *tile.inner)] = part[(..., *tile.within)].float()
            yield (number + 1) / len(cut.tiles)

    def sampled(
        self, cut: Cut, coarse: dict[Position, list[Tensor]], estimate: Estimate, kept: list[Tensor]
    ) -> Iterator[float]:
        """Sample clean images into the estimate and what is kept beside it; yields how many are done."""
        x, room = self.x, _room(self.positions)
        coupled = partial(
            latents.coupled, self.settings.seed, self.index, block=estimate.block,
            strides=self.network.ladder.sight.strides,
        )  # fmt: skip
        climbed: dict[Position, list[Tensor]] = {}
        stay = len(cut.tiles) == 1 and (not room or len(self.positions) * cut.needs <= cut.pixels)
        for group in estimate.groups():
            noise = coupled(group, origin=[0] * (x.dim() - 2))
            parts = [(part, at, self._down(cut, coarse[at], part, noise)) for part, at in estimate.parts(group)]
            for number, tile in enumerate(cut.tiles):
                noise = coupled(group, origin=[span.start for span in tile.seen])
                # No more than the image: what tiles see beyond it, they do not see alike.
                inner = tiles.within(tiles.moved(tile.inner, [room] * (x.dim() - 2)), self.window[2:])
                for part, at, down in parts:
                    placed = Tile(inner, tiles.moved(tile.seen, [span.start for span in self._view(at)]))
                    if not stay:
                        climbed.clear()  # there is room for one of them
                    if at not in climbed:
                        with self._arithmetic():
                            climbed[at], _ = self.network.ladder.climb(x[(..., *placed.seen)], stop=cut.level)
                    samples = self._drawn(cut, climbed[at], placed, part, noise, cut.seen(down, tile))
                    for done, sample in zip(part, samples, strict=True):
                        estimate.add((..., *inner), done, sample)
                        if done < len(kept):
                            kept[done][(..., *inner)] = sample
                yield group.start + len(group) * (number + 1) / len(cut.tiles)

    def _drawn(
        self,
        cut: Cut,
        features: list[Tensor],
        tile: Tile,
        part: range,
        noise: Callable[[range], Draw],
        down: Tensor | None,
    ) -> Iterator[Tensor]:
        """The samples `part` of a tile, (1, c, *inner) each, as many at a time as fit."""
        window = (slice(None), slice(None), *tile.within)
        for batch in _batches(part, self._together(cut, tile.pixels)):
            above = None if down is None else down[batch.start - part.start : batch.stop - part.start]
            with self._arithmetic():
                drawn = self.network.sample(_repeated(features, batch), window, noise(batch), above)
            yield from drawn.split(1)

    def _down(self, cut: Cut, coarse: list[Tensor], group: range, noise: Callable[[range], Draw]) -> Tensor | None:
        """What comes down from the coarse levels of the whole image for each sample of a group."""
        down = None
        for batch in _batches(group, self._together(cut, cut.coarse)) if coarse else ():
            with self._arithmetic():
                repeated = _repeated(coarse, batch)
                part = self.network.ladder.top_down(repeated, noise(batch), with_kl=False, first=cut.level)[0]
            if down is None:
                down = part.new_empty(len(group), *part.shape[1:])
            down[batch.start - group.start : batch.stop - group.start] = part
        return down

    def _together(self, cut: Cut, pixels: int) -> int:
        """How many samples of so many pixels may go through the networks side by side."""
        return max(1, min(PIXELS_AT_ONCE.get(self.x.device.type, 2**20), cut.pixels) // max(1, pixels))

    def _view(self, position: Position) -> tuple[slice, ...]:
        """What is seen of the image from one of the positions: all of one size, with room in front."""
        sizes, room = self.x.shape[2:], _room(self.positions)
        return tuple(slice(room - at, size - at) for at, size in zip(position[-len(sizes) :], sizes, strict=True))


def _room(positions: Sequence[Position]) -> int:
    """So many pixels lie in front of what is seen from home."""
    return max(map(max, positions))


def _batches(samples: range, size: int) -> Iterator[range]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def _repeated(features: Sequence[Tensor], batch: range) -> list[Tensor]:
    return [feature.expand(len(batch), *feature.shape[1:]) for feature in features]
