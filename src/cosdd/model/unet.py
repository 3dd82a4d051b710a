"""The U-Net of the direct denoiser and of the blind-row denoiser."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.layers import CONVOLUTION, PlainBlock, Stem, convolution, double


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

        self.blocks = blocks
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
        return 2 ** len(self.halve)

    @property
    def reach(self) -> int:
        """No pixel further away than this matters for a result, wherever both lie (to tile images exactly)."""
        block = 2 * self.blocks  # two 3-wide convolutions in each

        def entering(radius: int, level: int) -> int:
            """Radius of the input of a level, in its pixels, that its output needs within `radius`."""
            if level == len(self.halve):
                return radius + block
            radius += block
            coarser = entering(-(-radius // 2), level + 1)
            return 2 * coarser + 1 + block

        return entering(0, 0) + 1  # and the stem

    def forward(self, x: Float[Tensor, "b i *space"]) -> Float[Tensor, "b o *space"]:
        space = x.shape[2:]
        x = F.pad(x, [p for n in reversed(space) for p in (0, -n % self.stride)], mode="replicate")
        h, skips = self.stem(x), []
        for down, halve in zip(self.down, self.halve, strict=False):  # the last level has nothing below it
            skips.append(down(h))
            h = halve(skips[-1])
        h = self.down[-1](h)
        for rise, up, skip in reversed(list(zip(self.rise, self.up, skips, strict=True))):
            h = up(skip + double(rise(h)))
        with torch.autocast(x.device.type, enabled=False):
            y = self.head(h.to(self.head.weight.dtype))
        return y[(..., *(slice(n) for n in space))]
