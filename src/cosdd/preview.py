"""A picture of how far a training run is: an image, what the model makes of it now, and what that takes away.

The image is one that was held out, where any was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cosdd import images, report, training
from cosdd.checkpoint import Checkpoint
from cosdd.data import Frames
from cosdd.denoise import Denoiser, Result, Settings

EDGES = {2: (256, 256), 3: (8, 128, 128)}  # the part of the image that is looked at, from its middle
PANEL = 512  # pixels of the picture along the longer edge of each panel, at most
SAMPLES = 8


def path_for(model: Path) -> Path:
    """The picture's place, beside the model file that the run will write."""
    return model.with_suffix(images.PREVIEW)


def possible(frames: Frames) -> bool:
    """Single lines make no picture."""
    return frames.dimensions in EDGES


def of_run(run: training.Run, path: Path) -> None:
    """Draw a run between two updates, with the averaged weights. Raises InputError where it cannot be written."""
    with training.averaged(run):
        now = Checkpoint(run.settings, run.frames.statistics, run.network, (), run.step, run.seconds)
        write(now, run.frames, path)


def write(model: Checkpoint, frames: Frames, path: Path) -> None:
    """Draw what a model makes of one of the frames. Raises InputError where it cannot be written."""
    noisy, denoised = look(model, frames)
    greys, taken_away = report.greys(noisy, denoised)
    steps = f"after {model.steps} step{'s' * (model.steps != 1)}"
    panels = [("noisy", noisy), (steps, denoised), ("taken away", noisy - denoised)]
    zoom = max(1, PANEL // max(noisy.shape))
    report.side_by_side(path, panels, [greys, greys, taken_away], zoom)


def look(model: Checkpoint, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and denoised: (y, x) grey values of the first channel, of a volume its middle plane."""
    a, i = (frames.validation or frames.train)[0]
    space, edges = frames.arrays[a].shape[2:], EDGES[frames.dimensions]
    starts = [max(0, size - edge) // 2 for size, edge in zip(space, edges, strict=True)]
    middle = [slice(start, start + edge) for start, edge in zip(starts, edges, strict=True)]
    noisy = np.asarray(frames.arrays[a][slice(i, i + 1), :, *middle])
    parts = Denoiser(model).stream(noisy, Settings(samples=SAMPLES))
    denoised = next(part.mean for part in parts if isinstance(part, Result))
    plane = (0, noisy.shape[2] // 2) if frames.dimensions == 3 else (0,)
    return noisy[0][plane].astype(np.float64), denoised[plane].astype(np.float64)
