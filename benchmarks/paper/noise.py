"""Is generated noise like the true noise? Method 7.5 and the authors' third notebook.

A model learns from noisy photographs alone; then clean test images are made noisy by it, and by the recipe. Compared
are the autocorrelation at lags 1 to 8 along and across the noise axis, and the variance at every tenth of the range:

stripe, checkerboard  the paper's
row-ar                Poisson noise and autoregressive streaks of correlation .6
row-ar-negative       Poisson noise whose neighbours in a row share -.3
dark                  dark frames of a real camera: row offsets, integers; trained on 40, compared with 10 others
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.paper import figures
from benchmarks.paper.figures import Curve, Panel
from benchmarks.paper.models import Model, Size, trained
from benchmarks.table.sets import NOISES, SETS, stored
from cosdd import metrics, simulate
from cosdd.specimen import specimen

NAMES = ("bsd400-stripe", "bsd400-checkerboard", "bsd400-row-ar", "bsd400-row-ar-negative", "dark")
METHODS = ("blind-row", "cosdd")
LAGS, TENTHS = 8, 10
LAG_LIMIT, LAG_AIM = 0.02, 0.01
VARIANCE_LIMIT, VARIANCE_AIM = 0.10, 0.05
DARK = "ccd_dark_50x480x640.tif"
DARK_TRAIN = 40
PICTURE, SAMPLES = "noise.svg", "generated_noise.png"


def compared(truth: np.ndarray, made: np.ndarray, clean: np.ndarray | None) -> dict[str, Any]:
    """(draws, n, y, x) true and generated noise along x of (n, y, x) clean images in 0 to 1; None: all of one grey."""
    found: dict[str, Any] = {}
    for where, axis in (("along", "x"), ("across", "y")):
        of_truth, of_made = (metrics.autocorrelation(noise, LAGS, axis)[1:] for noise in (truth, made))
        found |= {
            f"{where}_truth": of_truth.round(4).tolist(),
            f"{where}_generated": of_made.round(4).tolist(),
            f"{where}_worst": round(float(np.abs(of_made - of_truth).max()), 4),
        }
    parts = [slice(None)] if clean is None else tenths(clean)
    true_variance, variance, mean = (
        np.array([statistic(noise[:, part].astype(np.float64)) for part in parts])
        for noise, statistic in ((truth, np.var), (made, np.var), (made, np.mean))
    )
    error = variance / true_variance - 1
    worst = float(error[np.abs(error).argmax()])
    lag = max(found["along_worst"], found["across_worst"])
    return found | {
        "std_truth": [float(f"{value:.4g}") for value in true_variance**0.5],
        "std_generated": [float(f"{value:.4g}") for value in variance**0.5],
        "variance_error": error.round(3).tolist(),
        "variance_worst": round(worst, 3),
        "mean_worst_in_stds": round(float(np.abs(mean / true_variance**0.5).max()), 3),
        "reached": {
            "limit": lag < LAG_LIMIT and abs(worst) < VARIANCE_LIMIT,
            "aim": lag < LAG_AIM and abs(worst) < VARIANCE_AIM,
        },
    }


def tenths(clean: np.ndarray) -> list[np.ndarray]:
    """Where the clean image is in each tenth of the range."""
    tenth = np.clip((clean * TENTHS).astype(int), 0, TENTHS - 1)
    return [tenth == place for place in range(TENTHS)]


def simulated(name: str, method: str, size: Size, folder: Path) -> tuple[Model, dict[str, Any]]:
    images = SETS[name](0, 40)
    assert images.truth is not None
    model = trained(name, images.train, "x", method, size.steps[method], size, folder)
    made = model.denoiser.generate(images.truth, count=size.draws, axes="TYX").noisy - images.truth
    truth = true_noise(name, images.truth, size.draws)
    return model, compared(truth, made, images.truth)


def true_noise(name: str, clean: np.ndarray, draws: int) -> np.ndarray:
    noise, rng = NOISES[name.removeprefix("bsd400-")], np.random.default_rng(9)
    make = simulate.RECIPES[noise.recipe]
    return np.stack([make(clean, rng, **noise.options) - clean for _ in range(draws)])


def dark(method: str, size: Size, folder: Path) -> tuple[Model, dict[str, Any]]:
    """Dark frames show no signal: all that is in them is noise."""
    frames = tifffile.imread(stored("noisy", DARK))
    model = trained("dark", frames[:DARK_TRAIN], "x", method, size.steps[method], size, folder)
    rest = frames[DARK_TRAIN:].astype(np.float32)
    level = np.full_like(rest[:1], frames[:DARK_TRAIN].mean())
    made = model.denoiser.generate(level, count=len(rest), axes="TYX").noisy - level
    return model, compared(rest[:, None] - level, made, None)


def run(size: Size, sets: list[str], methods: list[str], folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in sets:
        for method in methods:
            model, found = dark(method, size, folder) if name == "dark" else simulated(name, method, size, folder)
            results[f"{name} {method}"] = found | model.facts
            print(name, method, found["reached"], flush=True)
            if name != "dark" and method == METHODS[0]:
                shown[name] = on_the_specimen(name, model)
    if len(shown) == len(NAMES) - 1:
        side_by_side(shown)
    return results


def on_the_specimen(name: str, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """True and generated noise of an image of the specimen, a part of it."""
    clean, cut = specimen(1, 128, 7), (slice(32, 96), slice(32, 96))
    made = model.denoiser.generate(clean, axes="TYX").noisy[0, 0] - clean[0]
    return true_noise(name, clean, 1)[0, 0][cut], made[cut]


def side_by_side(shown: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """True noise above, generated below, each pair in the same greys."""
    limits = [(-3 * float(true.std()), 3 * float(true.std())) for true, _ in shown.values()]
    names = [name.removeprefix("bsd400-") for name in shown]
    above = [(name, true) for name, (true, _) in zip(names, shown.values(), strict=True)]
    below = [("generated", made) for _, made in shown.values()]
    figures.grid(figures.IMAGES / SAMPLES, [above, below], [limits, limits], zoom=3)


def summarise(results: Mapping[str, Any]) -> None:
    """A chart of each noise: autocorrelation along the rows, standard deviation against the signal."""
    names = list(dict.fromkeys(name.split()[0] for name in results))
    correlations, spreads = [], []
    for name in names:
        runs = {key.split()[1]: run for key, run in results.items() if key.split()[0] == name}
        first = next(iter(runs.values()))
        title, lags = name.removeprefix("bsd400-"), list(range(1, LAGS + 1))
        curves = [Curve("true", lags, first["along_truth"])]
        curves += [Curve(method, lags, run["along_generated"], dots=True) for method, run in runs.items()]
        correlations.append(Panel(f"{title}: correlation", curves, "pixels along the row"))
        if len(first["std_truth"]) > 1:
            middles = [(place + 0.5) / TENTHS for place in range(TENTHS)]
            curves = [Curve("true", middles, first["std_truth"])]
            curves += [Curve(method, middles, run["std_generated"], dots=True) for method, run in runs.items()]
            spreads.append(Panel(f"{title}: std", curves, "signal"))
    figures.chart(figures.IMAGES / PICTURE, [*correlations, *spreads], 3)


def table(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "| noise (method, updates) | lags 1, 2, 3 along: true | generated | worst along | worst across "
        "| variance: worst | median |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in results.items():
        true, made = (" ".join(f"{v:+.2f}" for v in run[f"along_{whose}"][:3]) for whose in ("truth", "generated"))
        kind, method = name.split()
        lines.append(
            f"| {kind.removeprefix('bsd400-')} ({method}, {run['steps']}) | {true} | {made} | {run['along_worst']:.3f} "
            f"| {run['across_worst']:.3f} | {100 * run['variance_worst']:+.0f} % "
            f"| {100 * float(np.median(np.abs(run['variance_error']))):.0f} % |"
        )
    return lines
