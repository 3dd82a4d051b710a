"""A ladder whose latents start empty, as in the paper (supplement section 3): they hold what they learn to hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model import layers
from cosdd.model.ladder import Ladder, Normal
from cosdd.model.sight import Sight


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


class EmptyLevel(nn.Module):
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


class EmptyLadder(Ladder):
    """What comes down to a level is features; in the end they are the code, or the finest latents themselves are."""

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
            EmptyLevel(
                dimensions,
                self.counts[level],
                self.counts[max(level - 1, 0)],
                latents if level > 0 else final_latents,
                halve=halved[level],
                top=level == levels - 1,
                carry_on=level > 0 or not self.code_is_latent,
                block=partial(make_block, self.counts[level]),
                merge_block=partial(make_merge_block, self.counts[level]),
                padding=padding,
            )
            for level in range(levels)
        )

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

    def enter(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        return self._enter(self.stem(x), 0)

    def ascend(self, index: int, h: Tensor) -> tuple[Tensor, Tensor]:
        level = self._level(index)
        h = level.up(h)
        return level.evidence(h), self._enter(h, index + 1)

    def _enter(self, h: Tensor, index: int) -> Tensor:
        enter = self._level(index).enter if index < len(self.levels) else None
        return h if enter is None else enter(h)

    def above(self, index: int, down: Tensor | None) -> Tensor | None:
        return None if down is None else self._rise(down, index + 1)

    def prior(self, index: int, above: Tensor | None) -> Normal:
        return self._level(index).get_prior(above)

    def infer(
        self, index: int, evidence: Tensor, above: Tensor | None, with_prior: bool
    ) -> tuple[Normal, Normal | None]:
        level = self._level(index)
        return level.get_posterior(evidence, above), level.get_prior(above) if with_prior else None

    def descend(self, index: int, z: Tensor, above: Tensor | None) -> Tensor:
        return z if index == 0 and self.code_is_latent else self._level(index).top_down(z, above)

    def code(self, down: Tensor) -> Float[Tensor, "b s *space"]:
        return self._rise(down, 0)

    def _rise(self, down: Tensor, index: int) -> Tensor:
        """What comes down from a level, in the size of the next finer one."""
        return layers.double(down) if self.sight.halves[index] else down

    def _level(self, index: int) -> EmptyLevel:
        return self.levels[index]  # type: ignore[return-value]
