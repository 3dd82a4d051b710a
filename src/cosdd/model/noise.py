"""The noise decoder: autoregressive along the noise axis, with a Gaussian mixture for every pixel.

Its receptive field holds earlier pixels of the same row and nothing else, so it can explain noise that is
correlated along the row but not the image; the image is left to the latents (supplement section 3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.layers import CONVOLUTION, Stem, convolution

HALF_LOG_TWO_PI = 0.9189385332046727
LARGEST_SIGMA = 1e3  # in units of the images' standard deviation


def mixture_nll(
    x: Float[Tensor, "b c *space"],
    logits: Float[Tensor, "b c k *space"],
    means: Float[Tensor, "b c k *space"],
    sigmas: Float[Tensor, "b c k *space"],
) -> Float[Tensor, "b c *space"]:
    """Negative log-likelihood of each pixel in nats under its Gaussian mixture."""
    z = (x.unsqueeze(2) - means) / sigmas
    log_components = F.log_softmax(logits, dim=2) - 0.5 * z * z - torch.log(sigmas) - HALF_LOG_TWO_PI
    return -torch.logsumexp(log_components, dim=2)


class CausalConvolution(nn.Module):
    """A convolution along one axis that sees pixels up to the present one, or strictly before it.

    Strictly before (the first layer): pad ``kernel`` zeros, drop the last output. Later: pad ``kernel - 1``.
    """

    def __init__(self, dimensions: int, axis: int, inputs: int, outputs: int, kernel: int, dilation: int, strict: bool):
        """``axis``: -1 for x, -2 for y, -3 for z."""
        super().__init__()
        size, spread = [1] * dimensions, [1] * dimensions
        size[axis], spread[axis] = kernel, dilation
        self.convolution = CONVOLUTION[dimensions](inputs, outputs, tuple(size), dilation=tuple(spread))
        self.axis, self.strict = axis, strict
        before = dilation * (kernel - 1) + (1 if strict else 0)
        self.pads = [0] * (2 * (-axis - 1)) + [before, 0]  # F.pad wants the last axis first
        self.reach = before

    def forward(self, h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b f *space"]:
        # Dropping the last input is dropping the last output: a strict layer never sees the present pixel.
        if self.strict:
            h = h.narrow(self.axis, 0, h.shape[self.axis] - 1)
        return self.convolution(F.pad(h, self.pads))


class NoiseDecoder(nn.Module):
    """p(x | code) = product over rows and pixels of p(x_ij | x_i,<j, code): nll and its parameters."""

    def __init__(
        self,
        dimensions: int,
        channels: int,
        code_channels: int,
        noise_axis: str,
        *,
        layers: int,
        features: int,
        kernel: int,
        dilation: int,
        components: int,
    ):
        super().__init__()
        self.channels, self.components, self.depth = channels, components, layers
        self.from_code = convolution(dimensions, code_channels, layers * features, 1)
        # Context exists for x, y and z; with noise axis "none" the code alone decides.
        self.causal = nn.ModuleList()
        self.reach = 0
        if noise_axis != "none":
            axis = {"x": -1, "y": -2, "z": -3}[noise_axis]
            for layer in range(layers):
                # One input channel more than the image has: it is 1 where a pixel exists, so that the
                # zeros outside the image cannot be mistaken for grey values.
                inputs = channels + 1 if layer == 0 else features
                spread = dilation if layer % 2 else 1
                causal = CausalConvolution(dimensions, axis, inputs, features, kernel, spread, strict=layer == 0)
                self.reach += causal.reach
                self.causal.append(Stem(causal) if layer == 0 else causal)
        self.mix = nn.ModuleList(convolution(dimensions, features, features, 1) for _ in range(layers))
        self.head = convolution(dimensions, features, 3 * components * channels, 1)
        self.smallest_sigma: Tensor
        self.register_buffer("smallest_sigma", torch.tensor(1e-3))

    def set_smallest_sigma(self, sigma: float) -> None:
        """Floor of the mixture's sigmas, in units of the images' standard deviation; saved with the weights."""
        self.smallest_sigma.fill_(sigma)

    def forward(
        self, x: Float[Tensor, "b c *space"], code: Float[Tensor, "b s *space"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and sigmas of every pixel's mixture, each float32 (b, c, k, *space)."""
        from_code = self.from_code(code).chunk(self.depth, dim=1)
        h = torch.empty(0)
        for layer in range(self.depth):
            skip = h if layer > 0 else None
            inner = from_code[layer]
            if self.causal:
                earlier = torch.cat([x, torch.ones_like(x[:, :1])], dim=1) if layer == 0 else h
                inner = inner + self.causal[layer](earlier)
            elif skip is not None:
                inner = inner + skip
            h = self.mix[layer](F.relu(inner))
            h = h if skip is None else h + skip
        with torch.autocast(x.device.type, enabled=False):
            theta = self.head(h.float())
        theta = theta.unflatten(1, (3, self.channels, self.components))
        logits, means, raw = theta.unbind(1)
        # The floor is tied to the grey step of the data: repeated values cannot be fitted infinitely well.
        return logits, means, (self.smallest_sigma + F.softplus(raw)).clamp(max=LARGEST_SIGMA)

    def nll(self, x: Float[Tensor, "b c *space"], code: Float[Tensor, "b s *space"]) -> Float[Tensor, "b c *space"]:
        """-log p(x | code) of every pixel in nats."""
        return mixture_nll(x, *self(x, code))
