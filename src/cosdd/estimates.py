"""Estimates: mean and standard deviation of samples as they come, block by block, and whether there are enough.

The samples of a block are coupled (`latents.coupled`), the blocks know nothing of each other. How far the mean still
moves from block to block therefore tells its standard error, without a clean image (performance section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import EllipsisType

import torch
from jaxtyping import Float
from torch import Tensor

GROUP = 8  # samples that are drawn before the next look at the estimate
BLOCK = 4  # of them, those whose noise adds up to zero
PAIR = 2  # those, where blocks see the image from several positions
HOME = (0, 0, 0)
# Positions of the wavelets' grid, in pixels along z, y and x, for one block after the other: their average is free of
# the grid's own pattern (Coifman and Donoho 1995). Every other block is at home: by those, the error is known.
POSITIONS = (HOME, (1, 1, 3), HOME, (3, 3, 1))
PAPER = 100  # samples, where independent ones are asked for and nobody says how many
MOST = 128  # samples, where nobody says how many
ACCURACY = 0.03  # standard error of the mean at which there are enough, in standard deviations of the noise


class Estimate:
    """What is known of the clean image under a noisy one, (1, c, *space), from samples of it.

    samples: how many to take; None: as many as it takes, the same whatever the tiles.
    plain: independent samples, the paper's estimator. positions: from which the blocks see the image, in turn.
    """

    def __init__(
        self,
        noisy: Float[Tensor, "1 c *space"],
        samples: int | None,
        plain: bool = False,
        positions: Sequence[tuple[int, ...]] = (HOME,),
    ):
        self.wanted = PAPER if samples is None and plain else samples
        self.positions, self._turn = positions, 1 if len(positions) == 1 else 2  # every so many blocks are at home
        self.block = 1 if plain else BLOCK if len(positions) == 1 else PAIR
        self.noisy, self.mean, self._squares = noisy, torch.zeros_like(noisy), torch.zeros_like(noisy)
        self._home = self.mean if self._turn == 1 else torch.zeros_like(noisy)  # mean of the samples at home
        self.taken, self._group, self._before = 0, range(0), noisy
        nothing = torch.zeros(noisy.shape[1], dtype=torch.float64)
        self._scatter, self._residual = nothing, nothing  # of the means of blocks; of the noisy image

    def groups(self) -> Iterator[range]:
        """Numbers of the samples to draw next, until there are enough."""
        while self.taken < self.most and not self.enough:
            self._group = range(self.taken, min(self.taken + GROUP, self.most))
            self._residual = torch.zeros_like(self._residual)
            yield self._group
            self.taken = self._group.stop

    def parts(self, group: range) -> list[tuple[range, tuple[int, ...]]]:
        """The samples of a group by the positions that they belong to."""
        if len(self.positions) == 1:
            return [(group, self.positions[0])]
        return [
            (group[first : first + self.block], self.positions[group[first] // self.block % len(self.positions)])
            for first in range(0, len(group), self.block)
        ]

    def add(self, where: tuple[slice | EllipsisType, ...], number: int, sample: Float[Tensor, "1 c *tile"]) -> None:
        """A sample, or a tile of it. Tiles may come in any order, the samples of a tile one after the other."""
        mean, home = self.mean[where], self._home[where]
        first = number - (number - self._group.start) % self.block
        turn, away = divmod(first // self.block, self._turn)
        if number == first and not away:
            self._before = home.clone()
        step = sample - mean  # Welford
        mean += step / (number + 1)
        self._squares[where] += step * (sample - mean)
        if not away:
            earlier = turn * self.block  # samples at home, before this block and up to this one
            so_far = earlier + number + 1 - first
            if self._turn > 1:
                home += (sample - home) / so_far
            if number + 1 in (first + self.block, self._group.stop):
                # Of the mean of this block from that of all before it, weighted by their numbers of samples.
                weight = earlier * so_far / (so_far - earlier)
                self._scatter = self._scatter + weight * _total((home - self._before).square())
        if number + 1 == self._group.stop:
            self._residual = self._residual + _total((self.noisy[where] - mean).square())

    @property
    def most(self) -> int:
        """No more samples than these are taken."""
        return MOST if self.wanted is None else self.wanted

    @property
    def error(self) -> Float[Tensor, " c"]:
        """Variance of the mean of all samples, from the means of blocks; 0 where there is but one of them.

        Only of blocks at home: what the positions disagree on is no error of their average.
        """
        blocks = -(-self.taken // (self.block * self._turn))
        return self._scatter / (self.noisy[0, 0].numel() * max(blocks - 1, 1) * max(self.taken, 1))

    @property
    def enough(self) -> bool:
        """Is what more samples would change small next to the noise that was there?"""
        return self.wanted is None and self.taken >= GROUP and self._missing <= 1

    @property
    def _missing(self) -> float:
        """Variance of the mean over what it may be."""
        allowed = ACCURACY**2 * self._residual / self.noisy[0, 0].numel()
        return float((self.error / allowed.clamp_min(1e-30)).max())

    @property
    def expected(self) -> int:
        """About how many samples there will be in the end."""
        if self.wanted is not None or self.enough or not self.taken:
            return self.wanted or max(self.taken, GROUP)
        return int(min(max(self.taken * self._missing, self.taken + GROUP), self.most))

    def std(self) -> Float[Tensor, "1 c *space"]:
        """Standard deviation of a sample; 0 where there is but one.

        The samples of a block lie farther from their mean than independent ones: what the mean lacks in variance, they
        have in addition. So nothing is divided by n - 1; the variance of the mean, as measured, is added instead.
        """
        if self.taken < 2 or self.block == 1:
            return (self._squares / max(self.taken - 1, 1)).sqrt()
        within = self._squares / self.taken
        average = _total(within) / within[0, 0].numel()
        share = 1 + self.error / average.clamp_min(1e-30)
        return within.mul_(share.to(within).reshape(-1, *[1] * (within.dim() - 2))).sqrt_()


def _total(values: Tensor) -> Float[Tensor, " c"]:
    return values.sum((0, *range(2, values.dim()))).cpu().double()  # Apple GPUs have no float64
