"""Do the rows of a recording swing together, and which methods leave that? ``python -m benchmarks.swing``.

Everything that learns from other rows takes them to be independent, given the image. The scan of an electron
microscope may swing (mains, vibration): rows are then displaced, or brighter, in turn, with a period of a few rows.

Measured in stretches of SEGMENT pixels of each row, against the image smoothed across the rows: their displacement
(by regression on the derivative along the row; mirrored derivatives tell what comes of chance) and their brightness.
Both have spectra across the rows, in which noise that is independent from row to row is flat and a swing is a hump.
Then how much of the hump an estimate keeps: its power there less that beside it, over the same of the noisy image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from benchmarks.record import Entry, circumstances, write
from benchmarks.table import classical, controls, ours
from benchmarks.table.sets import SETS, Set
from benchmarks.table.task import Fitted, Task

NAMES = ("stem", "stem_dso", "aurora")
METHODS: tuple[Callable[[Task], Fitted], ...] = (ours.auto, controls.row_split, classical.row_wiener)
SEGMENT, STREAK = 128, 16  # pixels along the row: for displacements, and for what is left
ACROSS, ALONG = 3.0, 1.5  # pixels, standard deviations of the smoothing
FROM = 0.2  # cycles per row: the images themselves end below
HALF = 0.04  # cycles per row: half the width of a hump
SWING = 2.0  # times the median: what independent rows do not reach
BUDGET = 60.0  # seconds of training


def segments(images: np.ndarray, length: int) -> np.ndarray:
    """(n, y, x) -> (n, y, stretches, length)."""
    whole = images.shape[-1] // length * length
    return images[..., :whole].reshape(*images.shape[:-1], -1, length)


def spectrum(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per row, and mean power, of values (n, y, stretches) across the rows."""
    window = np.hanning(values.shape[1])[:, None]
    power = np.abs(np.fft.rfft((values - values.mean(1, keepdims=True)) * window, axis=1)) ** 2
    return np.fft.rfftfreq(values.shape[1]), power.mean((0, 2)) / (window**2).sum()


def displacements(noisy: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Of each stretch of each row (n, y, stretches), in pixels and too large by the contrast that smoothing takes."""
    smooth = gaussian_filter1d(gaussian_filter1d(noisy, ACROSS, axis=1), ALONG, axis=2)
    slope, rest = segments(np.gradient(smooth, axis=2), SEGMENT), segments(noisy - smooth, SEGMENT)
    slope, rest = slope - slope.mean(-1, keepdims=True), rest - rest.mean(-1, keepdims=True)
    if mirrored:
        slope = slope[..., ::-1]
    return -(slope * rest).sum(-1) / (slope**2).sum(-1)


def hump(values: np.ndarray) -> tuple[float, float]:
    """Where the spectrum across the rows is highest, in cycles per row, and by how many times its median."""
    frequencies, power = spectrum(values)
    inside = (frequencies > FROM) & (frequencies < 0.5 - HALF)
    smooth = gaussian_filter1d(power, 0.5 * HALF * values.shape[1])
    best = int(np.argmax(smooth * inside))
    return float(frequencies[best]), float(smooth[best] / np.median(power[frequencies > FROM]))


def excess(images: np.ndarray, at: float) -> float:
    """Power of streaks within HALF of a frequency, less that beside it."""
    frequencies, power = spectrum(segments(images, STREAK).mean(-1))
    away = np.abs(frequencies - at)
    return float(power[away < HALF].mean() - power[(away >= HALF) & (away < 2 * HALF)].mean())


def measured(images: Set, seconds: float) -> dict[str, Any]:
    noisy = images.test.astype(np.float64)
    found: dict[str, Any] = {
        "displacement": hump(displacements(noisy)),
        "mirrored": hump(displacements(noisy, mirrored=True)),
        "brightness": hump(segments(noisy, SEGMENT).mean(-1)),
    }
    at = max((found["displacement"], found["brightness"]), key=lambda of: of[1])[0]
    task = Task(images.train, images.test, seconds, "processor", 0, images.extent)
    found |= {"at": at, "kept": {}}
    for fit in METHODS:
        for name, estimate in fit(task).estimates.items():
            found["kept"][name] = excess(estimate(images.test).astype(np.float64), at) / excess(noisy, at)
    return found


def lines(entry: Entry) -> list[str]:
    found: dict[str, dict[str, Any]] = entry["results"]
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. Methods that learn had {BUDGET:g} s of processor time; "
        "one seed. Spectra across the rows, above one cycle in five rows; *hump*: the highest, over the median. "
        "*Left*: of the power that the hump has more than its surroundings, in the noisy image.",
        "",
        f"| | {' | '.join(found)} |",
        "|---" * (len(found) + 1) + "|",
    ]
    for key, says in (
        ("displacement", "hump of displacements"),
        ("mirrored", "the same by chance (derivatives mirrored)"),
        ("brightness", "hump of brightness"),
    ):
        cells = (f"{height:.1f} at a period of {1 / at:.1f} rows" for at, height in (of[key] for of in found.values()))
        told.append(f"| {says} | {' | '.join(cells)} |")
    for name in next(iter(found.values()))["kept"]:
        cells = (f"{max(0.0, of['kept'][name]):.0%}" if swings(of) else "" for of in found.values())
        told.append(f"| left by {name} | {' | '.join(cells)} |")
    return told


def swings(found: dict[str, Any]) -> bool:
    return max(found["displacement"][1], found["brightness"][1]) > SWING


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    for name in NAMES:
        results[name] = measured(SETS[name](0, 8), BUDGET)
        print(name, results[name], flush=True)
    write("swing", "python -m benchmarks.swing", results)


if __name__ == "__main__":
    main()
