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


class Merge(nn.Module):
    """Join two feature maps: a 1x1 convolution of both together, then a block."""

    def __init__(self, dimensions: int, features: int, block: nn.Module):
        super().__init__()
        self.mix = layers.convolution(dimensions, 2 * features, features, 1)
        self.block = block

    def part(self, a: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """What the first map adds to the convolution: computed once where only the second one changes."""
        return self._mix(a, self.mix.weight[:, : a.shape[1]], self.mix.bias)  # type: ignore[index]

    def forward(self, part: Float[Tensor, "b c *space"], b: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """``part``: of the first map."""
        return self.block(part + self._mix(b, self.mix.weight[:, -b.shape[1] :]))  # type: ignore[index]

    def _mix(self, h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return layers.CONVOLVE[h.dim() - 2](h, weight, bias)


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

        self.latents, self.top = latents, top
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

    def evidence(self, up: Float[Tensor, "b f *space"]) -> Float[Tensor, "b e *space"]:
        """All that the posterior needs of the image and nothing else has a part in; at the top the posterior itself."""
        return self.posterior(up) if self.top else self.merge_up.part(up)

    def get_posterior(self, evidence: Float[Tensor, "b e *space"], down: Tensor | None) -> Normal:
        return Normal.of(evidence if down is None else self.posterior(self.merge_up(evidence, down)))

    def get_prior(self, down: Tensor | None) -> Normal:
        return Normal.of(self.top_prior if down is None else self.prior(down))

    def top_down(self, z: Float[Tensor, "b z *space"], down: Tensor | None) -> Float[Tensor, "b g *space"]:
        h = self.insert(z)
        if self.merge_latents is not None:
            h = self.merge_latents(self.merge_latents.part(h), down)
        h = self.down(h)
        # A 1x1 convolution commutes with upsampling; done first it is 2^d times cheaper.
        return h if self.leave is None else self.leave(h)


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
        self.counts = layers.feature_counts(features, max_features, halved)
        self.dimensions = dimensions
        self.code_is_latent = decoder_input == "latent"
        self.code_channels = final_latents if self.code_is_latent else features
        self.sight = self._sight(halved, layers.BLOCK_REACH if block == "supplement" else 0)

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
                self.counts[level],
                self.counts[max(level - 1, 0)],
                latents if level > 0 else final_latents,
                halve=halved[level],
                top=level == levels - 1,
                carry_on=level > 0 or not self.code_is_latent,
                block=lambda count=self.counts[level]: make_block(count),
                merge_block=lambda count=self.counts[level]: make_merge_block(count),
                padding=padding,
            )
            for level in range(levels)
        )

    @property
    def stride(self) -> int:
        """Pixels of the image to one of the coarsest level."""
        return self.sight.strides[-1]

    def _sight(self, halved: list[bool], merge: int) -> Sight:
        """``merge``: radius of the block in a merge."""
        up, down = [], []
        for level in range(len(halved)):
            top, carry_on = level == len(halved) - 1, level > 0 or not self.code_is_latent
            merges = 0 if top else merge  # nothing comes down to the top
            # The posterior with its merge; then what inserts the latents, their merge, and the block on the way down.
            down.append(merges + 1 + (1 + merges + layers.BLOCK_REACH if carry_on else 0))
            up.append(layers.BLOCK_REACH)
        return Sight(tuple(halved), tuple(up), tuple(down), enter=1, stem=2)

    def bottom_up(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """What the posterior of each level needs of the noisy image, finest first; one pass serves all samples."""
        return self.climb(x)[0]

    def climb(self, h: Tensor, first: int = 0, stop: int | None = None) -> tuple[list[Tensor], Tensor]:
        """``bottom_up`` from level ``first`` to below ``stop``, and what enters that one (after the top: its features).

        h: what enters level ``first``; the image where that is 0.
        """
        stop = len(self.levels) if stop is None else stop
        evidence = []
        if first == 0:
            h = self._enter(self.stem(h), 0)
        for index in range(first, stop):
            level: Level = self.levels[index]  # type: ignore[assignment]
            h = level.up(h)
            evidence.append(level.evidence(h))
            h = self._enter(h, index + 1)
        return evidence, h

    def _enter(self, h: Tensor, index: int) -> Tensor:
        enter = self.levels[index].enter if index < len(self.levels) else None
        return h if enter is None else enter(h)  # type: ignore[operator]

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
        finest first. Without the KL the prior is never computed.

        evidence: of the levels from ``first`` on. down: what comes from the level above them, where there is one.
        Where ``first`` is not 0, there is no code yet: returned is what comes down from that level.
        """
        kls: list[Tensor] = []
        z = torch.empty(0)
        for index in reversed(range(first, first + len(evidence))):
            level: Level = self.levels[index]  # type: ignore[assignment]
            down = self._rise(down, index + 1)
            posterior = level.get_posterior(evidence[index - first], down)
            z = posterior.sample(draw(index, posterior.mean.shape, posterior.mean.device))
            if with_kl:
                kls.insert(0, kl(posterior, level.get_prior(down)).sum())
            if index > 0 or not self.code_is_latent:
                down = level.top_down(z, down)
        if first > 0:
            assert down is not None
            return down, kls
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
            down = self._rise(down, index + 1)
            if down is not None:
                size = list(down.shape[2:])
            z = level.get_prior(down).sample(draw(index, torch.Size([batch, level.latents, *size]), device))
            if index > 0 or not self.code_is_latent:
                down = level.top_down(z, down)
        return self._code(z, down)

    def _rise(self, down: Tensor | None, index: int) -> Tensor | None:
        """What comes down from a level, in the size of the next finer one."""
        return down if down is None or not self.sight.halves[index] else layers.double(down)

    def _code(self, z: Tensor, down: Tensor | None) -> Tensor:
        code = self._rise(z if self.code_is_latent else down, 0)
        assert code is not None
        return code
