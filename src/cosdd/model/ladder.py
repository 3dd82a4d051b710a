"""The hierarchical VAE: posterior, prior, KL, and the way up and down its levels (supplement section 3).

Level 0 is the finest, the last level the coarsest and topmost. The bottom-up pass turns the noisy image into
features for each level; the top-down pass samples the latents from the coarsest to the finest and ends in the
*code*, which is all that the decoders ever see of the image. What the levels consist of: `empty`, `wavelets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model import layers
from cosdd.model.sight import Sight

# Standard normal numbers for a level: draw(level, shape, device) -> float32 tensor.
Draw = Callable[[int, torch.Size, torch.device], Tensor]

# Bounds of the standard deviations of prior and posterior: neither can collapse nor blow up.
SMALLEST_STD, LARGEST_STD = math.exp(-7.0), math.exp(5.0)
# softplus(ONE) = 1, so a zero-initialised layer gives a standard normal.
ONE = math.log(math.e - 1.0)


def fresh_noise(level: int, shape: torch.Size, device: torch.device) -> Float[Tensor, "b z *space"]:
    """The latent noise of training: from the device's own generator."""
    return torch.randn(shape, device=device)


@dataclass(frozen=True)
class Normal:
    """A diagonal Gaussian; ``mean`` and ``std`` are at least float32 and broadcast against (b, z, *space)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def of(parameters: Float[Tensor, "b z2 *space"]) -> Normal:
        mean, raw = layers.at_least_float32(parameters).chunk(2, dim=1)
        return Normal(mean, F.softplus(raw + ONE).clamp(SMALLEST_STD, LARGEST_STD))

    def sample(self, standard: Float[Tensor, "b z *space"]) -> Float[Tensor, "b z *space"]:
        return self.mean + self.std * standard


def kl(posterior: Normal, prior: Normal) -> Float[Tensor, "b z *space"]:
    """KL(posterior || prior) in nats, element by element."""
    return (
        torch.log(prior.std / posterior.std)
        + (posterior.std**2 + (posterior.mean - prior.mean) ** 2) / (2 * prior.std**2)
        - 0.5
    )


class Ladder(nn.Module):
    """Noisy image -> code, by way of a hierarchy of latents; or code from the prior.

    A kind of ladder has levels with so many ``latents`` each, and says what one level does: methods that raise here.
    What comes down to a level is a tensor between levels; ``above`` is what the kind makes of it, nothing at the top.
    """

    levels: nn.ModuleList
    sight: Sight
    counts: list[int]  # features of each level
    code_channels: int

    @property
    def stride(self) -> int:
        """Pixels of the image to one of the coarsest level."""
        return self.sight.strides[-1]

    def enter(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """What enters the finest level."""
        raise NotImplementedError

    def ascend(self, index: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """All that the posterior of a level needs of the image, and what enters the next one."""
        raise NotImplementedError

    def above(self, index: int, down: Tensor | None) -> Any:
        """What comes down to a level, in its size."""
        raise NotImplementedError

    def prior(self, index: int, above: Any) -> Normal:
        raise NotImplementedError

    def infer(self, index: int, evidence: Tensor, above: Any, with_prior: bool) -> tuple[Normal, Normal | None]:
        """The posterior, and the prior unless nobody asks for it."""
        raise NotImplementedError

    def descend(self, index: int, z: Float[Tensor, "b z *space"], above: Any) -> Tensor:
        """What comes down from a level whose latents are ``z``."""
        raise NotImplementedError

    def code(self, down: Tensor) -> Float[Tensor, "b s *space"]:
        """Of what comes down from the finest level."""
        raise NotImplementedError

    def bottom_up(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """What the posterior of each level needs of the noisy image, finest first; one pass serves all samples."""
        return self.climb(x)[0]

    def climb(self, h: Tensor, first: int = 0, stop: int | None = None) -> tuple[list[Tensor], Tensor]:
        """``bottom_up`` from level ``first`` to below ``stop``, and what enters that one (after the top: its features).

        h: what enters level ``first``; the image where that is 0.
        """
        evidence = []
        if first == 0:
            h = self.enter(h)
        for index in range(first, len(self.levels) if stop is None else stop):
            found, h = self.ascend(index, h)
            evidence.append(found)
        return evidence, h

    def top_down(
        self,
        evidence: Sequence[Tensor],
        draw: Draw = fresh_noise,
        with_kl: bool = True,
        first: int = 0,
        down: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b s *space"], list[Tensor]]:
        """Sample the latents from the posterior, coarsest first.

        Returns the code and, unless ``with_kl`` is off, the KL of each level (nats, summed over everything),
        finest first. Without the KL no prior is computed that the posterior does without.

        evidence: of the levels from ``first`` on. down: what comes from the level above them, where there is one.
        Where ``first`` is not 0, there is no code yet: returned is what comes down from that level.
        """
        kls: list[Tensor] = []
        for index in reversed(range(first, first + len(evidence))):
            above = self.above(index, down)
            posterior, prior = self.infer(index, evidence[index - first], above, with_kl)
            z = posterior.sample(draw(index, posterior.mean.shape, posterior.mean.device))
            if with_kl:
                assert prior is not None
                kls.insert(0, kl(posterior, prior).sum())
            down = self.descend(index, z, above)
        assert down is not None
        return down if first else self.code(down), kls

    def generate(
        self, shape: Sequence[int], device: torch.device, draw: Draw = fresh_noise
    ) -> Float[Tensor, "b s *space"]:
        """A code from the prior for images of ``shape`` (b, *space); edges are multiples of ``self.stride``."""
        batch, *space = shape
        down: Tensor | None = None
        for index in reversed(range(len(self.levels))):
            above = self.above(index, down)
            size = [edge // self.sight.strides[index] for edge in space]
            latents: int = self.levels[index].latents  # type: ignore[assignment]
            z = self.prior(index, above).sample(draw(index, torch.Size([batch, latents, *size]), device))
            down = self.descend(index, z, above)
        assert down is not None
        return self.code(down)
