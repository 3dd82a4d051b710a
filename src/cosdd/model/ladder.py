"""The hierarchical VAE: bottom-up, top-down, posterior, prior, KL (supplement section 3).

Level 0 is the finest, the last level the coarsest and topmost. The bottom-up pass turns the noisy image into
features for each level; the top-down pass samples the latents from the coarsest to the finest and ends in the
*code*, which is all that the decoders ever see of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model import layers

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
    """A diagonal Gaussian; ``mean`` and ``std`` are float32 and broadcast against (b, z, *space)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def of(parameters: Float[Tensor, "b z2 *space"]) -> Normal:
        mean, raw = parameters.float().chunk(2, dim=1)
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


class Merge(nn.Module):
    """Join two feature maps: 1x1 convolution on the concatenation, then a block."""

    def __init__(self, dimensions: int, features: int, block: nn.Module):
        super().__init__()
        self.mix = layers.convolution(dimensions, 2 * features, features, 1)
        self.block = block

    def forward(self, a: Float[Tensor, "b c *space"], b: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return self.block(self.mix(torch.cat([a, b], dim=1)))


class Level(nn.Module):
    """What one level of the hierarchy does on the way up and on the way down."""

    def __init__(
        self,
        dimensions: int,
        features: int,
        finer_features: int,
        latents: int,
        *,
        halve: bool,
        top: bool,
        carry_on: bool,
        block: Callable[[], nn.Module],
        merge_block: Callable[[], nn.Module],
        padding: str,
    ):
        """``finer_features``: channels of the next finer level. ``carry_on``: False where the latents are the code."""
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return layers.convolution(dimensions, inputs, outputs, kernel, stride, padding)

        self.halve, self.latents = halve, latents
        self.enter = conv(finer_features, features, stride=2) if halve else None
        self.up = block()
        # Posterior and prior start equal, standard normal: no information in z (method 4.3).
        self.posterior = layers.start_at_zero(conv(features, 2 * latents))
        if top:
            self.top_prior = nn.Parameter(torch.zeros(1, 2 * latents, *[1] * dimensions))
        else:
            self.prior = layers.start_at_zero(conv(features, 2 * latents))
            self.merge_up = Merge(dimensions, features, merge_block())
        if carry_on:
            self.insert = conv(latents, features)
            self.merge_latents = None if top else Merge(dimensions, features, merge_block())
            self.down = block()
            self.leave = conv(features, finer_features, 1) if halve else None

    def bottom_up(self, h: Float[Tensor, "b f *finer"]) -> Float[Tensor, "b g *space"]:
        return self.up(h if self.enter is None else self.enter(h))

    def get_posterior(self, up: Float[Tensor, "b f *space"], down: Tensor | None) -> Normal:
        return Normal.of(self.posterior(up if down is None else self.merge_up(up, down)))

    def get_prior(self, down: Tensor | None) -> Normal:
        return Normal.of(self.top_prior if down is None else self.prior(down))

    def top_down(self, z: Float[Tensor, "b z *space"], down: Tensor | None) -> Float[Tensor, "b g *finer"]:
        h = self.insert(z)
        if self.merge_latents is not None:
            h = self.merge_latents(h, down)
        h = self.down(h)
        # A 1x1 convolution commutes with upsampling; done first it is 2^d times cheaper.
        return h if self.leave is None else layers.double(self.leave(h))


class Ladder(nn.Module):
    """Noisy image -> code, by way of a hierarchy of latents; or code from the prior."""

    def __init__(
        self,
        dimensions: int,
        channels: int,
        levels: int,
        features: int,
        max_features: int,
        latents: int,
        final_latents: int,
        *,
        downsampling: str,
        block: str,
        activation: str,
        padding: str,
        decoder_input: str,
    ):
        super().__init__()
        halved = layers.halved_sizes(levels, downsampling)
        self.halved = halved
        self.merge_reach = layers.BLOCK_REACH if block == "supplement" else 0
        counts = layers.feature_counts(features, max_features, halved)
        self.stride = 2 ** sum(halved)
        self.dimensions = dimensions
        self.code_is_latent = decoder_input == "latent"
        self.code_channels = final_latents if self.code_is_latent else features

        def make_block(count: int) -> nn.Module:
            return layers.BLOCK[block](dimensions, count, activation, padding)

        def make_merge_block(count: int) -> nn.Module:
            # The plain ladder spends its time elsewhere: an activation is all its merges need.
            return make_block(count) if block == "supplement" else layers.ACTIVATION[activation]()

        first = layers.convolution(dimensions, channels, features, 5, padding=padding)
        if block == "supplement":  # its blocks do not begin with an activation
            first = nn.Sequential(first, layers.ACTIVATION[activation]())
        self.stem = layers.Stem(first)
        self.levels = nn.ModuleList(
            Level(
                dimensions,
                counts[level],
                counts[max(level - 1, 0)],
                latents if level > 0 else final_latents,
                halve=halved[level],
                top=level == levels - 1,
                carry_on=level > 0 or not self.code_is_latent,
                block=lambda count=counts[level]: make_block(count),
                merge_block=lambda count=counts[level]: make_merge_block(count),
                padding=padding,
            )
            for level in range(levels)
        )

    @property
    def strides(self) -> list[int]:
        """Pixels of the image to one of each level, finest first."""
        return [2 ** sum(self.halved[: level + 1]) for level in range(len(self.halved))]

    def sees(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last pixel, along an axis, that matter for the code of pixels ``first`` to ``last``.

        From the code up the hierarchy: what each level must have of its features. Then down to the image.
        """
        block = layers.BLOCK_REACH
        needed: list[tuple[int, int]] = []  # of the features of each level, in its own pixels
        for level, halve in enumerate(self.halved):
            if halve:
                first, last = first // 2, last // 2  # nearest neighbours
            merge = 0 if level == len(self.halved) - 1 else self.merge_reach  # nothing comes down to the top
            carry_on = level > 0 or not self.code_is_latent
            # The block on the way down, the merge and what inserts the latents; the posterior and its own merge.
            grow = (block + merge + 1 if carry_on else 0) + 1 + merge
            first, last = first - grow, last + grow
            needed.append((first, last))
        for own, halve in zip(reversed(needed), reversed(self.halved), strict=True):
            first, last = min(first, own[0]) - block, max(last, own[1]) + block
            if halve:
                first, last = 2 * first - 1, 2 * last + 1
        return first - 2, last + 2  # the stem

    def bottom_up(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """Features of the noisy image, finest level first. Depends on x alone: one pass serves all samples."""
        h = self.stem(x)
        features = []
        for level in self.levels:
            h = level.bottom_up(h)  # type: ignore[operator]
            features.append(h)
        return features

    def top_down(
        self, features: Sequence[Tensor], draw: Draw = fresh_noise, with_kl: bool = True
    ) -> tuple[Float[Tensor, "b s *space"], list[Tensor]]:
        """Sample the latents from the posterior, coarsest first.

        Returns the code and, unless ``with_kl`` is off, the KL of each level (nats, summed over everything),
        finest first. Without the KL the prior is never computed.
        """
        down: Tensor | None = None
        kls: list[Tensor] = []
        z = features[-1]
        for index in reversed(range(len(self.levels))):
            level: Level = self.levels[index]  # type: ignore[assignment]
            posterior = level.get_posterior(features[index], down)
            z = posterior.sample(draw(index, posterior.mean.shape, posterior.mean.device))
            if with_kl:
                kls.insert(0, kl(posterior, level.get_prior(down)).sum())
            if index > 0 or not self.code_is_latent:
                down = level.top_down(z, down)
        return self._code(z, down), kls

    def generate(
        self, shape: Sequence[int], device: torch.device, draw: Draw = fresh_noise
    ) -> Float[Tensor, "b s *space"]:
        """A code from the prior for images of ``shape`` (b, *space); edges are multiples of ``self.stride``."""
        batch, *space = shape
        size = [edge // self.stride for edge in space]
        down: Tensor | None = None
        z = torch.empty(0)
        for index in reversed(range(len(self.levels))):
            level: Level = self.levels[index]  # type: ignore[assignment]
            if down is not None:
                size = list(down.shape[2:])
            z = level.get_prior(down).sample(draw(index, torch.Size([batch, level.latents, *size]), device))
            if index > 0 or not self.code_is_latent:
                down = level.top_down(z, down)
        return self._code(z, down)

    def _code(self, z: Tensor, down: Tensor | None) -> Tensor:
        if not self.code_is_latent:
            assert down is not None
            return down
        return layers.double(z) if self.levels[0].halve else z
