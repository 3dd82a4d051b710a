"""Convolutions and residual blocks for 1, 2 and 3 dimensions.

Layers take plain values. Tensors are ``(b, c, *space)``; the last space axis is x, the one before it y, then z.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class VolumeConvolution(nn.Conv3d):
    """A single plane is convolved as an image, which is exact, and all that can be trusted there: oneDNN's bfloat16
    reads foreign memory where a volume of one plane has few channels (torch 2.13)."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        middle, padding = self.kernel_size[0] // 2, self.padding
        if input.shape[2] > 1 or isinstance(padding, str) or padding[0] != middle:
            return super()._conv_forward(input, weight, bias)
        plane, weight = input[:, :, 0], weight[:, :, middle]
        return F.conv2d(plane, weight, bias, self.stride[1:], padding[1:], self.dilation[1:], self.groups)[:, :, None]


CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: VolumeConvolution}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
ACTIVATION = {"mish": nn.Mish, "silu": nn.SiLU, "relu": nn.ReLU}


def fill_missing(x: Float[Tensor, "b c *space"]) -> tuple[Float[Tensor, "b c *space"], Bool[Tensor, "b c *space"]]:
    """Missing pixels (NaN) replaced by the mean of their neighbours; and which are known.

    0 where half of the neighbours miss too, as outside of an image: a mean of its last row would repeat the noise.
    """
    known = ~torch.isnan(x)
    if x.device.type != "cpu":  # a count of what is missing would have to come from the device
        return _filled_everywhere(x, known), known
    if known.all():
        return x, known
    batch, channel, *position = (~known).nonzero(as_tuple=True)
    total, count = torch.zeros_like(x[batch, channel, *position]), torch.zeros_like(batch)
    missing = torch.full_like(batch, -1)  # less the pixel itself
    for step in product((-1, 0, 1), repeat=len(position)):
        near = [p + s for p, s in zip(position, step, strict=True)]
        clamped = [n.clamp(0, size - 1) for n, size in zip(near, x.shape[2:], strict=True)]
        inside = torch.stack([n == c for n, c in zip(near, clamped, strict=True)]).all(0)
        neighbour = x[batch, channel, *clamped]
        seen = inside & ~neighbour.isnan()
        total += torch.where(seen, neighbour, 0)
        count += seen
        missing += inside & ~seen
    filled = x.clone()
    filled[batch, channel, *position] = torch.where(count > missing, total / count.clamp_min(1), 0)
    return filled, known


def _filled_everywhere(
    x: Float[Tensor, "b c *space"], known: Bool[Tensor, "b c *space"]
) -> Float[Tensor, "b c *space"]:
    """The image of `fill_missing`, from means of neighbours around every pixel, also those that need none."""
    pads, space = [1, 1] * (x.dim() - 2), x.shape[2:]
    values, seen, missing = (
        F.pad(t, pads) for t in (torch.where(known, x, 0), known.to(x.dtype), (~known).to(x.dtype))
    )
    total, count, unseen = torch.zeros_like(x), torch.zeros_like(x), torch.full_like(x, -1)  # less the pixel itself
    for step in product(range(3), repeat=len(space)):
        near = (..., *(slice(s, s + size) for s, size in zip(step, space, strict=True)))
        total += values[near]
        count += seen[near]
        unseen += missing[near]
    return torch.where(known, x, torch.where(count > unseen, total / count.clamp_min(1), 0))


