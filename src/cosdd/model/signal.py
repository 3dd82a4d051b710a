"""From code to clean image: the signal decoder; and from noisy to clean in one pass: the direct denoiser."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.layers import PlainBlock, Stem, convolution, double


class SignalDecoder(nn.Module):
    """Code -> clean image: 3-wide convolutions with ReLU (supplement section 3), then a linear map to the channels."""

    def __init__(
        self,
        dimensions: int,
        channels: int,
        code_channels: int,
        *,
        layers: int,
        features: int,
        padding: str,
    ):
        super().__init__()
        parts: list[nn.Module] = []
        inputs = code_channels
        for _ in range(layers):
            parts += [convolution(dimensions, inputs, features, padding=padding), nn.ReLU()]
            inputs = features
        self.hidden = nn.Sequential(*parts)
        self.head = convolution(dimensions, inputs, channels, 1)

    def forward(self, code: Float[Tensor, "b s *space"]) -> Float[Tensor, "b c *space"]:
        h = self.hidden(code)
        with torch.autocast(code.device.type, enabled=False):
            return self.head(h.float())


class DirectDenoiser(nn.Module):
    """Noisy image -> mean of the clean images in one pass: a U-Net (Salmon and Krull 2023)."""

    def __init__(self, dimensions: int, channels: int, levels: int, features: int, padding: str):
        super().__init__()
        counts = [features * min(2**level, 2) for level in range(levels)]

        def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return convolution(dimensions, inputs, outputs, kernel, stride, padding)

        self.stem = Stem(conv(channels, features, 5))
        self.down_blocks = nn.ModuleList(PlainBlock(dimensions, count, padding=padding) for count in counts)
        self.enter = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(counts))
        self.leave = nn.ModuleList(conv(b, a, 1) for a, b in itertools.pairwise(counts))
        self.merge = nn.ModuleList(conv(2 * count, count, 1) for count in counts[:-1])
        self.up_blocks = nn.ModuleList(PlainBlock(dimensions, count, padding=padding) for count in counts[:-1])
        self.head = conv(features, channels, 1)
        self.stride = 2 ** (levels - 1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        h = self.stem(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down_blocks):
            h = block(h if level == 0 else self.enter[level - 1](h))
            skips.append(h)
        for level in reversed(range(len(self.up_blocks))):
            h = double(self.leave[level](h))
            h = self.up_blocks[level](self.merge[level](torch.cat([h, skips[level]], dim=1)))
        with torch.autocast(x.device.type, enabled=False):
            return self.head(h.float())
