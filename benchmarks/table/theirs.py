"""The authors' published code, as ``benchmarks.published`` drives it: both its estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.published import training
from benchmarks.table.task import Fitted, Task
from cosdd import device

SAMPLES = 100


def as_published(task: Task) -> Fitted:
    return _fitted(task, "published COSDD", mended=False)


def mended(task: Task) -> Fitted:
    return _fitted(task, "published COSDD mended", mended=True)


def _fitted(task: Task, name: str, *, mended: bool) -> Fitted:
    """Updates until the budget is used."""
    steps, used = training(Path(task.checkout), mended, task.train, task.seed, device.best()), task.start()
    updates, estimate = next(steps)
    while used() < 1:
        updates, estimate = next(steps)

    def mean(images: np.ndarray) -> np.ndarray:
        return estimate(images, SAMPLES)["mean"]

    def direct(images: np.ndarray) -> np.ndarray:
        return estimate(images, 0)["direct"]

    return Fitted({f"{name} direct": direct, f"{name} MMSE-{SAMPLES}": mean}, updates, {"samples": SAMPLES})
