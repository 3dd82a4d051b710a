"""Two plain controls that use our assumption, noise independent from row to row, and nothing else.

Network (that of ``auto``), optimiser, learning rate, crops, moving average and choice of the best weights on held-out
frames are those of ``auto``, so that what differs is the idea. Its last step needs no more than an estimate and the
noise measured across the rows, so theirs are refined by it as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table.task import Fitted, Task
from cosdd import config, device, noisefloor
from cosdd.data import Frames
from cosdd.model import wiener
from cosdd.model.blindrow import BlindRow
from cosdd.model.rownoise import RowNoise
from cosdd.model.unet import UNet

SETTINGS = config.build("tiny", {"method": "blind-row"})


class RowSplit(nn.Module):
    """Noise2Noise within one image: the even rows predict the odd ones or the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(2, 1, 1, SETTINGS.blind_row.features, SETTINGS.blind_row.blocks)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.network(x)

    def loss(self, x: Tensor) -> Tensor:
        # Which half is seen is drawn: the offset of one row between input and target cancels on average.
        first = int(torch.randint(2, ()))
        return F.mse_loss(self(x[..., first::2, :]), x[..., 1 - first :: 2, :])


class RowMasked(nn.Module):
    """The blind-row network's mean alone: a row predicted from the other rows, its own pixels never used."""

    def __init__(self) -> None:
        super().__init__()
        s = SETTINGS.blind_row
        self.rows = BlindRow(features=s.features, blocks=s.blocks, period=s.period, rank=1, widths=(1.0,))

    def forward(self, x: Tensor) -> Tensor:
        result = torch.empty_like(x)
        for offset in range(min(self.rows.period, x.shape[-2])):
            result[..., offset :: self.rows.period, :] = self.predicted(x, offset)
        return result

    def predicted(self, x: Tensor, offset: int) -> Tensor:
        """The rows offset, offset + period, ... of images (b, 1, y, x)."""
        mean, _ = self.rows.prior(x, offset)
        return mean[0].reshape(len(x), 1, -1, x.shape[-1])

    def loss(self, x: Tensor) -> Tensor:
        offset = int(torch.randint(self.rows.period, ()))
        return F.mse_loss(self.predicted(x, offset), x[..., offset :: self.rows.period, :])


def row_split(task: Task) -> Fitted:
    return learned(task, "row-split Noise2Noise", RowSplit)


def row_masked(task: Task) -> Fitted:
    return learned(task, "row-masked network", RowMasked)


def learned(task: Task, name: str, kind: Callable[[], RowSplit | RowMasked]) -> Fitted:
    """Train on random crops until the budget is used; the best of 40 looks at held-out crops counts.

    Estimates: as the network makes them, and refined.
    """
    train, used = SETTINGS.train, task.start()
    torch.manual_seed(task.seed)
    where = device.best()
    frames = Frames.split([task.train[:, None]], train.validation, task.seed)
    network = kind().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average, best = copy.deepcopy(network).eval(), copy.deepcopy(network).eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=train.lr)
    edges = frames.edges(train.crop, 16)
    floor = noisefloor.measure(frames.windows(), -1)
    held_out = torch.from_numpy(frames.validation_crops(task.seed, 32, edges)).to(where)
    step, looks, lowest = 0, 0, math.inf
    while (share := used()) < 1:
        rise = min(1.0, (share + 1e-3) / train.warmup)
        for group in optimiser.param_groups:
            group["lr"] = train.lr * rise * 0.5 * (1 + math.cos(math.pi * share))
        crops = torch.from_numpy(frames.batch(task.seed, step, train.batch, edges, "xy")).to(where)
        optimiser.zero_grad(set_to_none=True)
        with device.arithmetic("auto", where):
            network.loss(crops).backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), train.clip or math.inf)
        if norm.isfinite():  # else the update is left out, as in training `auto`
            optimiser.step()
        step += 1
        with torch.no_grad():
            decay = min(train.ema, (1 + step) / (10 + step))
            for slow, quick in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(quick, 1 - decay)
            if used() * train.validations >= looks + 1:
                looks += 1
                with torch.random.fork_rng(), device.arithmetic("auto", where):
                    torch.manual_seed(task.seed)
                    error = float(average.loss(held_out))
                if error < lowest:
                    lowest = error
                    best.load_state_dict(average.state_dict())

    def as_shown(images: np.ndarray) -> Tensor:
        return torch.from_numpy(frames.statistics.normalise(images[:, None])).to(where)

    @torch.inference_mode()
    def estimated(images: np.ndarray) -> Tensor:
        with device.arithmetic("auto", where):
            return torch.cat([best(image[None]) for image in as_shown(images)]).float()

    def restored(estimate: Tensor) -> np.ndarray:
        return frames.statistics.restore(estimate.cpu().numpy())[:, 0]

    estimates = {name: lambda images: restored(estimated(images))}
    if floor is not None and not floor.hidden:
        noise = RowNoise(1).to(where)
        noise.start_at(floor)
        noise.requires_grad_(False)

        def refined(images: np.ndarray) -> np.ndarray:
            *_, (_, better) = wiener.refined(as_shown(images), estimated(images), None, noise)
            return restored(better)

        estimates[f"{name} refined"] = refined
    return Fitted(estimates, step, {"parameters": sum(p.numel() for p in network.parameters())})
