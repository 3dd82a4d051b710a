"""Which methods leave it when the rows of a recording swing together? ``python -m benchmarks.swing``.

What of a swing stays in an estimate can only be known where it was put in: `injected` displaces the rows of the
synthetic specimen by a swing, and by the same displacements in random order. `recorded` tells how much of the streaks
that methods leave on real images is a swing. `alarms` tells how often one is seen where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
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
from cosdd.excerpts import upright, windows
from cosdd.swing import HALF

NAMES = ("stem", "stem_dso", "aurora")
OTHERS = ("aurora", "twophoton", "confocal", *(name for name in SETS if "-" in name))
METHODS: tuple[Callable[[Task], Fitted], ...] = (
    classical.row_wiener,
    ours.auto,
    ours.cosdd,
    controls.row_split,
    controls.row_masked,
)
BUDGET = 60.0  # seconds of training
PERIOD, DISPLACED = 3.7, 0.6  # rows, and pixels (root mean square), of the swing that is put in


def measured(images: np.ndarray, axis: str = "x") -> list[swing.Swing]:
    """As `cosdd inspect` does, of images (n, y, x)."""
    return swing.measured([upright(window[0], axis) for window in windows(images[:, None], 2)])


def in_the_hump(images: np.ndarray, period: float) -> float:
    """The part of the score `streaks` that power near a period makes, beyond what lies beside it."""
    frequencies, coefficients = swing.transform(swing.segments(images, STREAK).mean(-1))
    differences = (np.abs(coefficients) ** 2).mean((0, 2)) * (2 - 2 * np.cos(2 * np.pi * frequencies))
    away = np.abs(frequencies - 1 / period)
    inside, beside = away < HALF, (away >= HALF) & (away < 2 * HALF)
    return float(2 * (differences[inside].mean() - differences[beside].mean()) * inside.sum() / images.shape[1] ** 2)


def recorded(name: str) -> dict[str, Any]:
    """What is measured of a recording; where rows swing, the streaks that estimates leave, in all and in the hump."""
    images = SETS[name](0, 8)
    found = measured(images.test)
    result: dict[str, Any] = {"measured": [asdict(one) for one in found]}
    if clear := [one for one in found if one.clear]:
        period = max(clear, key=lambda one: one.height).period
        task = Task(images.train, images.test, BUDGET, "processor", 0, images.extent)
        estimates = {"noisy": images.test} | {
            name: make(images.test)
            for fit in (classical.row_wiener, ours.auto, controls.row_split)
            for name, make in fit(task).estimates.items()
        }
        result["left"] = {
            name: (streaks(made), in_the_hump(made.astype(np.float64), period)) for name, made in estimates.items()
        }
    return result


def displaced(images: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Images (n, y, x) whose rows are moved by so many pixels (n, y) along x."""
    n, y, x = np.indices(images.shape, dtype=float)
    return map_coordinates(images, [n, y, x - by[..., None]], order=3, mode="nearest").astype(np.float32)


def kept(estimate: np.ndarray, truth: np.ndarray, by: np.ndarray) -> float:
    """How much of the displacements stays: 0 of the truth, sharp or blurred, 1 where all of them do.

    By regression on what is odd in them, because to second order moving rows to and fro is a blur.
    """
    odd = (displaced(truth, by) - displaced(truth, -by)).astype(np.float64) / 2
    return float(((estimate - truth) * odd).sum() / (odd**2).sum())


def injected(in_order: bool) -> dict[str, dict[str, float]]:
    """Of each estimate: its PSNR against the image in place, and how much of the displacements is kept."""
    clean = clean_images("specimen")
    generator = np.random.default_rng(0)
    phase = generator.uniform(0, 2 * np.pi, (len(clean), 1))
    by = DISPLACED * np.sqrt(2) * np.sin(2 * np.pi * np.arange(clean.shape[1]) / PERIOD + phase)
    by = by if in_order else generator.permuted(by, axis=1)
    noisy = simulate.RECIPES["stripe"](displaced(clean, by), generator)
    train, test, truth = noisy[:-8], noisy[-8:], clean[-8:]
    found = {}
    for fit in METHODS:
        for name, make in fit(Task(train, test, BUDGET, "processor", 0, 4)).estimates.items():
            estimate = make(test)
            found[name] = {"psnr": against_truth(truth, estimate)["psnr"], "kept": kept(estimate, truth, by[-8:])}
    return found


