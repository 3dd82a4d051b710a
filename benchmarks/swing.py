"""Which methods leave it when the rows of a recording swing together? ``python -m benchmarks.swing``.

Recordings are measured by `cosdd.swing`. What of a swing stays in an estimate can only be known where it was put in:
`injected` displaces the rows of the synthetic specimen by a swing, and by the same displacements in random order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from benchmarks.real import SEGMENT as STREAK
from benchmarks.real import streaks
from benchmarks.record import Entry, circumstances, write
from benchmarks.table import classical, controls, ours
from benchmarks.table.sets import SETS, against_truth, clean_images
from benchmarks.table.task import Fitted, Task
from cosdd import simulate, swing
from cosdd.swing import HALF

NAMES = ("stem", "stem_dso", "aurora")
METHODS: tuple[Callable[[Task], Fitted], ...] = (
    classical.row_wiener,
    ours.auto,
    ours.cosdd,
    controls.row_split,
    controls.row_masked,
)
SEGMENT = 128  # pixels along the row
BUDGET = 60.0  # seconds of training
PERIOD, DISPLACED = 3.7, 0.6  # rows, and pixels (root mean square), of the swing that is put in


def in_the_hump(images: np.ndarray, at: float) -> float:
    """The part of the score `streaks` that power within HALF of a frequency makes, beyond what lies beside it."""
    frequencies, coefficients = swing.transform(swing.segments(images, STREAK).mean(-1))
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
    for what, measure in swing.MEASURES.items():
        values = measure(noisy, SEGMENT)
        at, height = swing.hump(values)
        together = swing.coherence(values, at)
        found[what] = {"at": at, "height": height, "chance": swing.chance(values), "coherence": together}
    clearest = max(found.values(), key=lambda of: of["coherence"])
    if clearest["height"] < swing.CLEAR * clearest["chance"] or clearest["coherence"] < swing.TOGETHER:
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
        for what in swing.MEASURES:
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
