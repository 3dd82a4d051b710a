"""Our own methods, through the public functions, with a budget in time."""

from __future__ import annotations

import time
from unittest import mock

import cosdd as package
from benchmarks.table.task import Fitted, Task
from cosdd.denoise import Denoiser


def auto(task: Task) -> Fitted:
    """What a user gets who says nothing: also the noise axis is measured. And its closed form, before refinement."""
    model = _trained(task, "auto")
    estimates = {
        "auto": lambda x: model.denoise(x, axes="TYX").mean,
        "auto --plain": lambda x: model.denoise(x, axes="TYX", plain=True).mean,
    }
    return Fitted(estimates, model.checkpoint.steps, _facts(model))


def cosdd(task: Task) -> Fitted:
    """What a user gets, in both ways; and the paper's estimator, before refinement."""
    model = _trained(task, "cosdd")
    estimates = {
        "cosdd": lambda x: model.denoise(x, axes="TYX").mean,
        "cosdd direct": lambda x: model.denoise(x, axes="TYX", direct=True).mean,
        "cosdd MMSE-100": lambda x: model.denoise(x, axes="TYX", plain=True).mean,
    }
    return Fitted(estimates, model.checkpoint.steps, _facts(model))


def _trained(task: Task, method: str) -> Denoiser:
    def train() -> Denoiser:
        return package.train(task.train, axes="TYX", method=method, time=task.budget, seed=task.seed, quiet=True)

    if task.clock == "wall":
        return train()
    with mock.patch("time.perf_counter", time.process_time):  # training counts its budget by this clock
        return train()


def _facts(model: Denoiser) -> dict[str, str | float]:
    return {"noise_axis": model.checkpoint.settings.model.noise_axis, "budget_used": model.checkpoint.seconds}
