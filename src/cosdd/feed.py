"""Feed: the crops of each update, on the device that trains.

On a GPU no update should wait for them. Frames that fit into its memory stay there and are cut there; of others the
next batch is cut while the device computes. The crops are those of `Frames.batch` in any case.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cosdd import processes
from cosdd.data import Frames, Place
from cosdd.device import free_memory

ROOM = 0.25  # of the free memory of a GPU that frames may take


class Feed:
    """Crops that are cut on the host when they are asked for. For the arguments see `Frames.batch`."""

    def __init__(
        self, frames: Frames, device: torch.device, seed: int, count: int, edges: tuple[int, ...], flips: str
    ) -> None:
        self.frames, self.device = frames, device
        self.seed, self.count, self.edges, self.flips = seed, count, edges, flips

    def __call__(self, step: int) -> Float[Tensor, "b c *edges"]:
        """The part of this process in the batch of an update."""
        return torch.from_numpy(self._batch(step)).to(self.device)

    def _batch(self, step: int) -> np.ndarray:
        return processes.part(self.frames.batch(self.seed, step, self.count, self.edges, self.flips))


class Ahead(Feed):
    """Crops of which those of the next update are cut in the meantime."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._worker = ThreadPoolExecutor(1)
        self._begun: dict[int, Future[Tensor]] = {}

    def __call__(self, step: int) -> Float[Tensor, "b c *edges"]:
        wanted = self._begun.pop(step, None) or self._worker.submit(self._ready, step)
        self._begun = {step + 1: self._worker.submit(self._ready, step + 1)}
        return wanted.result().to(self.device, non_blocking=True)

    def _ready(self, step: int) -> Tensor:
        crops = torch.from_numpy(self._batch(step))
        return crops.pin_memory() if self.device.type == "cuda" else crops  # so that sending does not hold up the host


class Resident(Feed):
    """Crops of frames that stay on the device, normalised, from when they are first needed."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._there: dict[tuple[int, int], Tensor] = {}

    def __call__(self, step: int) -> Float[Tensor, "b c *edges"]:
        places = processes.part(self.frames.places(self.seed, step, self.count, self.edges, self.flips))
        channels = len(self.frames.statistics.mean)
        crops = torch.full((len(places), channels, *self.edges), torch.nan, device=self.device)
        for crop, place in zip(crops, places, strict=True):
            pixels = self._frame(place.array, place.frame)[(slice(None), *place.window)]
            crop[(slice(None), *map(slice, pixels.shape[1:]))] = pixels
            if place.flipped:
                crop.copy_(crop.flip(place.flipped))
        return crops

    def _frame(self, array: int, frame: int) -> Float[Tensor, " c *space"]:
        if (array, frame) not in self._there:
            everything = tuple(slice(0, size) for size in self.frames.arrays[array].shape[2:])
            whole = self.frames.cut(Place(array, frame, everything, ()))
            self._there[array, frame] = torch.from_numpy(whole).to(self.device)
        return self._there[array, frame]


def choose(frames: Frames, device: torch.device, seed: int, count: int, edges: tuple[int, ...], flips: str) -> Feed:
    """The quickest way to bring these crops to the device."""
    if device.type != "cuda":
        kind = Feed
    else:
        needed = 4.0 * sum(np.prod(frames.arrays[a].shape[1:], dtype=float) for a, _ in frames.train)
        kind = Resident if needed <= ROOM * free_memory(device) else Ahead
    return kind(frames, device, seed, count, edges, flips)
