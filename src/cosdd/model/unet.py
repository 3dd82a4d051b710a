"""The U-Net of the direct denoiser and of the blind-row denoiser."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.layers import BLOCK_REACH, CONVOLUTION, PlainBlock, Stem, convolution, double
from cosdd.model.sight import Sight


class UNet(nn.Module):
    """Residual U-Net without normalisation layers, for images of any size (padded by repetition, then cropped).

    `features`: channels of each level, finest first; every level but the finest halves the image. `blocks`: residual
    blocks of a level on the way down, and again on the way up. Grey values enter, and results leave, in float32.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        features: Sequence[int],
        blocks: int = 1,
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        steps = list(itertools.pairwise(features))

        def stack(width: int) -> nn.Sequential:
            return nn.Sequential(*(PlainBlock(dimensions, width, padding=padding) for _ in range(blocks)))

        self.counts, block = list(features), BLOCK_REACH * blocks
        self.sight = Sight(
            halves=(False, *[True] * len(steps)), up=(block,) * len(features), down=(*[block] * len(steps), 0),
            enter=0, stem=1,
        )  # fmt: skip
        self.stem = Stem(convolution(dimensions, inputs, features[0], padding=padding))
        self.down = nn.ModuleList(stack(f) for f in features)
        self.halve = nn.ModuleList(CONVOLUTION[dimensions](a, b, 2, stride=2) for a, b in steps)
        self.rise = nn.ModuleList(convolution(dimensions, b, a, 1) for a, b in steps)
        self.up = nn.ModuleList(stack(f) for f in features[:-1])
        self.head = CONVOLUTION[dimensions](features[0], outputs, 1)
        nn.init.kaiming_uniform_(self.head.weight, a=25.0)  # the first results are close to zero
        nn.init.zeros_(self.head.bias)

    @property
    def stride(self) -> int:
        """Pixels of the image to one of the coarsest level."""
        return self.sight.strides[-1]

    @property
    def reach(self) -> int:
        """No pixel further away than this matters for a result, wherever both lie (to tile images exactly)."""
        seen = [(pixel, *self.sight.sees(pixel, pixel, len(self.down))) for pixel in range(self.stride)]
        return max(max(pixel - first, last - pixel) for pixel, first, last in seen)

    def forward(self, x: Float[Tensor, "b i *space"]) -> Float[Tensor, "b o *space"]:
        space = x.shape[2:]
        x = F.pad(x, [p for n in reversed(space) for p in (0, -n % self.stride)], mode="replicate")
        return self.top_down(self.climb(x)[0])[(..., *(slice(n) for n in space))]

    def climb(self, h: Tensor, first: int = 0, stop: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Features of the levels from ``first`` to below ``stop``, and what enters that one (after the top: the last).

        h: what enters level ``first``; where that is 0, an image whose edges are multiples of the strides.
        """
        features = []
        if first == 0:
            h = self.stem(h)
        for index in range(first, len(self.down) if stop is None else stop):
            h = self.down[index](h)
            features.append(h)
            if index < len(self.halve):
                h = self.halve[index](h)
        return features, h

    def top_down(self, features: Sequence[Tensor], first: int = 0, down: Tensor | None = None) -> Tensor:
        """The result; or, where ``first`` is not 0, what comes down from that level.

        features: of the levels from ``first`` on. down: what comes from the level above them, where there is one.
        """
        for index in reversed(range(first, first + len(features))):
            h = features[index - first]
            if down is not None:
                h = self.up[index](h + double(down))
            down = self.rise[index - 1](h) if index else h
        assert down is not None
        if first > 0:
            return down
        with torch.autocast(down.device.type, enabled=False):
            return self.head(down.to(self.head.weight.dtype))
