"""From code to clean image: the signal decoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.layers import at_least_float32, convolution, start_at_zero


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
        centred: bool = False,
    ):
        """centred: the code begins with an image, to which the network adds."""
        super().__init__()
        self.channels, self.centred = channels, centred
        parts: list[nn.Module] = []
        inputs = code_channels
        for _ in range(layers):
            parts += [convolution(dimensions, inputs, features, padding=padding), nn.ReLU()]
            inputs = features
        self.hidden = nn.Sequential(*parts)
        self.reach = layers  # radius of what a pixel sees: each layer is 3 wide
        self.head = convolution(dimensions, inputs, channels, 1)
        if centred:
            start_at_zero(self.head)

    def forward(self, code: Float[Tensor, "b s *space"]) -> Float[Tensor, "b c *space"]:
        h = self.hidden(code)
        with torch.autocast(code.device.type, enabled=False):
            clean = self.head(at_least_float32(h))
            return clean + at_least_float32(code[:, : self.channels]) if self.centred else clean