def alarms() -> dict[str, tuple[int, int]]:
    """How often a swing is seen, of how many looks."""

    def of(looks: Iterator[tuple[np.ndarray, str]]) -> tuple[int, int]:
        seen = [any(one.clear for one in measured(images, axis)) for images, axis in looks]
        return sum(seen), len(seen)

    def crops(name: str, edge: int) -> Iterator[tuple[np.ndarray, str]]:
        image = SETS[name](0, 8).test
        for top in range(0, image.shape[1] - edge + 1, edge):
            for left in range(0, image.shape[2] - edge + 1, edge):
                yield image[:, top : top + edge, left : left + edge], "x"

    found = {
        "other recordings and simulated noise, along x and y": of(
            (SETS[name](0, 8).train, axis) for name in OTHERS for axis in "xy"
        ),
        "eight noisy photographs at a time, along x and y": of(
            (SETS["bsd400-stripe"](0, 8).train[first : first + 8], axis) for first in range(0, 360, 8) for axis in "xy"
        ),
    }
    for name in ("stem", "stem_dso"):
        found |= {f"{name}, crops of {edge} pixels": of(crops(name, edge)) for edge in (1024, 512)}
    return found


def lines(entry: Entry) -> list[str]:
    results = entry["results"]
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. Methods that learn had {results['budget']:g} s of processor "
        f"time; one seed. The synthetic specimen under *stripe*, its rows displaced by {results['displaced']:g} pixels "
        f"(root mean square), in a swing of {results['period']:g} rows, and in random order. How much of the "
        "displacements an estimate keeps (all: 1), and its PSNR against the image whose rows are in place:",
        "",
        "| | swing: kept | | random order: kept | |",
        "|---|---|---|---|---|",
    ]
    for estimate, found in results["injected"]["swing"].items():
        cells = (f"{f['kept']:.2f} | {f['psnr']:.2f} dB" for f in (found, results["injected"]["random"][estimate]))
        told.append(f"| {estimate} | {' | '.join(cells)} |")
    told += [
        "",
        "Recordings, as `cosdd inspect` looks at them. *Hump*: the highest of the spectrum across the rows, over its "
        "median. *By chance*: 95 of 100 random orders of the rows stay below. *Coherence*: of the two halves of the "
        "rows of a window, in the hump.",
        "",
        "| | period, rows | hump | by chance | coherence | a swing? |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["recordings"].items():
        for one in found["measured"]:
            s = swing.Swing(**one)
            told.append(
                f"| {name}, {s.what} | {s.period:.1f} | {s.height:.1f} | {s.chance:.1f} | {s.coherence:.2f} | "
                f"{'yes' if s.clear else ''} |"
            )
    swinging = {name: found["left"] for name, found in results["recordings"].items() if "left" in found}
    told += [
        "",
        "Streaks that are left (variance of row-to-row differences of 16-pixel segments), and how much of that is in "
        "the hump:",
        "",
        f"| | {' | '.join(f'{name} | in the hump' for name in swinging)} |",
        "|---" * (1 + 2 * len(swinging)) + "|",
    ]
    for estimate in next(iter(swinging.values()), {}):
        values = (value for left in swinging.values() for value in left[estimate])
        told.append(f"| {estimate} | {' | '.join(f'{v:,.0f}' if abs(v) >= 100 else f'{v:.1f}' for v in values)} |")
    return told


def alarm_lines(entry: Entry) -> list[str]:
    """How often it is seen, for docs/noise.md."""
    told = (f"{what}: {seen} of {looks}" for what, (seen, looks) in entry["results"]["alarms"].items())
    return [f"A swing is seen (`{entry['command']}`): {'; '.join(told)}."]


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"budget": BUDGET, "displaced": DISPLACED, "period": PERIOD, "alarms": alarms()}
    print(results, flush=True)
    results["injected"] = {"swing": injected(True), "random": injected(False)}
    print(results["injected"], flush=True)
    results["recordings"] = {name: recorded(name) for name in NAMES}
    print(results["recordings"])
    write("swing", "python -m benchmarks.swing", results)


if __name__ == "__main__":
    main()
