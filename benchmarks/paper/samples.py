"""How good is the mean of 1, 10, 100 (1000) samples? Supplement section 2.4 and Table 1.

Photographs under the paper's two simulated noises. If samples are independent, the mean squared error of the mean of
L of them is A + B/L: A the error of the limit, B the variance of one sample. A and B are fitted to L = 1 and 10 and
foretell the others. B/A would be 1 for exact samples from the posterior. The direct denoiser is scored beside.

Samples are independent, as the paper's, and see the image from one position of the networks' grid. Every L is
measured on all the samples there are, cut into as many groups of L as fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper import figures
from benchmarks.paper.figures import Curve, Panel
from benchmarks.paper.models import Size, trained
from benchmarks.table.sets import SETS
from cosdd import metrics
from cosdd.denoise import Denoiser

NAMES = ("bsd400-stripe", "bsd400-checkerboard")
METHODS = ("cosdd",)
LAW, DIRECT = 0.05, 0.1  # dB: the law's error at most; what the direct denoiser may lose to the mean of 100
# Published, supplement Table 1; other images (faces), so to be compared in shape alone.
PUBLISHED = {
    "bsd400-stripe": {1: 32.27, 10: 35.24, 100: 35.66, 1000: 35.74},
    "bsd400-checkerboard": {1: 33.03, 10: 35.85, 100: 36.27, 1000: 36.32},
}
PICTURE = "samples.svg"


def errors(model: Denoiser, noisy: np.ndarray, truth: np.ndarray, counts: tuple[int, ...]) -> dict[int, float]:
    """Mean squared error of the mean of each number of samples, over (n, y, x) images."""
    most = max(counts)
    sums = dict.fromkeys(counts, 0.0)
    for image, clean in zip(noisy, truth, strict=True):
        drawn = model.denoise(image, axes="YX", samples=most, save_samples=most, plain=True).samples
        assert drawn is not None
        for count in counts:
            groups = drawn[: most // count * count].reshape(-1, count, *clean.shape).mean(1, dtype=np.float64)
            sums[count] += float(np.mean((groups - clean) ** 2)) / len(truth)
    return sums


def law(mse: Mapping[int, float]) -> tuple[float, float]:
    """A and B of A + B/L through the two smallest L."""
    (one, first), (two, second) = sorted(mse.items())[:2]
    b = (first - second) / (1 / one - 1 / two)
    return first - b / one, b


def decibels(mse: float) -> float:
    return float(-10 * np.log10(mse))


def measured(model: Denoiser, noisy: np.ndarray, truth: np.ndarray, counts: tuple[int, ...]) -> dict[str, Any]:
    mse = errors(model, noisy, truth, counts)
    a, b = law(mse)
    off = {count: decibels(a + b / count) - decibels(error) for count, error in mse.items()}
    found: dict[str, Any] = {
        "psnr": {str(count): round(decibels(error), 2) for count, error in mse.items()},
        "law": {"a": float(f"{a:.4g}"), "b": float(f"{b:.4g}"), "b_over_a": round(b / a, 3)},
        "psnr_of_the_limit": round(decibels(a), 2),
        "law_off_db": {str(count): round(value, 3) for count, value in off.items()},
    }
    worst = max(map(abs, off.values()))
    found |= {
        "psnr_noisy": round(decibels(float(np.mean((noisy - truth) ** 2))), 2),
        "psnr_best_gaussian": round(decibels(float(np.mean((metrics.best_gaussian(noisy, truth)[0] - truth) ** 2))), 2),
        "reached": {"law": worst < LAW},
    }
    if model.checkpoint.settings.model.direct:
        direct = decibels(float(np.mean((model.denoise(noisy, axes="TYX", direct=True).mean - truth) ** 2)))
        found["psnr_direct"] = round(direct, 2)
        found["reached"]["direct"] = direct >= decibels(mse[min(100, max(mse))]) - DIRECT
    return found


def run(size: Size, sets: list[str], methods: list[str], folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in sets:
        images = SETS[name](0, size.tested)
        assert images.truth is not None
        model = trained(name, images.train, "x", "cosdd", size.steps["cosdd"], size, folder)
        found = measured(model.denoiser, images.test, images.truth, size.samples)
        results[f"{name} cosdd"] = found | {"images": len(images.test)} | model.facts
    return results


def summarise(results: Mapping[str, Any]) -> None:
    """A chart of measured and foretold PSNR against the number of samples."""
    panels = []
    for name, run in results.items():
        a, b = run["law"]["a"], run["law"]["b"]
        counts = [int(count) for count in run["psnr"]]
        smooth = np.geomspace(1, max(counts), 40)
        curves = [
            Curve("A + B/L, fitted to 1 and 10", list(smooth), [decibels(a + b / count) for count in smooth]),
            Curve("mean of L samples", counts, list(run["psnr"].values()), dots=True),
        ]
        if "psnr_direct" in run:
            curves.append(Curve("direct denoiser", [1, max(counts)], [run["psnr_direct"]] * 2))
        panels.append(Panel(f"{name.split()[0]}: PSNR (dB)", curves, "samples", log_x=True))
    figures.chart(figures.IMAGES / PICTURE, panels, 2)


def table(results: Mapping[str, Any]) -> list[str]:
    counts = next(iter(results.values()))["psnr"]
    lines = [
        f"| PSNR (dB) of the mean of L samples, L = | {' | '.join(counts)} | limit | B/A | law is off by | direct "
        "| noisy | best Gaussian |",
        "|---" * (len(counts) + 7) + "|",
    ]
    for name, run in results.items():
        off, limit = max(map(abs, run["law_off_db"].values())), run["psnr_of_the_limit"]
        means = " | ".join(f"{value:.2f}" for value in run["psnr"].values())
        others = " | ".join(f"{run.get(f'psnr_{kind}', np.nan):.2f}" for kind in ("direct", "noisy", "best_gaussian"))
        lines.append(
            f"| {name.split()[0]} | {means} | {limit:.2f} | {run['law']['b_over_a']:.2f} | {off:.3f} dB | {others} |"
        )
    return lines
