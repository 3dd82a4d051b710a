"""Do the rows of a recording swing together, and which methods leave that? ``python -m benchmarks.swing``.

Everything that learns from other rows takes their noise to be independent. The scan of a microscope may swing: rows
are then displaced, or brighter, in turn, with a period of a few rows.

Measured in stretches of SEGMENT pixels of each row, against the image smoothed across the rows: their displacement (by
regression on the derivative along the row) and their brightness. Both have spectra across the rows, in which what is
independent from row to row is flat and a swing is a hump. Rows in random order tell how high chance is. Rows swing
*together* where stretches half a row apart are coherent in the hump.

What of a swing stays in an estimate can only be known where it was put in: `injected` displaces the rows of the
synthetic specimen by a swing, and by the same displacements in random order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, map_coordinates

from benchmarks.real import SEGMENT as STREAK
from benchmarks.real import streaks
from benchmarks.record import Entry, circumstances, write
from benchmarks.table import classical, controls, ours
from benchmarks.table.sets import SETS, against_truth, clean_images
from benchmarks.table.task import Fitted, Task
from cosdd import simulate

NAMES = ("stem", "stem_dso", "aurora")
METHODS: tuple[Callable[[Task], Fitted], ...] = (
    classical.row_wiener,
    ours.auto,
    ours.cosdd,
    controls.row_split,
    controls.row_masked,
)
SEGMENT = 128  # pixels along the row
ACROSS, ALONG = 3.0, 1.5  # pixels, standard deviations of the smoothing
FROM = 0.15  # cycles per row: the images themselves end below
HALF = 0.04  # cycles per row: half the width of a hump
SHUFFLES = 100
TOGETHER = 0.4  # coherence above which rows swing as a whole
BUDGET = 60.0  # seconds of training
PERIOD, DISPLACED = 3.7, 0.6  # rows, and pixels (root mean square), of the swing that is put in


def segments(images: np.ndarray, length: int) -> np.ndarray:
    """(n, y, x) -> (n, y, stretches, length)."""
    whole = images.shape[-1] // length * length
    return images[..., :whole].reshape(*images.shape[:-1], -1, length)


def displacements(noisy: np.ndarray) -> np.ndarray:
    """Of each stretch of each row (n, y, stretches), in no unit: stretches of little contrast count little."""
    smooth = gaussian_filter1d(gaussian_filter1d(noisy, ACROSS, axis=1), ALONG, axis=2)
    slope, rest = segments(np.gradient(smooth, axis=2), SEGMENT), segments(noisy - smooth, SEGMENT)
    slope, rest = slope - slope.mean(-1, keepdims=True), rest - rest.mean(-1, keepdims=True)
    return -(slope * rest).sum(-1) / (slope**2).sum(-1).mean()


def brightness(noisy: np.ndarray, length: int = SEGMENT) -> np.ndarray:
    """Of each stretch of each row (n, y, stretches)."""
    return segments(noisy - gaussian_filter1d(noisy, ACROSS, axis=1), length).mean(-1)


def transform(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per row, and Fourier coefficients across the rows, of values (n, y, stretches)."""
    window = np.hanning(values.shape[1])[:, None] / np.sqrt(np.mean(np.hanning(values.shape[1]) ** 2))
    return np.fft.rfftfreq(values.shape[1]), np.fft.rfft((values - values.mean(1, keepdims=True)) * window, axis=1)


def hump(values: np.ndarray) -> tuple[float, float]:
    """Where the spectrum across the rows is highest, in cycles per row, and by how many times its median."""
    frequencies, coefficients = transform(values)
    smooth = gaussian_filter1d((np.abs(coefficients) ** 2).mean((0, 2)), 0.5 * HALF * values.shape[1])
    inside = (frequencies > FROM + 2 * HALF) & (frequencies < 0.5 - HALF)
    best = int(np.argmax(smooth * inside))
    return float(frequencies[best]), float(smooth[best] / np.median(smooth[frequencies > FROM]))


def chance(values: np.ndarray) -> float:
    """What the hump of the same rows in random order is below of, 95 times in a hundred."""
    generator = np.random.default_rng(0)
    return float(np.quantile([hump(generator.permutation(values, axis=1))[1] for _ in range(SHUFFLES)], 0.95))


def coherence(values: np.ndarray, at: float) -> float:
    """Of stretches half a row apart, within HALF of a frequency: 1 where they swing as one, 0 where independent."""
    frequencies, coefficients = transform(values)
    inside = coefficients[:, np.abs(frequencies - at) < HALF]
    half = values.shape[2] // 2
    a, b = inside[..., :half], inside[..., half : 2 * half]
    shared = np.abs((a * b.conj()).sum((0, 1)))
    return float(np.mean(shared / np.sqrt((np.abs(a) ** 2).sum((0, 1)) * (np.abs(b) ** 2).sum((0, 1)))))


def in_the_hump(images: np.ndarray, at: float) -> float:
    """The part of the score `streaks` that power within HALF of a frequency makes, beyond what lies beside it."""
    frequencies, coefficients = transform(segments(images, STREAK).mean(-1))
    differences = (np.abs(coefficients) ** 2).mean((0, 2)) * (2 - 2 * np.cos(2 * np.pi * frequencies))
    away = np.abs(frequencies - at)
    inside, beside = away < HALF, (away >= HALF) & (away < 2 * HALF)
    rows = images.shape[1]
    return float(2 * (differences[inside].mean() - differences[beside].mean()) * inside.sum() / rows**2)


