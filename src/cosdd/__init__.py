"""Remove row- and column-correlated noise from scientific images, learning from the noisy images alone.

import cosdd
model = cosdd.train(noisy, noise_axis="x")
result = model.denoise(noisy)          # result.mean, result.std
model.save("stack.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cosdd.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from cosdd.axes import Image
    from cosdd.denoise import Denoiser
    from cosdd.training import Record

__version__: str
__all__ = ["InputError", "__version__", "load", "train"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: longer than all else here takes, and before Ctrl-C is heard."""
    if name != "__version__":
        raise AttributeError(f"module 'cosdd' has no attribute {name!r}")
    from importlib.metadata import version

    return version("cosdd")


def train(
    noisy: np.ndarray | Image | str | Path | Sequence[np.ndarray | Image | str | Path],
    *,
    noise_axis: str = "auto",
    preset: str = "tiny",
    axes: str | None = None,
    time: float | str | None = None,
    steps: int | None = None,
    method: str | None = None,
    seed: int | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    on_record: Callable[[Record], None] | None = None,
    quiet: bool = False,
) -> Denoiser:
    """Learn from noisy images alone; returns a model with ``denoise`` and ``save``.

    noisy: an array ((y, x), or (n, y, x) for n separate images), an Image, a path, or a list of those.
    noise_axis: "x" (along rows), "y" (along columns), "z", "none", or "auto" to measure it.
    axes: letters such as "TYX" where an array or file does not say.
    method: "cosdd" (the paper's), "blind-row" (quick, closed form) or "auto".
    time, steps: the budget, such as "10m", or in updates (exactly repeatable).
    settings: any setting, as {"train": {"lr": 1e-3}, "model": {"levels": 6}}.
    on_record: called with each step's record. quiet: no progress and no notes are shown.
    Ctrl-C ends training and returns the best model so far.
    Raises InputError for images or settings at fault.
    """
    from contextlib import nullcontext
    from pathlib import Path

    from cosdd import preparation, progress, training
    from cosdd.denoise import Denoiser

    train_settings = {"time": time, "steps": steps, "seed": seed}
    given: dict[str, Any] = {"train": {name: value for name, value in train_settings.items() if value is not None}}
    if method is not None:
        given["method"] = method
    sources = [noisy] if isinstance(noisy, str | Path) or not isinstance(noisy, Sequence) else list(noisy)
    ready = preparation.prepare(sources, axes, noise_axis, preset, settings or {}, given)
    run = training.start(ready.settings, ready.frames)
    remarks = dict.fromkeys(remark for image in ready.images for remark in image.remarks)
    for note in () if quiet else (*remarks, *ready.notes, *run.notes):
        progress.out.print(f"note: {note}")
    try:
        with nullcontext() if quiet else progress.bar("training") as show:
            for record in training.fit(run):
                if show:
                    show(record.progress, record.shown)
                if on_record:
                    on_record(record)
    except KeyboardInterrupt:
        if not run.step:
            raise
    trained = training.finish(run)
    if training.without_direct(run) and not quiet:
        progress.out.print(f"note: {training.LEFT_OUT}")
    for doubt in () if quiet else trained.doubts:
        progress.out.print(f"warning: {doubt}")
    return Denoiser(trained)


def load(path: str | Path) -> Denoiser:
    """Read a model file. Raises InputError where it is missing, damaged or too new."""
    from cosdd.denoise import Denoiser

    return Denoiser.load(path)
