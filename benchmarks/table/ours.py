"""Our own methods, through the public functions, with a budget in time."""

from __future__ import annotations

import time
from contextlib import nullcontext
from unittest import mock

from benchmarks.table.task import Fitted, Task
from cosdd import preparation, training
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
    return Fitted(estimates, model.checkpoint.steps, _facts(model) | {"passes": model.checkpoint.passes})


def _trained(task: Task, method: str) -> Denoiser:
    """As `cosdd.train`, but the axis and the noise that are measured before training are paid for from the budget too.

    What is measured after it is not, as its time is not known before: two or three seconds of `auto`, some more of
    `cosdd`, which draws samples for it.
    """
    used = task.start()
    given = {"method": method, "train": {"time": task.budget, "seed": task.seed}}
    ready = preparation.prepare([task.train], "TYX", "auto", "tiny", {}, given)
    run = training.start(ready.settings, ready.frames)
    left = {"time": max(1e-3, 1 - used()) * task.budget}
    run.settings = run.settings.model_copy(update={"train": run.settings.train.model_copy(update=left)})
    processor = mock.patch("time.perf_counter", time.process_time)  # by which training counts its budget
    with processor if task.clock == "processor" else nullcontext():
        for _ in training.fit(run):
            pass
    return Denoiser(training.finish(run))


def _facts(model: Denoiser) -> dict[str, str | float]:
    return {"noise_axis": model.checkpoint.settings.model.noise_axis, "budget_used": model.checkpoint.seconds}