def convolution(
    dimensions: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: str = "zeros"
) -> nn.Module:
    """A convolution that keeps the size (or divides it by ``stride``); ``padding`` is what it sees outside."""
    kinds = REFLECTING if padding == "reflect" and kernel > 1 else CONVOLUTION
    return kinds[dimensions](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def _reflecting(kind: type) -> type[nn.Module]:
    class Reflecting(kind):
        """Reflects the image at its borders, also where it is smaller than the kernel."""

        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            pads = [edge for edge in reversed(self.padding) for _ in range(2)]
            return CONVOLVE[len(pads) // 2](reflect(x, pads), weight, bias, self.stride)

    return Reflecting


CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
REFLECTING = {dimensions: _reflecting(kind) for dimensions, kind in CONVOLUTION.items()}


def hand_over(h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
    """Pass float32 features on in the arithmetic of the networks, channels last (quickest on CPU and GPU)."""
    if torch.is_autocast_enabled(h.device.type):
        h = h.to(torch.get_autocast_dtype(h.device.type))
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(h.dim(), torch.contiguous_format)
    return h.contiguous(memory_format=layout)


def at_least_float32(h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
    """Of networks in bfloat16, what must not be rounded so."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


class Stem(nn.Module):
    """The first convolution, in float32: bfloat16 would round the grey values themselves."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b f *space"]:
        with torch.autocast(x.device.type, enabled=False):
            h = self.layer(x)
        return hand_over(h)


def start_at_zero(layer: nn.Module) -> nn.Module:
    """Zero a layer's weights, so that the branch it ends is silent at the start of training."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Gate(nn.Module):
    """Gated block: ``tanh(a) * sigmoid(b)`` with (a, b) from a 1x1 convolution (van den Oord 2016)."""

    def __init__(self, dimensions: int, features: int):
        super().__init__()
        self.mix = convolution(dimensions, features, 2 * features, 1)

    def forward(self, h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        a, b = self.mix(h).chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)


class SupplementBlock(nn.Module):
    """Residual block of two (convolution, batch norm, Mish), followed by a gated block (supplement section 3)."""

    def __init__(self, dimensions: int, features: int, activation: str = "mish", padding: str = "reflect"):
        super().__init__()

        def half() -> list[nn.Module]:
            return [
                convolution(dimensions, features, features, padding=padding),
                BATCH_NORM[dimensions](features),
                ACTIVATION[activation](),
            ]

        self.residual = nn.Sequential(*half(), *half())
        self.gate = Gate(dimensions, features)

    def forward(self, h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return self.gate(h + self.residual(h))


class PlainBlock(nn.Module):
    """Residual block of two (activation, convolution) without normalisation: quick, same in training and use."""

    def __init__(self, dimensions: int, features: int, activation: str = "silu", padding: str = "zeros"):
        super().__init__()
        self.residual = nn.Sequential(
            ACTIVATION[activation](),
            convolution(dimensions, features, features, padding=padding),
            ACTIVATION[activation](),
            start_at_zero(convolution(dimensions, features, features, padding=padding)),
        )

    def forward(self, h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return h + self.residual(h)


# Radius of what a block sees: two 3-wide convolutions in either.
BLOCK_REACH = 2
BLOCK = {"supplement": SupplementBlock, "plain": PlainBlock}


def halved_sizes(levels: int, downsampling: str) -> list[bool]:
    """For each level, finest first: does it halve the image on entry?"""
    return {
        "every": [True] * levels,
        "after_first": [level > 0 for level in range(levels)],
        "alternating": [level % 2 == 1 for level in range(levels)],
    }[downsampling]


def feature_counts(features: int, max_features: int, halved: list[bool]) -> list[int]:
    """Feature channels per level, finest first: doubled where the image halves, up to ``max_features``."""
    counts, count = [], features
    for level, halve in enumerate(halved):
        if halve and level > 0:
            count = min(2 * count, max(features, max_features))
        counts.append(count)
    return counts


def double(h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *doubled"]:
    """Upsample by two, nearest neighbour."""
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


def pad_to_multiple(
    x: Float[Tensor, "b c *space"], multiple: int, margin: int = 0, room: int = 0
) -> tuple[Float[Tensor, "b c *padded"], tuple[slice, ...]]:
    """Reflect the image at its borders until each edge is a multiple of ``multiple``.

    At least ``margin`` pixels are added on every side where the image is large enough to reflect that far. With
    ``room``, so many more in front: whatever of the padded size begins at pixel 0 to ``room`` has all of the image.
    Returns the padded image and the slices that cut the image out of anything of the padded size.
    """
    pads: list[int] = []
    window: list[slice] = []
    for size in x.shape[2:]:
        before = min(margin, size - 1)
        at_least = max(before, room)
        after = -(size + before + at_least) % multiple + at_least
        pads = [before + room, after, *pads]  # F.pad wants the last axis first
        window.append(slice(before + room, before + room + size))
    return reflect(x, pads), (slice(None), slice(None), *window)


def reflect(x: Float[Tensor, "b c *space"], pads: list[int]) -> Float[Tensor, "b c *padded"]:
    """Reflect-pad, again and again where the image is smaller than the padding asked for."""
    while any(pads):
        sizes = [size for size in reversed(x.shape[2:]) for _ in range(2)]
        now = [min(pad, max(size - 1, 0)) for pad, size in zip(pads, sizes, strict=True)]
        if any(now):
            x = F.pad(x, now, mode="reflect")
        else:  # an axis of a single pixel has nothing to reflect: repeat it
            now = pads
            x = F.pad(x, now, mode="replicate")
        pads = [pad - step for pad, step in zip(pads, now, strict=True)]
    return x