def recorded(name: str) -> dict[str, Any]:
    """Of a recording: its humps, and where there is one, the streaks that estimates leave, in all and in the hump."""
    images = SETS[name](0, 8)
    noisy = images.test.astype(np.float64)
    found: dict[str, Any] = {}
    for what, values in (("displacement", displacements(noisy)), ("brightness", brightness(noisy))):
        at, height = hump(values)
        found[what] = {"at": at, "height": height, "chance": chance(values), "coherence": coherence(values, at)}
    clearest = max(found.values(), key=lambda of: of["coherence"])
    if clearest["height"] < clearest["chance"] or clearest["coherence"] < TOGETHER:
        return found
    task = Task(images.train, images.test, BUDGET, "processor", 0, images.extent)
    estimates = {"noisy": noisy} | {
        estimate: make(images.test).astype(np.float64)
        for fit in METHODS
        for estimate, make in fit(task).estimates.items()
    }
    found["left"] = {e: (streaks(made), in_the_hump(made, clearest["at"])) for e, made in estimates.items()}
    return found


def displaced(images: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Images (n, y, x) whose rows are moved by so many pixels (n, y) along x."""
    n, y, x = np.indices(images.shape, dtype=float)
    return map_coordinates(images, [n, y, x - by[..., None]], order=3, mode="nearest").astype(np.float32)


def injected(in_order: bool) -> dict[str, dict[str, float]]:
    """Of each estimate: its PSNR, and how much of the displacements stays (1: all of them), by regression."""
    clean = clean_images("specimen")
    generator = np.random.default_rng(0)
    phase = generator.uniform(0, 2 * np.pi, (len(clean), 1))
    by = DISPLACED * np.sqrt(2) * np.sin(2 * np.pi * np.arange(clean.shape[1]) / PERIOD + phase)
    moved = displaced(clean, by if in_order else generator.permuted(by, axis=1))
    noisy = simulate.RECIPES["stripe"](moved, generator)
    train, test, truth = noisy[:-8], noisy[-8:], clean[-8:]
    effect = (moved[-8:] - truth).astype(np.float64)
    found = {}
    for fit in METHODS:
        for name, make in fit(Task(train, test, BUDGET, "processor", 0, 4)).estimates.items():
            estimate = make(test)
            kept = float(((estimate - truth) * effect).sum() / (effect**2).sum())
            found[name] = {"psnr": against_truth(truth, estimate)["psnr"], "kept": kept}
    return found


def lines(entry: Entry) -> list[str]:
    recordings, put_in = entry["results"]["recordings"], entry["results"]["injected"]
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. Methods that learn had {entry['results']['budget']:g} s of "
        "processor time; one seed. *Hump*: the highest of the spectrum across the rows, over its median. *By chance*: "
        "95 of 100 random orders of the rows stay below. *Coherence*: of stretches half a row apart, in the hump.",
        "",
        "| | hump | period, rows | by chance | coherence |",
        "|---|---|---|---|---|",
    ]
    for name, found in recordings.items():
        for what in ("displacement", "brightness"):
            f = found[what]
            told.append(
                f"| {name}, {what} | {f['height']:.1f} | {1 / f['at']:.1f} | {f['chance']:.1f} | {f['coherence']:.2f} |"
            )
    swinging = {name: found["left"] for name, found in recordings.items() if "left" in found}
    told += [
        "",
        "Streaks that are left (variance of row-to-row differences of 16-pixel segments), and how much of that is the "
        "hump:",
        "",
        f"| | {' | '.join(f'{name} | in the hump' for name in swinging)} |",
        "|---" * (1 + 2 * len(swinging)) + "|",
    ]
    for estimate in next(iter(swinging.values()), {}):
        cells = (
            f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
            for left in swinging.values()
            for value in left[estimate]
        )
        told.append(f"| {estimate} | {' | '.join(cells)} |")
    told += [
        "",
        f"Where it is known: the synthetic specimen under *stripe*, its rows displaced by {DISPLACED:g} pixels (root "
        f"mean square), in a swing of {PERIOD:g} rows, and in random order. How much of the displacements stays in an "
        "estimate (all: 1), and the PSNR against the image whose rows are in place:",
        "",
        "| | swing | | random order | |",
        "|---|---|---|---|---|",
    ]
    for estimate, found in put_in["swing"].items():
        cells = (f"{f['kept']:.2f} | {f['psnr']:.2f} dB" for f in (found, put_in["random"][estimate]))
        told.append(f"| {estimate} | {' | '.join(cells)} |")
    return told


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"budget": BUDGET, "recordings": {}, "injected": {}}
    parts = [("injected", "swing", partial(injected, True)), ("injected", "random", partial(injected, False))]
    parts += [("recordings", name, partial(recorded, name)) for name in NAMES]
    for part, name, make in parts:
        results[part][name] = make()
        print(part, name, results[part][name], flush=True)
    write("swing", "python -m benchmarks.swing", results)


if __name__ == "__main__":
    main()
