"""Networks of a few thousand parameters and images of a few hundred pixels: what most tests need."""

import json
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from cosdd import config, tensorfile
from cosdd.checkpoint import Checkpoint
from cosdd.data import Frames, Statistics
from cosdd.model import COSDD

MODEL: dict[str, Any] = {
    "start": "empty", "latents_from": 0.0, "direct_from": 0.6, "levels": 2, "features": 4, "max_features": 8,
    "latents": 2, "final_latents": 3, "noise_layers": 3, "noise_kernel": 5, "noise_features": 4, "components": 2,
    "signal_layers": 1, "signal_features": 4, "direct_features": 4,
}  # fmt: skip
TRAIN: dict[str, Any] = {"steps": 4, "lr": 2e-3, "batch": 2, "crop": 16, "validations": 1, "precision": "float32"}


def settings(train: dict[str, Any] | None = None, **model: Any) -> config.Config:
    given = {"method": "cosdd", "model": MODEL | model, "train": TRAIN | (train or {})}
    return config.build("tiny", given)


def network(**model: Any) -> COSDD:
    return COSDD(settings(**model).model)


def shaken(network: torch.nn.Module, spread: float = 0.2) -> torch.nn.Module:
    """Random numbers instead of the zeros that networks start from: no branch is silent."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, spread)
    return network


def checkpoint(mean: float = 0.0, std: float = 1.0, **model: Any) -> Checkpoint:
    """A model as if trained: random weights, statistics of our choice."""
    asked = settings(**model)
    channels = asked.model.channels
    statistics = Statistics((mean,) * channels, (std,) * channels, 0.0)
    history = ({"step": 4.0, "elbo": -1.25},)
    return Checkpoint(asked, statistics, shaken(COSDD(asked.model)).eval(), history, 4, 1.5)  # type: ignore[arg-type]


def without_checksum(file: bytes) -> bytes:
    """A model file as those of format 3, without a checksum of the header: what is changed is found by other checks."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    del header["__metadata__"][tensorfile.OF_HEADER]
    header["__metadata__"]["format_version"] = "3"
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def stripes(frames: int = 12, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    """(n, 1, y, x) uint16: discs, each frame its own, under row-correlated noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    signal = np.zeros((frames, height, width))
    for frame in signal:
        for _ in range(4):
            cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(3, 8)
            frame += 200.0 * ((y - cy) ** 2 + (x - cx) ** 2 < radius**2)
    noise = ndimage.gaussian_filter1d(rng.normal(size=signal.shape), 1.5, axis=-1) * 100 + rng.normal(size=signal.shape)
    return (1000 + signal + noise).round().astype(np.uint16)[:, None]


def frames(*arrays: np.ndarray) -> Frames:
    return Frames.split(list(arrays) or [stripes()], 0.1, 0)


class Repeated:
    """Stands in for a CUDA graph: nothing happens when work is recorded, and every replay does it again."""

    made = 0

    def __init__(self, work):
        type(self).made += 1
        self.replay = work
