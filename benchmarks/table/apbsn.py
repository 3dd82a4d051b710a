"""AP-BSN (Lee et al., CVPR 2022), written from the paper and its published settings.

A network with a blind centre pixel sees the image taken apart into sub-images of every fifth pixel, which are less
correlated than neighbours (stride 2 when it denoises, which keeps more detail); eight further passes with random
pixels put back (R3) smooth what the taking apart left. Made for correlation that is shorter than the stride.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table.task import Fitted, Task
from cosdd import device
from cosdd.model.layers import reflect

CROP, BATCH = 120, 8
TRAINED_AT, DENOISED_AT, BORDER = 5, 2, 2  # strides; zeros around every sub-image
PASSES, REPLACED = 8, 0.16


class CentreMasked(nn.Conv2d):
    """A convolution that never sees the pixel it predicts."""

    def __init__(self, features: int, kernel: int) -> None:
        super().__init__(features, features, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class Dilated(nn.Module):
    """Residual module: its dilation keeps every path away from the blind pixel."""

    def __init__(self, features: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class BlindSpot(nn.Module):
    """The dilated blind-spot network of AP-BSN: two branches, of 3 x 3 and 5 x 5 masked convolutions."""

    def __init__(self, channels: int = 1, features: int = 128, modules: int = 9) -> None:
        super().__init__()

        def one(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())

        def branch(dilation: int) -> nn.Sequential:
            return nn.Sequential(
                CentreMasked(features, 2 * dilation - 1),
                nn.ReLU(),
                one(features, features),
                one(features, features),
                *(Dilated(features, dilation) for _ in range(modules)),
                one(features, features),
            )

        self.head = one(channels, features)
        self.branches = nn.ModuleList(branch(dilation) for dilation in (2, 3))
        self.tail = nn.Sequential(
            one(2 * features, features),
            one(features, features // 2),
            one(features // 2, features // 2),
            nn.Conv2d(features // 2, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        return self.tail(torch.cat([branch(h) for branch in self.branches], 1))


def taken_apart(x: Tensor, stride: int, border: int = BORDER) -> Tensor:
    """(b, c, y, x) -> its stride^2 sub-images with zeros around each, tiled into one image."""
    b, c, height, width = x.shape
    x = x.reshape(b, c, height // stride, stride, width // stride, stride).permute(0, 1, 3, 2, 5, 4)
    x = F.pad(x.movedim(-2, 3), (border,) * 4)  # (b, c, stride, stride, y, x)
    return x.transpose(3, 4).reshape(b, c, stride * x.shape[-2], stride * x.shape[-1])


def put_together(x: Tensor, stride: int, border: int = BORDER) -> Tensor:
    """The inverse of ``taken_apart``."""
    b, c, height, width = x.shape
    x = x.reshape(b, c, stride, height // stride, stride, width // stride)
    inner = slice(border, -border or None)
    x = x[:, :, :, inner, :, inner]
    return x.permute(0, 1, 3, 2, 5, 4).reshape(b, c, height - 2 * stride * border, width - 2 * stride * border)


def through(network: nn.Module, x: Tensor, stride: int) -> Tensor:
    return put_together(network(taken_apart(x, stride)), stride)


def denoised(network: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """One image (1, 1, y, x): stride 2, then the mean of eight passes with random noisy pixels put back (R3)."""
    height, width = x.shape[-2:]
    padded = reflect(x, [0, -width % DENOISED_AT, 0, -height % DENOISED_AT])
    first = through(network, padded, DENOISED_AT)[..., :height, :width]
    total = torch.zeros_like(first)
    for _ in range(PASSES):
        back = torch.rand(x.shape, generator=generator).to(x) < REPLACED
        mixed = reflect(torch.where(back, x, first), [BORDER] * 4)
        total += network(mixed)[..., BORDER : BORDER + height, BORDER : BORDER + width]
    return total / PASSES


def ap_bsn(task: Task) -> Fitted:
    """Reference settings; the two falls of the learning rate come at 8/20 and 16/20 of the budget."""
    used, where = task.start(), device.best()
    torch.manual_seed(task.seed)
    rng = np.random.default_rng(task.seed)
    low, high = np.percentile(task.train, [0.1, 99.9])
    edge = min(CROP, *(size // TRAINED_AT * TRAINED_AT for size in task.train.shape[1:]))
    network = BlindSpot().to(where)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    step = 0
    while (share := used()) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1e-4 * 0.1 ** math.floor(share / 0.4)
        crops = np.stack([_crop(rng, task.train, edge) for _ in range(BATCH)])
        x = torch.from_numpy((crops - low) * (255 / (high - low))).float()[:, None].to(where)
        optimiser.zero_grad(set_to_none=True)
        F.l1_loss(through(network, x, TRAINED_AT), x).backward()
        optimiser.step()
        step += 1

    @torch.inference_mode()
    def denoise(images: np.ndarray) -> np.ndarray:
        generator, results = torch.Generator().manual_seed(task.seed), []
        for image in images:
            x = torch.from_numpy((image - low) * (255 / (high - low))).float()[None, None].to(where)
            results.append(denoised(network, x, generator)[0, 0].cpu().numpy() * (high - low) / 255 + low)
        return np.stack(results)

    facts: dict[str, Any] = {"batch": BATCH, "crop": edge, "strides": [TRAINED_AT, DENOISED_AT]}
    return Fitted({"AP-BSN": denoise}, step, facts)


def _crop(rng: np.random.Generator, images: np.ndarray, edge: int) -> np.ndarray:
    """A random crop, flipped and turned at random."""
    image = images[rng.integers(len(images))]
    y, x = (rng.integers(size - edge + 1) for size in image.shape)
    crop = np.rot90(image[y : y + edge, x : x + edge], int(rng.integers(4)))
    return crop[:, ::-1] if rng.integers(2) else crop
